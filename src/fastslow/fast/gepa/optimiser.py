"""Prompt evolution with the `gepa` package (arXiv 2507.19457), one fresh run of it a cycle.

Deviations from gepa and from the paper, each because a population is evolved again and again under a moving policy:
- The whole previous population is re-scored under the current policy, in one batch, on as many anchor problems as fit
  half of the budget (K seeds times 192 anchors would exceed the paper's 960 calls), and put into gepa's pool.
- The budget is a hard ceiling: a batch that does not fit ends the cycle. Within a cycle the policy stands still, so a
  known (prompt, problem) score is not asked for again and costs no call.
- While no prompt scores more than luck, ties up to one hit are accepted unless the verifier complains about more things
  than before, the newest candidate then being the next parent: with exact rewards a right edit earns nothing until
  nearly all rules stand. Such a child is scored on a few anchors only. By option (`ties`) complaints are counted
  problem by problem: they may not grow on more problems than they shrink on.
- By option (`held_out`) a slice of the anchors is never shown to reflection, and a child whose gain is on the shown
  ones alone is refused: it may have copied phrases of single problems.
- A child that is losing on a quarter of the anchors, and wins nothing alone there, is not scored on the rest.
- A population that scores less than a quarter of what it scored in the cycle before restarts from the seed prompt.
- Where problems are of several kinds, the search looks at one kind at a time (`kinds.py`).
- Where rollouts are reused, old prompts have several a problem and new ones have one. What compares prompts problem by
  problem (parents, acceptance, the race, the frontier) takes one rollout of each pair, drawn by the seed; means take
  all.
- The population's first prompt was scored on every anchor, unless no such prompt scored anything.
- A masked rollout is never a 0: it is asked for once more, then replaced by the candidate's mean over the others. A
  candidate without any scored rollout is not accepted; three such batches in a row end the run as a failed scorer.
- A child that does not fit into the policy's context beside the longest problem and a whole answer is refused unscored.
- By option, two prompts are merged into one (`merging.py`).
- Reflection that fails for good `max_failures` times in a row ends the cycle.
"""

import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from gepa.api import optimize

from fastslow.fast.gepa.adapter import BudgetSpentError, CycleAdapter
from fastslow.fast.gepa.hooks import (
    Acceptance,
    FittingSampling,
    NewestWhileZero,
    QuietLogger,
    Race,
    Recorder,
    Reflection,
    SeedPopulation,
)
from fastslow.fast.gepa.kinds import Kinds
from fastslow.fast.gepa.merging import Merging
from fastslow.fast.optimiser import Evaluate, Evolution, Usage
from fastslow.fast.pareto import Scores, is_luck, mean_score, paired_gain, select_population
from fastslow.fast.proposers.base import Proposer
from fastslow.fast.settings import Ties
from fastslow.seeding import derive_seed
from fastslow.slow.context_room import ContextRoom
from fastslow.types import Problem, Prompt

STALE_SHARE = 0.25


class GepaOptimiser:
    """Evolves a population with gepa. `metric_calls` is the hard ceiling of one cycle,
    `merges` the most accepted merges of one; 0: none is tried.
    """

    def __init__(
        self,
        proposer: Proposer,
        seed_prompt: Prompt,
        *,
        metric_calls: int,
        reflection_minibatch: int,
        proposals_per_iteration: int = 1,
        max_failures: int = 3,
        held_out: float = 0.0,
        ties: Ties = "different",
        room: ContextRoom | None = None,
        merges: int = 0,
    ) -> None:
        self.proposer, self.seed_prompt = proposer, seed_prompt
        self.metric_calls = metric_calls
        self.reflection_minibatch = reflection_minibatch
        self.proposals_per_iteration = proposals_per_iteration
        self.max_failures = max_failures
        self.held_out = held_out
        self.ties: Ties = ties
        self.room, self.merges = room, merges

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
        """One cycle; see `PromptOptimiser`. Raises InfrastructureError where the scorer is down."""
        seeds = list(dict.fromkeys(population))
        if len(seeds) > self.metric_calls:
            return self._too_small(seeds, size)
        anchors = self._anchors(problems, len(seeds), seed)
        adapter = CycleAdapter(self.proposer, evaluate, anchors, self.metric_calls, seed, self.room)
        adapter.hold_out(self.held_out)
        adapter.score_seeds(seeds)
        restarted = self._is_stale(adapter, seeds, previous_scores) and self._restart(adapter)
        kinds = Kinds(adapter, self.reflection_minibatch, random.Random(derive_seed(seed, "kinds")))
        if restarted or (kinds.neglected(adapter.pool()) and self._restart(adapter)):
            seeds = [*(prompt for prompt in seeds if prompt != self.seed_prompt), self.seed_prompt]
        scored = [prompt for prompt in seeds if adapter.entries[prompt.hash].scores]
        merging = self._run_gepa(adapter, scored, kinds, seed)
        pool = adapter.pool()
        chosen = select_population(
            [kinds.comparable(scores) for scores in adapter.single_pool()],
            size,
            kinds.reserved(pool),
            means=[mean_score(kinds.comparable(scores)) for _, scores in pool],
            complete=[len(scores) == len(anchors) for _, scores in pool],
        )
        evolved = tuple(pool[index][0] for index in chosen)
        error = adapter.reflection_error
        if error is not None:
            evolved = _repeat(population, size)
            error = f"reflection failed, the previous population is kept: {error}"
        return Evolution(
            population=evolved,
            candidates=adapter.candidates(),
            metric_calls=adapter.calls,
            usage=adapter.usage,
            error=error,
            paid=error is None and any(has_paid(kinds.of_kind(kind, pool), seeds) for kind in kinds.positions),
            info={
                "anchors": len(anchors),
                "best_mean": max(mean_score(scores) for _, scores in pool),
                "masked": adapter.masked,
                "too_long": adapter.too_long,
                "restarted": restarted,
                **({"merges": (merging.tried, merging.accepted)} if merging is not None else {}),
                **({"overfitted": adapter.overfitted} if self.held_out else {}),
            },
            by_kind=kinds.best(evolved, pool),
            refusals=adapter.book.refusals,
            proposed=adapter.book.proposed,
            reflections=adapter.book.kept,
        )

    def _too_small(self, seeds: Sequence[Prompt], size: int) -> Evolution:
        error = (
            f"fast.metric_calls: {self.metric_calls} calls cannot score the {len(seeds)} prompts of the population "
            "once: the previous population is kept"
        )
        return Evolution(_repeat(seeds, size), (), 0, Usage(), error)

    def _anchors(self, problems: Sequence[Problem], seeds: int, seed: int) -> list[Problem]:
        """As many anchor problems as let the seeds' scores take at most half of the budget, drawn by the seed."""
        fitting = max(1, self.metric_calls // (2 * seeds))
        if fitting >= len(problems):
            return list(problems)
        return random.Random(seed).sample(list(problems), fitting)

    def _is_stale(self, adapter: CycleAdapter, seeds: Sequence[Prompt], previous: Mapping[str, float]) -> bool:
        before = max(previous.get(prompt.hash, 0.0) for prompt in seeds)
        return max((mean_score(scores) for _, scores in adapter.pool()), default=0.0) < STALE_SHARE * before

    def _restart(self, adapter: CycleAdapter) -> bool:
        """Score the seed prompt as well; whether the budget had room for it."""
        try:
            adapter.score_seeds([self.seed_prompt])
        except BudgetSpentError:
            return False
        return True

    def _run_gepa(self, adapter: CycleAdapter, seeds: Sequence[Prompt], kinds: Kinds, seed: int) -> Merging | None:
        minibatch = min(self.reflection_minibatch, adapter.shown)
        # Without these two, mypy asks for every method of gepa's optional protocols.
        gepa_adapter: Any = adapter
        callbacks: list[Any] = [SeedPopulation(adapter, seeds), Race(adapter), Recorder(adapter)]
        merging = Merging(adapter, self.merges, random.Random(derive_seed(seed, "merge"))) if self.merges else None
        callbacks += [merging] if merging is not None else []
        # At the ceiling gepa is left by an exception: what has been scored so far is the cycle's result.
        with contextlib.suppress(BudgetSpentError):
            optimize(
                seed_candidate=seeds[0].as_dict(),
                trainset=adapter.anchors[: adapter.shown],
                valset=adapter.anchors,
                adapter=gepa_adapter,
                candidate_selection_strategy=NewestWhileZero(random.Random(seed)),
                acceptance_criterion=Acceptance(adapter, kinds, self.ties),
                reflection_minibatch_size=minibatch,
                sampling_strategy=FittingSampling(adapter, kinds, self.proposals_per_iteration, minibatch),
                reflection_strategy=Reflection(adapter),
                callbacks=callbacks,
                stop_callbacks=lambda state: adapter.should_stop(minibatch, self.max_failures),
                logger=QuietLogger(),
                track_best_outputs=False,
                seed=seed,
            )
        if adapter.crash is not None:
            raise adapter.crash
        return merging


def has_paid(pool: Sequence[tuple[Prompt, Scores]], seeds: Sequence[Prompt]) -> bool:
    """Whether a new prompt beats the best old one by more than one standard error of the paired difference.

    While nothing scores more than luck a search is under way, and pays as long as it finds new prompts at all.
    """
    old = [scores for prompt, scores in pool if prompt in seeds]
    new = [scores for prompt, scores in pool if prompt not in seeds]
    if not new or not old:
        return bool(new)
    best = max(old, key=mean_score)
    if all(is_luck(scores.values()) for scores in [*old, *new]):
        return True
    shared = [[(scores[i], best[i]) for i in scores if i in best] for scores in new]
    gains = [paired_gain(*zip(*pairs, strict=True)) for pairs in shared if pairs]
    return any(gain > error for gain, error in gains)


def _repeat(population: Sequence[Prompt], size: int) -> tuple[Prompt, ...]:
    """The population's distinct prompts, repeated to `size`."""
    kept = list(dict.fromkeys(population))
    return tuple(kept[index % len(kept)] for index in range(size))
