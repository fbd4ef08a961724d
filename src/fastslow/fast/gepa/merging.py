"""Merge: a child that takes some texts from one prompt and some from another, as gepa has it (`use_merge`).

gepa's own code chooses the parents, two of the Pareto frontier with a common ancestor that both of them beat, and
crosses them: each component comes from the parent that changed it. So a task needs several components. A merged prompt
is accepted where its sum on five anchors is at least that of the better parent (gepa, arXiv 2507.19457, appendix F).

Deviations: a merge is tried before the iteration's reflection and not in its place; ancestors that score nothing may be
chosen (gepa's draw by weight fails where all of them score nothing, as they do with exact rewards).
"""

import random
from typing import Any

from gepa.core.callbacks import IterationStartEvent
from gepa.core.data_loader import ensure_loader
from gepa.core.state import ValsetEvaluation
from gepa.gepa_utils import find_dominator_programs
from gepa.proposer.merge import MergeProposer, sample_and_attempt_merge_programs_by_common_predictors

from fastslow.fast.gepa.adapter import BudgetSpentError, CycleAdapter, Entry, State
from fastslow.fast.gepa.hooks import QuietLogger
from fastslow.types import Prompt

LEAST_WEIGHT = 1e-6
SHARED_ANCHORS = 5
"""gepa's `merge_val_overlap_floor`, and how many anchors a merged prompt is compared on."""


class Merging:
    """Tries one merge before an iteration that follows an accepted child, up to `most` accepted merges a cycle.

    `tried` counts merged prompts that were scored, `accepted` those of them that joined the pool.
    """

    def __init__(self, adapter: CycleAdapter, most: int, rng: random.Random) -> None:
        self.adapter, self.most, self.rng = adapter, most, rng
        self.tried = self.accepted = 0
        self._seen = 0
        # Of gepa's proposer the choice of anchors is used, and its list of what was merged before.
        self._gepa: MergeProposer[int] = MergeProposer(
            logger=QuietLogger(),
            valset=ensure_loader(adapter.anchors),
            evaluator=_unused,
            use_merge=True,
            max_merge_invocations=most,
            val_overlap_floor=SHARED_ANCHORS,
            rng=rng,
        )

    def on_iteration_start(self, event: IterationStartEvent) -> None:
        """Merge where something was accepted since the last time."""
        with self.adapter.crashes_kept():
            state: State = event["state"]
            found, before = len(state.program_candidates), self._seen
            self._seen = found
            # The first iteration only has the population, which was not merged just now.
            if 0 < before < found and self.accepted < self.most:
                try:
                    self._merge(state)
                except BudgetSpentError:
                    return  # gepa's next batch ends the cycle
                self._seen = len(state.program_candidates)

    def _merge(self, state: State) -> None:
        chosen = self._crossed(state)
        if chosen is None:
            return
        child, one, other = chosen
        parents = [Prompt.from_dict(state.program_candidates[index]) for index in (one, other)]
        room = self.adapter.room
        if child.hash in self.adapter.entries or (room is not None and room.refusal(child) is not None):
            return
        rows = [state.prog_candidate_val_subscores[index] for index in (one, other)]
        places = self._gepa.select_eval_subsample_for_merged_program(rows[0], rows[1], SHARED_ANCHORS)
        entry = Entry(child, parents[0].hash, reason="the budget ended before it was scored")
        self.adapter.entries[child.hash] = entry
        problems = [self.adapter.anchors[place] for place in dict.fromkeys(places)]
        self.adapter.ask([(child, problem) for problem in problems])
        self.tried += 1
        scores = self.adapter.single_scores(child, problems)
        before = max(sum(row[place] for place in places) for row in rows)
        after = sum(scores[self.adapter.anchors[place].id] for place in places) if scores else 0.0
        entry.accepted = bool(scores) and after >= before
        verdict = "as good as its better parent" if entry.accepted else "worse than its better parent"
        entry.reason = (
            f"merged from {parents[0].hash} and {parents[1].hash}: {verdict} on {len(places)} anchors: "
            f"{before:.2f} -> {after:.2f}"
        )
        if entry.accepted:
            self._add(state, child, entry, [one, other])

    def _crossed(self, state: State) -> tuple[Prompt, int, int] | None:
        """A merged prompt and the positions of its parents among gepa's candidates; None where gepa finds none."""
        tracked = state.per_program_tracked_scores
        rows = state.prog_candidate_val_subscores
        dominators: Any = find_dominator_programs
        merged: Any = sample_and_attempt_merge_programs_by_common_predictors(
            agg_scores=[max(LEAST_WEIGHT, score) for score in tracked],
            rng=self.rng,
            # In order: a set has none that a resumed run would find again.
            merge_candidates=sorted(dominators(state.get_pareto_front_mapping(), list(tracked))),
            merges_performed=self._gepa.merges_performed,
            program_candidates=state.program_candidates,
            parent_program_for_candidate=state.parent_program_for_candidate,
            has_val_support_overlap=lambda one, other: len(set(rows[one]) & set(rows[other])) >= SHARED_ANCHORS,
        )
        if merged is None:
            return None
        texts, one, other, ancestor = merged
        self._gepa.merges_performed[0].append((one, other, ancestor))
        return Prompt.from_dict(texts), one, other

    def _add(self, state: State, child: Prompt, entry: Entry, parents: list[int]) -> None:
        """Score it on every anchor and put it into gepa's pool."""
        self.adapter.ask([(child, problem) for problem in self.adapter.anchors])
        self.adapter.book_scores(entry, self.adapter.anchors)
        scores = self.adapter.scores_by_position(child)
        evaluation = ValsetEvaluation(dict.fromkeys(scores, None), scores, None)
        state.update_state_with_new_program(parents, child.as_dict(), evaluation, None, state.total_num_evals)
        self.accepted += 1
        self.adapter.idle = 0


def _unused(*_: object) -> Any:
    raise AssertionError("merged prompts are scored through the adapter")
