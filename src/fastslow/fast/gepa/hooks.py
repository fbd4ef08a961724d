"""The parts that gepa lets one choose, for one cycle: selection, acceptance, sampling, scoring, reflection, events."""

import math
import random
from collections.abc import Mapping, Sequence

from gepa.core.callbacks import IterationStartEvent, ValsetEvaluatedEvent
from gepa.core.data_loader import DataLoader
from gepa.core.state import CachedEvaluation, EvaluationCache, ValsetEvaluation
from gepa.proposer.base import CandidateProposal
from gepa.proposer.reflective_mutation.base import CandidateSelector
from gepa.proposer.reflective_mutation.reflection_lm import ReflectionProposal
from gepa.strategies.batch_sampler import BatchSampler
from gepa.strategies.candidate_selector import ParetoCandidateSelector
from gepa.strategies.proposal_sampling import IndependentSampling, ProposalTask

from fastslow.fast.gepa.adapter import BudgetSpentError, CycleAdapter, Job, State, Trial
from fastslow.fast.gepa.kinds import Kinds
from fastslow.fast.optimiser import Evaluation
from fastslow.fast.pareto import ENOUGH, is_luck, paired_gain
from fastslow.fast.settings import Ties
from fastslow.types import Problem, Prompt


def nothing_scores(state: State) -> bool:
    """Whether no candidate in gepa's pool scores more than luck."""
    return all(is_luck(row.values()) for row in state.prog_candidate_val_subscores)


class NewestWhileZero:
    """gepa's Pareto selection of parents; while nothing scores more than luck, the newest candidate."""

    def __init__(self, rng: random.Random) -> None:
        self.pareto = ParetoCandidateSelector(rng)

    def select_candidate_idx(self, state: State) -> int:
        """The next parent's position among gepa's candidates."""
        if nothing_scores(state):
            return len(state.program_candidates) - 1
        return int(self.pareto.select_candidate_idx(state))


class FittingSampling:
    """Parents, each with its own minibatch: as many as the budget has minibatches left.

    Where problems are of several kinds a parent and its minibatch are drawn together, for one kind.
    """

    def __init__(self, adapter: CycleAdapter, kinds: Kinds, proposals: int, minibatch: int) -> None:
        self.adapter, self.kinds, self.proposals, self.minibatch = adapter, kinds, proposals, minibatch

    def sample_tasks(
        self,
        state: State,
        candidate_selector: CandidateSelector,
        batch_sampler: BatchSampler[int, Problem],
        trainset: DataLoader[int, Problem],
    ) -> list[ProposalTask[int, Problem]]:
        """The parents of one iteration and what each is shown."""
        fitting = max(1, min(self.proposals, self.adapter.remaining // self.minibatch))
        if not self.kinds.several:
            return IndependentSampling(fitting).sample_tasks(state, candidate_selector, batch_sampler, trainset)
        drawn = [self.kinds.draw(state) for _ in range(fitting)]
        return [
            ProposalTask(parent, state.program_candidates[parent], positions, trainset.fetch(positions))
            for parent, positions in drawn
        ]


class Reflection:
    """gepa's reflection strategy: every proposal of an iteration in one batch of our proposer."""

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter

    def reflect(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, object]]],
        components_to_update: list[str],
    ) -> tuple[ReflectionProposal, "Reflection"]:
        """One proposal."""
        return self.reflect_many([(candidate, reflective_dataset, components_to_update)])[0]

    def reflect_many(self, jobs: Sequence[Job]) -> list[tuple[ReflectionProposal, "Reflection"]]:
        """All proposals of an iteration, those that failed without any text."""
        texts: list[dict[str, str]] = [{} for _ in jobs]
        with self.adapter.crashes_kept():
            texts = self.adapter.propose_texts(jobs)
        return [(ReflectionProposal(text), self) for text in texts]


class Acceptance:
    """gepa's acceptance test: strictly better on the minibatch, or, while nothing scores, a tie up to luck in which
    the verifier does not complain more than before.
    """

    def __init__(self, adapter: CycleAdapter, kinds: Kinds, ties: Ties) -> None:
        self.adapter, self.kinds, self.ties = adapter, kinds, ties

    def should_accept(self, proposal: CandidateProposal[int], state: State) -> bool:
        """Whether a child joins gepa's pool; what it is then scored on goes on its record."""
        child = Prompt.from_dict(proposal.candidate)
        entry = self.adapter.entries[child.hash]
        self.adapter.idle = 0
        minibatch = proposal.subsample_indices or []
        problems = [self.adapter.anchors[index] for index in minibatch]
        if not self.adapter.scores(child, problems):
            entry.reason = "none of its rollouts could be scored"
            return False
        rewards = proposal.subsample_scores_after or []
        before, after, count = sum(proposal.subsample_scores_before or []), sum(rewards), len(rewards)
        # One lucky hit more or less is no evidence while nothing scores.
        first = minibatch[0]
        tie = before - after <= 1.0 and self.kinds.unserved(first, state)
        parent = Prompt.from_dict(state.program_candidates[proposal.parent_program_ids[0]])
        more_complaints = tie and after <= before and self._complains_more(child, parent, problems)
        accepted = after > before or (tie and not more_complaints)
        if after > before:
            verdict = "better"
        elif tie:
            verdict = "a tie, but with more complaints" if more_complaints else "a tie while nothing scores"
        else:
            verdict = "not better"
        entry.reason = f"{verdict} on its minibatch: {before / count:.3f} -> {after / count:.3f} of {count}"
        doubt = self._doubt(child, parent, problems) if after > before else None
        if doubt is not None:
            entry.reason += doubt
            self.adapter.overfitted += 1
        entry.accepted = accepted and doubt is None
        if entry.accepted:
            self.kinds.accept(child, first, state)
            entry.trial = self._trial(first, after == 0.0)
        return entry.accepted

    def _complains_more(self, child: Prompt, parent: Prompt, problems: Sequence[Problem]) -> bool:
        """Whether the verifier complains more about the child than about its parent, by either measure of `ties`."""
        counts = self.adapter.complaints
        if self.ties == "different":
            return counts(child, problems) > counts(parent, problems)
        # Feedback that quotes the answer is another text on each problem, so texts of several are not compared.
        more = [counts(child, [problem]) - counts(parent, [problem]) for problem in problems]
        return sum(count > 0 for count in more) > sum(count < 0 for count in more)

    def _doubt(self, child: Prompt, parent: Prompt, shown: Sequence[Problem]) -> str | None:
        """Why a child's gain on what reflection was shown is not believed: the anchors that were held out of it,
        of the same kind, see no gain, and the two gains differ by more than one standard error. None where
        nothing speaks against it.
        """
        kind, known = shown[0].kind, self.adapter.known
        held = [
            p for p in self.adapter.anchors[self.adapter.shown :] if p.kind == kind and (parent.hash, p.id) in known
        ]
        if not held:
            return None
        try:
            self.adapter.ask([(child, problem) for problem in held])
        except BudgetSpentError:
            self.adapter.entries[child.hash].reason += "; the budget ended before the anchors that were held out"
            raise
        gains = []
        for problems in (shown, held):
            new, old = (self.adapter.single_scores(prompt, problems) for prompt in (child, parent))
            if not new or not old:
                return None
            gains.append(paired_gain([new[p.id] for p in problems], [old[p.id] for p in problems]))
        (gain, error), (held_gain, held_error) = gains
        if held_gain > 0.0 or gain - held_gain <= math.hypot(error, held_error):
            return None
        return f", but not on the {len(held)} anchors that reflection was not shown: {held_gain:+.3f} a problem"

    def _trial(self, position: int, all_zero: bool) -> Trial:
        first = self._first(self.kinds.like(position))
        return Trial(first, "first" if all_zero else "race" if len(first) >= ENOUGH else "all")

    def _first(self, like: Sequence[int]) -> list[int]:
        """A quarter of the anchors, those that were shown and those that were held out in their proportion."""
        quarter, shown = max(1, len(self.adapter.anchors) // 4), self.adapter.shown
        held = [position for position in like if position >= shown]
        of_held = round(quarter * len(held) / len(self.adapter.anchors))
        return [*like[: min(quarter - of_held, len(like) - len(held))], *held[:of_held]]


class Race(EvaluationCache[Evaluation | None, int]):
    """Which anchors a child is scored on: a quarter first, and all of them unless it is losing there.

    A child whose minibatch was all zero is scored on the quarter alone. Other children race: one that is behind the
    best prompt by more than the noise, and solves nothing there that no other prompt solves, gets no further anchors.
    The first quarter is of the child's kind. The quarters of all children of an iteration are one batch.

    gepa asks its evaluation policy for validation ids without saying for which candidate. It then asks its cache, by
    candidate, which of them are still to be scored: that is the call that is answered here. Nothing is cached.
    """

    def __init__(self, adapter: CycleAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.state: State | None = None

    def on_iteration_start(self, event: IterationStartEvent) -> None:
        """Take the cache's place in gepa's state."""
        self.state = event["state"]
        self.state.evaluation_cache = self

    def get_batch(
        self, candidate: dict[str, str], example_ids: list[int]
    ) -> tuple[dict[int, CachedEvaluation[Evaluation | None]], list[int]]:
        """The validation ids that a candidate is to be scored on, as those that are not cached."""
        entry = self.adapter.entries[Prompt.from_dict(candidate).hash]
        # Other candidates are gepa's seed, which is known on every anchor.
        trial = entry.trial
        if trial is None or trial.path == "all":
            return {}, example_ids
        if trial.path == "race":
            self.adapter.ask([(child, self.adapter.anchors[i]) for child, first in self._racing() for i in first])
        entry.trial = None
        alone = trial.path == "first" or self._loses(entry.prompt, trial.first)
        return {}, trial.first if alone else example_ids

    def put_batch(
        self,
        candidate: dict[str, str],
        example_ids: list[int],
        outputs: list[Evaluation | None],
        scores: list[float],
        objective_scores_list: Sequence[dict[str, float]] | None = None,
    ) -> None:
        """Keep nothing: the adapter knows every pair that was scored."""

    def _racing(self) -> list[tuple[Prompt, list[int]]]:
        """The children that are still to race and their first anchors, oldest first."""
        waiting = [(entry.prompt, entry.trial) for entry in self.adapter.entries.values()]
        return [(prompt, trial.first) for prompt, trial in waiting if trial is not None and trial.path == "race"]

    def _loses(self, child: Prompt, ids: Sequence[int]) -> bool:
        assert self.state is not None
        problems = [self.adapter.anchors[index] for index in ids]
        scores = self.adapter.single_scores(child, problems)
        rows = self.state.prog_candidate_val_subscores
        pool = [{index: row[index] for index in ids} for row in rows if set(ids) <= set(row)]
        if not scores or not pool:
            return False
        best = max(pool, key=lambda row: sum(row.values()))
        pairs = [(scores[problem.id], index) for problem, index in zip(problems, ids, strict=True)]
        solves_alone = any(score > max(row[index] for row in pool) for score, index in pairs)
        gain, error = paired_gain([score for score, _ in pairs], [best[index] for _, index in pairs])
        return not solves_alone and gain < -error


class Recorder:
    """Puts on the record what each candidate scored on the anchors that gepa has asked for."""

    def __init__(self, adapter: CycleAdapter) -> None:
        self.adapter = adapter

    def on_valset_evaluated(self, event: ValsetEvaluatedEvent) -> None:
        """Book one candidate's scores."""
        with self.adapter.crashes_kept():
            entry = self.adapter.entries[Prompt.from_dict(event["candidate"]).hash]
            self.adapter.book_scores(entry, [self.adapter.anchors[index] for index in event["scores_by_val_id"]])


class SeedPopulation:
    """Puts the rest of the population into gepa's pool, which takes only one seed, before its first iteration."""

    def __init__(self, adapter: CycleAdapter, seeds: Sequence[Prompt]) -> None:
        self.adapter, self.seeds = adapter, list(seeds[1:])

    def on_iteration_start(self, event: IterationStartEvent) -> None:
        """Add them, once."""
        with self.adapter.crashes_kept():
            state = event["state"]
            for prompt in self.seeds:
                scores = self.adapter.scores_by_position(prompt)
                evaluation = ValsetEvaluation(dict.fromkeys(scores, None), scores, None)
                state.update_state_with_new_program([], prompt.as_dict(), evaluation, None, state.total_num_evals)
            self.seeds = []


class QuietLogger:
    """gepa writes its log to the terminal unless told otherwise; ours is prompts.jsonl."""

    def log(self, message: str) -> None:
        """Say nothing."""
