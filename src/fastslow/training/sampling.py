"""Rollouts of a run: for RL's groups and for the search's scores, from the store where it is fresh enough."""

from collections.abc import Iterable, Sequence

from fastslow.errors import InfrastructureError
from fastslow.fast.optimiser import Evaluation
from fastslow.rollouts.dealing import dealt
from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.runs.metrics import SAMPLE_S
from fastslow.slow.engine import PolicyEngine, SamplingParams
from fastslow.training.context import RunContext
from fastslow.training.curriculum import union
from fastslow.training.feedback import unheard
from fastslow.training.progress import Progress
from fastslow.types import Problem, Prompt, Rollout, RolloutSource

Group = list[Rollout]


class Sampling:
    """Samples what the store cannot serve, counts both, and keeps what was sampled."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.progress = Progress(context)

    def groups(self, minibatch: Sequence[Problem], population: Sequence[Prompt]) -> list[Group]:
        """One group of G rollouts a problem, G/K under each prompt;
        or G/M under each of the M that the problem is dealt.

        Raises: InfrastructureError where more of them could not be scored than the config allows.
        """
        context, store = self.context, self.context.store
        context.phase("sampling")
        slots = self._slots(minibatch, population)
        version, step = context.engine.policy_version, context.state.step
        reused = [store.take(problem.id, prompt.hash, version, count) for problem, prompt, count in slots]
        requests = [
            RolloutRequest(problem, prompt, count - len(served), context.seed("rl", step, problem, prompt))
            for (problem, prompt, count), served in zip(slots, reused, strict=True)
        ]
        before = _work(context.engine)
        with context.record.timer(SAMPLE_S):
            sampled = self._sample(requests, "rl")
        after = _work(context.engine)
        if before and after and any(rollout.trace is not None for rollouts in sampled for rollout in rollouts):
            context.record.count_work(after[0] - before[0], after[1] - before[1])
        context.record.count_rl(sampled, reused)
        context.state.sampled_rl += sum(len(rollouts) for rollouts in sampled)
        slot_groups = ([*old, *new] for old, new in zip(reused, sampled, strict=True))
        groups = _by_problem(minibatch, [problem for problem, _, _ in slots], slot_groups)
        self._check_failures(groups)
        return groups

    def _slots(self, minibatch: Sequence[Problem], population: Sequence[Prompt]) -> list[tuple[Problem, Prompt, int]]:
        """How many rollouts each problem gets under each prompt, problem after problem."""
        loop, config = self.context.config.loop, self.context.config
        each = min(loop.prompts_per_problem or len(population), len(population))
        share, first = loop.group_size // each, self.context.state.step * loop.problems_per_step
        hands = dealt(population, each, first, len(minibatch), config.seed)
        return [
            (problem, prompt, hand.count(prompt) * share)
            for problem, hand in zip(minibatch, hands, strict=True)
            for prompt in dict.fromkeys(hand)
        ]

    def evaluate_pairs(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        """The fast side's `Evaluate`: one rollout a pair, or what the store knows of it."""
        context = self.context
        self.progress.asked(pairs)
        version, asked = context.engine.policy_version, context.record.pairs
        known = [context.store.fresh(problem.id, prompt.hash, version) for prompt, problem in pairs]
        requests = [
            RolloutRequest(problem, prompt, 0 if served else 1, context.seed("gepa", asked + i, problem, prompt))
            for i, ((prompt, problem), served) in enumerate(zip(pairs, known, strict=True))
        ]
        sampled = self._sample(requests, "gepa")
        context.record.count_gepa(sampled, known)
        context.state.sampled_gepa += sum(len(rollouts) for rollouts in sampled)
        evaluations = [
            Evaluation(prompt, problem, old or tuple(new))
            for (prompt, problem), old, new in zip(pairs, known, sampled, strict=True)
        ]
        if not context.state.cycle and not asked and (complaint := unheard(context.config, evaluations)):
            context.warn(complaint)
        self.progress.answered(evaluations)
        return evaluations

    def anchors(self, problems: Sequence[Problem]) -> list[Problem]:
        """The anchor set: the look-ahead batch or a part of it, and by option problems that the store covers already.
        With `fast.scores: rollouts` the latter alone, which may be none.
        """
        context, fast = self.context, self.context.config.fast
        if fast.scores == "rollouts":
            return self._rolled_out()[-fast.anchor_problems :]
        wanted = int(fast.anchors_from_store * fast.anchor_problems)
        hashes = [prompt.hash for prompt in context.state.population]
        covered = context.store.covered_problems(hashes, context.engine.policy_version)[-wanted:] if wanted else []
        anchors = union([[context.training_problems[problem_id] for problem_id in covered], problems])
        return anchors[: fast.anchor_problems]

    def _rolled_out(self) -> list[Problem]:
        """The problems of the task at hand that recent steps have rolled out under every member of the population."""
        context = self.context
        hashes = [prompt.hash for prompt in context.state.population]
        covered = context.store.covered_problems(hashes, context.engine.policy_version)
        current = {problem.id for problem in context.stage(context.state.step).task.problems("train")}
        return [context.training_problems[problem_id] for problem_id in covered if problem_id in current]

    def _sample(self, requests: Sequence[RolloutRequest], source: RolloutSource) -> list[list[Rollout]]:
        context, sampling = self.context, self.context.config.sampling
        params = SamplingParams(sampling.max_tokens, sampling.temperature, sampling.top_p)
        wanted = [request for request in requests if request.n]
        limit = context.room.limit
        limits = context.config.episodes
        made = iter(
            make_rollouts(context.engine, context.task, wanted, params, source, context_limit=limit, episodes=limits)
        )
        rollouts = [next(made) if request.n else [] for request in requests]
        context.store.add(rollout for group in rollouts for rollout in group)
        return rollouts

    def _check_failures(self, groups: Sequence[Group]) -> None:
        context, step = self.context, self.context.state.step + 1
        rollouts = [rollout for group in groups for rollout in group]
        failures = [rollout.failure for rollout in rollouts if rollout.failure is not None]
        if failures:
            context.warn(f"step {step}: {len(failures)} of {len(rollouts)} rollouts masked: {failures[0]}")
        if len(failures) > context.config.max_failure_fraction * len(rollouts):
            raise InfrastructureError(
                f"{len(failures)} of {len(rollouts)} rollouts of step {step} could not be scored, more than "
                f"max_failure_fraction = {context.config.max_failure_fraction} allows. The first: {failures[0]}"
            )


def _work(engine: PolicyEngine) -> tuple[int, int] | None:
    """Tokens that the sampler has computed so far, and those that it had kept; None where it does not count them."""
    sampler = getattr(engine, "sampler", None)
    computed, kept = (getattr(sampler, name, None) for name in ("computed_tokens", "kept_tokens"))
    return None if computed is None or kept is None else (computed, kept)


def _by_problem(
    minibatch: Sequence[Problem], owners: Sequence[Problem], slot_groups: Iterable[Sequence[Rollout]]
) -> list[Group]:
    """Join the slots of each problem, whose owners are given, into its one group."""
    groups: dict[str, Group] = {problem.id: [] for problem in minibatch}
    for owner, rollouts in zip(owners, slot_groups, strict=True):
        groups[owner.id] += rollouts
    return list(groups.values())
