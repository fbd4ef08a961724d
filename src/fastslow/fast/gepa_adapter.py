"""The adapter between gepa and the policy for one cycle: batches, the budget, reflection, and a record of every candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gepa import EvaluationBatch

from fastslow.errors import InfrastructureError, ReflectionError
from fastslow.fast.optimiser import Candidate, Evaluate, Evaluation, Usage
from fastslow.fast.pareto import mean_score
from fastslow.fast.proposer import Example, Proposer
from fastslow.seeding import derive_seed
from fastslow.types import Problem, Prompt

MAX_IDLE_PROPOSALS = 12


class BudgetSpentError(Exception):
    """The next batch would exceed the cycle's metric calls. Ends gepa's run; the records stand."""


@dataclass
class Entry:
    """What is known of one candidate in this cycle."""

    prompt: Prompt
    parent_hash: str | None = None
    accepted: bool = False
    reason: str = ""
    feedback: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)


class CycleAdapter:
    """gepa's adapter for one cycle. Scores are means over a pair's rollouts; a pair is one metric call, asked once."""

    def __init__(
        self, proposer: Proposer, evaluate: Evaluate, anchors: Sequence[Problem], metric_calls: int, seed: int
    ) -> None:
        self.proposer, self.evaluate_pairs, self.seed = proposer, evaluate, seed
        self.anchors, self.metric_calls = list(anchors), metric_calls
        self.calls = self.masked = self.proposals = self.idle = self.failures_in_row = 0
        self.successes = 0
        self.usage = Usage()
        self.last_error: str | None = None
        self.known: dict[tuple[str, str], Evaluation] = {}
        self.entries: dict[str, Entry] = {}
        self.refused: list[Candidate] = []
        self.acceptance = Acceptance(self)
        self.policy = AnchorPolicy(self)
        self.recorder = Recorder(self)

    # -- gepa's side ---------------------------------------------------------------------------------------------------

    def evaluate(
        self, batch: list[Problem], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Evaluation, None]:
        return self.batch_evaluate([(candidate, batch)])[0]

    def batch_evaluate(
        self, items: Sequence[tuple[dict[str, str], list[Problem]]]
    ) -> list[EvaluationBatch[Evaluation, None]]:
        """Every pair of every item in one call of the policy; pairs that are known already are not asked again."""
        prompts = [Prompt.from_dict(candidate) for candidate, _ in items]
        self._ask([(prompt, problem) for prompt, (_, batch) in zip(prompts, items, strict=True) for problem in batch])
        return [self._batch(prompt, batch) for prompt, (_, batch) in zip(prompts, items, strict=True)]

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        examples = [self._example(evaluation) for evaluation in eval_batch.trajectories]
        records = [{"example": example} for example in examples if example is not None]
        return {component: records for component in components_to_update}

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """The child's texts; an empty answer, which gepa skips, where reflection failed or repeated what is known."""
        parent = Prompt.from_dict(candidate)
        child, feedback = parent, []
        for component in components_to_update:
            examples = [record["example"] for record in reflective_dataset[component]]
            feedback += [example.feedback for example in examples if example.feedback and example.reward < 1.0]
            text = self._propose(child, component, examples)
            if text is None:
                return {}
            child = child.replace(component, text)
        lines = tuple(dict.fromkeys(feedback))
        if child.hash in self.entries:
            self.idle += 1
            self.refused.append(
                Candidate(child, parent.hash, False, "refused: a duplicate of a known prompt", {}, lines)
            )
            return {}
        self.entries[child.hash] = Entry(
            child, parent.hash, reason="the budget ended before it was scored", feedback=lines
        )
        return {component: child.as_dict()[component] for component in components_to_update}

    # -- ours ----------------------------------------------------------------------------------------------------------

    def score_seeds(self, seeds: Sequence[Prompt]) -> None:
        """Score members of the population on every anchor, in one batch."""
        self._ask([(prompt, problem) for prompt in seeds for problem in self.anchors])
        for prompt in seeds:
            entry = self.entries.setdefault(
                prompt.hash, Entry(prompt, accepted=True, reason="member of the population")
            )
            entry.scores = self._scores(prompt, self.anchors)

    def anchor_scores(self, prompt: Prompt) -> dict[Any, float]:
        """Scores by gepa's validation ids, which are positions in the anchor list."""
        scores = self.entries[prompt.hash].scores
        return {index: scores[p.id] for index, p in enumerate(self.anchors) if p.id in scores}

    def pool(self) -> list[tuple[Prompt, dict[str, float]]]:
        """Every candidate that has anchor scores, oldest first."""
        return [(entry.prompt, entry.scores) for entry in self.entries.values() if entry.accepted and entry.scores]

    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate of the cycle, for the record."""
        proposed = tuple(
            Candidate(e.prompt, e.parent_hash, e.accepted, e.reason, e.scores, e.feedback)
            for e in self.entries.values()
        )
        return proposed + tuple(self.refused)

    @property
    def reflection_error(self) -> str | None:
        """What the last failed call said, where there were calls and none of them succeeded."""
        return self.last_error if self.successes == 0 and self.usage.failures > 0 else None

    def should_stop(self, minibatch: int, max_failures: int) -> bool:
        """Whether the cycle is over: no budget for another child, nothing new any more, or reflection is down."""
        spent = self.metric_calls - self.calls < minibatch
        return spent or self.failures_in_row >= max_failures or self.idle >= MAX_IDLE_PROPOSALS

    # -- inside --------------------------------------------------------------------------------------------------------

    def _ask(self, pairs: Sequence[tuple[Prompt, Problem]]) -> None:
        unknown = {(prompt.hash, problem.id): (prompt, problem) for prompt, problem in pairs}
        wanted = [pair for key, pair in unknown.items() if key not in self.known]
        if not wanted:
            self.idle += 1
            return
        self._call(wanted)
        masked = [pair for pair in wanted if self.known[pair[0].hash, pair[1].id].reward is None]
        self.masked += len(masked)
        if masked and self.calls + len(masked) <= self.metric_calls:
            self._call(masked)
        if all(self.known[prompt.hash, problem.id].reward is None for prompt, problem in wanted):
            failure = self.known[wanted[0][0].hash, wanted[0][1].id].rollouts[0].failure
            raise InfrastructureError(f"none of {len(wanted)} rollouts of the prompt search could be scored: {failure}")

    def _call(self, pairs: Sequence[tuple[Prompt, Problem]]) -> None:
        if self.calls + len(pairs) > self.metric_calls:
            raise BudgetSpentError
        self.calls += len(pairs)
        for (prompt, problem), evaluation in zip(pairs, self.evaluate_pairs(pairs), strict=True):
            self.known[prompt.hash, problem.id] = evaluation

    def _scores(self, prompt: Prompt, problems: Sequence[Problem]) -> dict[str, float]:
        rewards = {problem.id: self.known[prompt.hash, problem.id].reward for problem in problems}
        valid = {problem_id: reward for problem_id, reward in rewards.items() if reward is not None}
        return {problem_id: rewards[problem_id] if problem_id in valid else mean_score(valid) for problem_id in rewards}  # type: ignore[misc]

    def _batch(self, prompt: Prompt, problems: Sequence[Problem]) -> EvaluationBatch[Evaluation, None]:
        evaluations = [self.known[prompt.hash, problem.id] for problem in problems]
        scores = self._scores(prompt, problems)
        return EvaluationBatch(
            [None] * len(problems), [scores[p.id] for p in problems], evaluations, num_metric_calls=0
        )

    def _propose(self, parent: Prompt, component: str, examples: Sequence[Example]) -> str | None:
        self.proposals += 1
        try:
            proposal = self.proposer.propose(
                parent, component, examples, seed=derive_seed(self.seed, "propose", self.proposals)
            )
        except ReflectionError as error:
            spent = error.usage if isinstance(error.usage, Usage) else Usage(calls=1, failures=1)
            self.usage += spent
            self.last_error = " ".join(str(error).split())
            self.failures_in_row += spent.failures > 0
            self.idle += 1
            if error.text is not None:
                child = parent.replace(component, error.text)
                self.refused.append(Candidate(child, parent.hash, False, f"refused: {self.last_error}"))
            return None
        self.usage += proposal.usage
        self.successes += 1
        self.failures_in_row = 0
        return proposal.text

    @staticmethod
    def _example(evaluation: Evaluation) -> Example | None:
        """The worst rollout of a pair: there is most to learn from it."""
        valid = [rollout for rollout in evaluation.rollouts if rollout.reward is not None]
        if not valid:
            return None
        worst = min(valid, key=lambda rollout: rollout.reward or 0.0)
        question = "\n\n".join(m["content"] for m in evaluation.problem.messages if m["role"] != "system")
        return Example(question, worst.text, worst.reward or 0.0, worst.feedback)


class Acceptance:
    """gepa's acceptance test: strictly better on the minibatch, or a tie while both score zero."""

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter

    def should_accept(self, proposal: Any, state: Any) -> bool:
        before, after = sum(proposal.subsample_scores_before), sum(proposal.subsample_scores_after)
        count = len(proposal.subsample_scores_after)
        entry = self.adapter.entries[Prompt.from_dict(proposal.candidate).hash]
        tie_at_zero = before == after == 0.0 and not any(state.program_full_scores_val_set)
        self.adapter.policy.short = tie_at_zero
        self.adapter.idle = 0
        entry.accepted = after > before or tie_at_zero
        verdict = "better" if after > before else "a tie while nothing scores" if tie_at_zero else "not better"
        entry.reason = f"{verdict} on its minibatch: {before / count:.3f} -> {after / count:.3f} of {count}"
        return entry.accepted


class AnchorPolicy:
    """Which anchors a child is scored on: all, or where its minibatch was all zero as many as a minibatch has."""

    def __init__(self, adapter: CycleAdapter) -> None:
        from gepa.strategies.eval_policy import FullEvaluationPolicy

        self.adapter, self.full = adapter, FullEvaluationPolicy()
        self.short = False

    def get_eval_batch(self, loader: Any, state: Any, target_program_idx: int | None = None) -> list[Any]:
        ids = self.full.get_eval_batch(loader, state, target_program_idx)
        return ids[: max(1, len(ids) // 4)] if self.short else ids

    def get_best_program(self, state: Any) -> int:
        return int(self.full.get_best_program(state))

    def get_valset_score(self, program_idx: int, state: Any) -> float:
        return float(self.full.get_valset_score(program_idx, state))


class Recorder:
    """Copies anchor scores from gepa's events into the record."""

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter

    def on_valset_evaluated(self, event: Any) -> None:
        entry = self.adapter.entries[Prompt.from_dict(event["candidate"]).hash]
        scores = event["scores_by_val_id"]
        entry.scores = {self.adapter.anchors[index].id: score for index, score in scores.items()}
