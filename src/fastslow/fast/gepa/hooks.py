"""The parts that gepa lets one choose, for one cycle: selection, acceptance, sampling, scoring, reflection, events."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gepa.core.state import ValsetEvaluation
from gepa.proposer.reflective_mutation.reflection_lm import ReflectionProposal
from gepa.strategies.candidate_selector import ParetoCandidateSelector
from gepa.strategies.eval_policy import FullEvaluationPolicy
from gepa.strategies.proposal_sampling import IndependentSampling

from fastslow.fast.gepa.adapter import CycleAdapter, Job
from fastslow.fast.gepa.kinds import Kinds
from fastslow.fast.pareto import ENOUGH, is_luck, paired_gain
from fastslow.types import Problem, Prompt


def nothing_scores(state: Any) -> bool:
    """Whether no candidate in gepa's pool scores more than luck."""
    return all(is_luck(row.values()) for row in state.prog_candidate_val_subscores)


class NewestWhileZero:
    """gepa's Pareto selection of parents; while nothing scores more than luck, the newest candidate."""

    def __init__(self, rng: random.Random) -> None:
        self.pareto = ParetoCandidateSelector(rng)

    def select_candidate_idx(self, state: Any) -> int:
        if nothing_scores(state):
            return len(state.program_candidates) - 1
        return int(self.pareto.select_candidate_idx(state))


class FittingSampling:
    """Several parents an iteration, each with its own minibatch: as many as the budget has minibatches left."""

    def __init__(self, adapter: CycleAdapter, proposals: int, minibatch: int) -> None:
        self.adapter, self.proposals, self.minibatch = adapter, proposals, minibatch

    def sample_tasks(self, state: Any, candidate_selector: Any, batch_sampler: Any, trainset: Any) -> list[Any]:
        fitting = max(1, min(self.proposals, self.adapter.remaining // self.minibatch))
        return IndependentSampling(fitting).sample_tasks(state, candidate_selector, batch_sampler, trainset)


class Reflection:
    """gepa's reflection strategy: every proposal of an iteration in one batch of our proposer."""

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter

    def reflect(self, candidate: Any, dataset: Any, components: Any) -> tuple[ReflectionProposal, "Reflection"]:
        return self.reflect_many([(candidate, dataset, components)])[0]

    def reflect_many(self, jobs: Sequence[Job]) -> list[tuple[ReflectionProposal, "Reflection"]]:
        texts: list[dict[str, str]] = [{} for _ in jobs]
        with self.adapter.crashes_kept():
            texts = self.adapter.propose_texts(jobs)
        return [(ReflectionProposal(text), self) for text in texts]


class Acceptance:
    """gepa's acceptance test: strictly better on the minibatch, or, while nothing scores, a tie up to luck in which
    the verifier does not complain about more things than before.
    """

    def __init__(self, adapter: CycleAdapter, anchors: "AnchorPolicy", kinds: Kinds) -> None:
        self.adapter, self.anchors, self.kinds = adapter, anchors, kinds

    def should_accept(self, proposal: Any, state: Any) -> bool:
        child = Prompt.from_dict(proposal.candidate)
        entry = self.adapter.entries[child.hash]
        self.adapter.idle = 0
        problems = [self.adapter.anchors[index] for index in proposal.subsample_indices]
        if not self.adapter.scores(child, problems):
            entry.reason = "none of its rollouts could be scored"
            return False
        before, after = sum(proposal.subsample_scores_before), sum(proposal.subsample_scores_after)
        count = len(proposal.subsample_scores_after)
        # One lucky hit more or less is no evidence while nothing scores.
        first = proposal.subsample_indices[0]
        tie = before - after <= 1.0 and self.kinds.unserved(first, state)
        parent = Prompt.from_dict(state.program_candidates[proposal.parent_program_ids[0]])
        worse = (
            tie
            and after <= before
            and self.adapter.complaints(child, problems) > self.adapter.complaints(parent, problems)
        )
        entry.accepted = after > before or (tie and not worse)
        verdict = (
            "better" if after > before
            else "a tie, but with more complaints" if worse
            else "a tie while nothing scores" if tie
            else "not better"
        )  # fmt: skip
        entry.reason = f"{verdict} on its minibatch: {before / count:.3f} -> {after / count:.3f} of {count}"
        if entry.accepted:
            self.kinds.accept(child, first, state)
            self.anchors.accepted.append(Waiting(child, self.kinds.anchors_like(first), after == 0.0))
        return entry.accepted


@dataclass(frozen=True)
class Waiting:
    """An accepted child that waits for its anchors: those of its kind, and whether its minibatch was all zero."""

    child: Prompt
    like: list[int]
    all_zero: bool


class AnchorPolicy:
    """Which anchors a child is scored on: a quarter first, and all of them unless it is losing there.

    A child whose minibatch was all zero is scored on the quarter alone. Other children race: one that is behind the best
    prompt by more than the noise, and solves nothing there that no other prompt solves, gets no further anchors. The first
    quarter is of the child's kind. The quarters of all children of an iteration are one batch. `accepted` holds the
    children that wait for their anchors, in gepa's order.
    """

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter
        self.full: FullEvaluationPolicy[Any, Any] = FullEvaluationPolicy()
        self.accepted: deque[Waiting] = deque()

    def get_eval_batch(self, loader: Any, state: Any, target_program_idx: int | None = None) -> list[Any]:
        ids = self.full.get_eval_batch(loader, state, target_program_idx)
        share = max(1, len(ids) // 4)
        quarter = self.accepted[0].like[:share]
        if self.accepted[0].all_zero or len(quarter) < ENOUGH:
            return quarter if self.accepted.popleft().all_zero else ids
        waiting = [entry for entry in self.accepted if not entry.all_zero]
        self.adapter.ask([(entry.child, self.adapter.anchors[i]) for entry in waiting for i in entry.like[:share]])
        child = self.accepted.popleft().child
        some = [self.adapter.anchors[index] for index in quarter]
        return quarter if self._loses(child, some, quarter, state) else ids

    def _loses(self, child: Prompt, problems: Sequence[Problem], ids: Sequence[int], state: Any) -> bool:
        scores = self.adapter.single_scores(child, problems)
        pool = [
            {index: row[index] for index in ids} for row in state.prog_candidate_val_subscores if set(ids) <= set(row)
        ]
        if not scores or not pool:
            return False
        best = max(pool, key=lambda row: sum(row.values()))
        pairs = [(scores[problem.id], index) for problem, index in zip(problems, ids, strict=True)]
        solves_alone = any(score > max(row[index] for row in pool) for score, index in pairs)
        gain, error = paired_gain([score for score, _ in pairs], [best[index] for _, index in pairs])
        return not solves_alone and gain < -error

    def get_best_program(self, state: Any) -> int:
        return int(self.full.get_best_program(state))

    def get_valset_score(self, program_idx: int, state: Any) -> float:
        return float(self.full.get_valset_score(program_idx, state))


class Recorder:
    """Puts on the record what each candidate scored on the anchors that gepa has asked for."""

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter

    def on_valset_evaluated(self, event: Any) -> None:
        with self.adapter.crashes_kept():
            entry = self.adapter.entries[Prompt.from_dict(event["candidate"]).hash]
            self.adapter.book_anchors(entry, [self.adapter.anchors[index] for index in event["scores_by_val_id"]])


class SeedPopulation:
    """Puts the rest of the population into gepa's pool, which takes only one seed, before its first iteration."""

    def __init__(self, adapter: CycleAdapter, seeds: Sequence[Prompt]) -> None:
        self.adapter, self.seeds = adapter, list(seeds[1:])

    def on_iteration_start(self, event: Any) -> None:
        with self.adapter.crashes_kept():
            state = event["state"]
            for prompt in self.seeds:
                scores = self.adapter.anchor_scores(prompt)
                evaluation = ValsetEvaluation(dict.fromkeys(scores, None), scores, None)
                state.update_state_with_new_program([], prompt.as_dict(), evaluation, None, state.total_num_evals)
            self.seeds = []


class QuietLogger:
    """gepa writes its log to the terminal unless told otherwise; ours is prompts.jsonl."""

    def log(self, message: str) -> None:
        return None
