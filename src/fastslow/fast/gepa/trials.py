"""A search that samples nothing: RL's own rollouts score the population,
and children get theirs in the steps that follow.

Each step of RL rolls out the same problems under every prompt of the population, so that its groups are matched
comparisons. A cycle reads them from the store, selects the members that stay as GEPA does, has gepa choose parents on
their Pareto frontier and the proposer write children, and puts the children on trial: they take `trials` places of the
population unscored. The next T steps roll them out like any other member, on problems that reflection has not seen, and
the next cycle judges them.

Source: arXiv 2602.14697 scores system prompts by RL's rollouts, with ratings and without gepa. Deviations: the
selection is GEPA's per-instance Pareto frontier over the last steps' problems; a cycle is T steps, not one. From gepa's
loop its choice of parents, minibatches and reflection are taken; its acceptance test is not, since nothing is known of
a child when it is made. While no prompt scores more than luck, the members with the fewest different complaints stay,
the newer one of two, and the best of them is the parent. The first place is for the one with the highest mean all the
same: it is measured and exported.
"""

import random
from collections.abc import Mapping, Sequence

from fastslow.fast.gepa.adapter import BudgetSpentError, CycleAdapter, Entry
from fastslow.fast.gepa.kinds import Kinds
from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Candidate, Evaluate, Evolution
from fastslow.fast.pareto import is_luck, mean_score, select_population
from fastslow.seeding import derive_seed
from fastslow.types import Problem, Prompt

ON_TRIAL = "on trial: the rollouts of the next steps score it"


class DeferringAdapter(CycleAdapter):
    """Members are scored from the store; once `deferred`, an unknown pair ends gepa's run instead of being sampled."""

    deferred = False

    @property
    def remaining(self) -> int:
        """Children cost no metric calls, so that once members are scored the budget binds nothing."""
        return self.metric_calls if self.deferred else super().remaining

    def children(self) -> list[Entry]:
        """What was proposed in this cycle, oldest first."""
        return [entry for entry in self.entries.values() if entry.parent_hash is not None]

    def _call(self, pairs: Sequence[tuple[Prompt, Problem]]) -> None:
        if self.deferred:
            raise BudgetSpentError
        super()._call(pairs)


class TrialOptimiser(GepaOptimiser):
    """Evolves a population by rollouts that RL makes anyway. `proposals_per_iteration`: places for children."""

    def evolve(
        self,
        population: Sequence[Prompt],
        problems: Sequence[Problem],
        evaluate: Evaluate,
        *,
        size: int,
        seed: int,
        previous_scores: Mapping[str, float],
    ) -> Evolution:
        """One cycle; see `PromptOptimiser`. `problems` are such as the store knows under every member."""
        seeds = list(dict.fromkeys(population))
        if len(seeds) > self.metric_calls:
            return self._too_small(seeds, size)
        anchors = self._anchors(problems, len(seeds), seed)
        adapter = DeferringAdapter(self.proposer, evaluate, anchors, self.metric_calls, seed, self.room)
        adapter.score_seeds(seeds)
        adapter.deferred = True
        kinds = Kinds(adapter, self.reflection_minibatch, random.Random(derive_seed(seed, "kinds")))
        restarts = self._is_stale(adapter, seeds, previous_scores) and self.seed_prompt not in seeds
        # gepa's newest candidate is the parent while nothing scores: the best comes last.
        parents = dict.fromkeys([*self._ranked(adapter, kinds, size), *(prompt for prompt, _ in adapter.pool())])
        self._run_gepa(adapter, list(parents)[::-1], kinds, seed)
        trials = [self.seed_prompt] if restarts else []
        trials = [*trials, *(entry.prompt for entry in adapter.children())][: self.proposals_per_iteration]
        staying = _led(self._ranked(adapter, kinds, size - len(trials)), adapter)
        members = [*staying, *trials]
        pool = adapter.pool()
        failure = adapter.reflection_error
        return Evolution(
            population=tuple(members),
            candidates=_record(adapter, members, trials),
            metric_calls=adapter.calls,
            usage=adapter.usage,
            error=None if failure is None else f"reflection failed, no child is on trial: {failure}",
            info={
                "anchors": len(anchors),
                "best_mean": max(mean_score(scores) for _, scores in pool),
                "masked": adapter.masked,
                "too_long": adapter.too_long,
                "restarted": restarts,
            },
            paid=bool(trials),
            by_kind=kinds.best(staying, pool),
        )

    def _anchors(self, problems: Sequence[Problem], seeds: int, seed: int) -> list[Problem]:
        """As many as the ceiling of metric calls lets all members be scored on: children take none of it."""
        fitting = max(1, self.metric_calls // seeds)
        return list(problems) if fitting >= len(problems) else random.Random(seed).sample(list(problems), fitting)

    def _ranked(self, adapter: DeferringAdapter, kinds: Kinds, size: int) -> list[Prompt]:
        """`size` members, those first that stay first."""
        pool = adapter.pool()
        if all(is_luck(scores.values()) for _, scores in pool):
            order = sorted(
                range(len(pool)), key=lambda index: (adapter.complaints(pool[index][0], adapter.anchors), -index)
            )
            return [pool[order[place % len(order)]][0] for place in range(size)]
        chosen = select_population(
            [kinds.comparable(scores) for scores in adapter.single_pool()],
            size,
            kinds.reserved(pool),
            means=[mean_score(kinds.comparable(scores)) for _, scores in pool],
        )
        return [pool[index][0] for index in chosen]


def _led(members: Sequence[Prompt], adapter: DeferringAdapter) -> list[Prompt]:
    """The members, the one with the highest mean first; as they are where none scored anything."""
    means = {prompt: mean_score(scores) for prompt, scores in adapter.pool()}
    first = max(members, key=lambda prompt: means[prompt])
    if means[first] <= means[members[0]]:
        return list(members)
    place = list(members).index(first)
    return [first, *members[:place], *members[place + 1 :]]


def _record(adapter: DeferringAdapter, members: Sequence[Prompt], trials: Sequence[Prompt]) -> tuple[Candidate, ...]:
    """Every candidate of the cycle: members, whether they stay, and children, whether they are on trial."""
    found = []
    for candidate in adapter.candidates():
        prompt, is_child = candidate.prompt, candidate.parent_hash is not None
        accepted, reason = candidate.accepted, candidate.reason
        if prompt in trials:
            accepted, reason = True, ON_TRIAL
        elif is_child and not reason.startswith("refused"):
            accepted, reason = False, "no place was left to try it out"
        elif not is_child:
            reason = f"{reason}, which stays" if prompt in members else f"{reason}, which gives its place up"
        found.append(Candidate(prompt, candidate.parent_hash, accepted, reason, candidate.scores, candidate.feedback))
    known = {candidate.prompt for candidate in found}
    added = [Candidate(prompt, None, True, ON_TRIAL) for prompt in trials if prompt not in known]
    return (*found, *added)
