"""The adapter between gepa and the policy for one cycle: batches, the budget, reflection, a record of candidates."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from gepa.core.adapter import EvaluationBatch
from gepa.core.state import GEPAState

from fastslow.errors import InfrastructureError, ReflectionError
from fastslow.fast.gepa.book import ReflectionBook, attempts
from fastslow.fast.optimiser import MEMBER, Candidate, Evaluate, Evaluation, Usage
from fastslow.fast.proposers.base import Example, Proposal, ProposalRequest, Proposer, propose_all
from fastslow.fast.transcript import feedback_of, reference_of, turns_of
from fastslow.seeding import derive_seed
from fastslow.slow.context_room import ContextRoom
from fastslow.types import Problem, Prompt, Rollout

MAX_IDLE_PROPOSALS = 12
MAX_MASKED_BATCHES = 3

Job = tuple[dict[str, str], Mapping[str, Sequence[Mapping[str, Any]]], list[str]]
State = GEPAState[Evaluation | None, int]
"""gepa's state of a cycle. Its validation ids are positions in the list of anchors."""


class BudgetSpentError(Exception):
    """The next batch would exceed the cycle's metric calls. Ends gepa's run; the records stand."""


@dataclass(frozen=True)
class Trial:
    """What an accepted child is scored on: the `first` anchors, as positions; all; or by a race on the first."""

    first: list[int]
    path: Literal["first", "all", "race"]


@dataclass
class Entry:
    """What is known of one candidate in this cycle."""

    prompt: Prompt
    parent_hash: str | None = None
    accepted: bool = False
    reason: str = ""
    feedback: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    single_scores: dict[str, float] = field(default_factory=dict)
    trial: Trial | None = None
    """Of an accepted child, until gepa asks what to score it on."""


class CycleAdapter:
    """gepa's adapter for one cycle. A pair of prompt and problem is one metric call, asked once.

    Where rollouts are reused, a pair may have several. `scores` are means over all of them. Whatever compares two
    prompts problem by problem, gepa above all, gets `single_scores`, of one rollout a pair, drawn by the seed: a single
    rollout reaches 1.0 by luck where a mean of several hardly ever does, and old prompts have the means.
    """

    propose_new_texts = None
    """Proposals go through `propose_texts`, by way of gepa's reflection strategy: that one takes whole batches."""

    def __init__(
        self,
        proposer: Proposer,
        evaluate: Evaluate,
        anchors: Sequence[Problem],
        metric_calls: int,
        seed: int,
        room: ContextRoom | None = None,
    ) -> None:
        self.room, self.too_long = room, 0
        self.proposer, self.evaluate_pairs, self.seed = proposer, evaluate, seed
        self.anchors = list(anchors)
        """The problems that prompts are compared on."""
        self.shown, self.overfitted = len(self.anchors), 0
        self.metric_calls = metric_calls
        self.calls = self.masked = self.masked_batches = self.proposals = self.idle = 0
        self.successes = self.failures_in_row = 0
        self.usage = Usage()
        self.last_failure: str | None = None
        self.crash: Exception | None = None
        self.known: dict[tuple[str, str], Evaluation] = {}
        self.drawn: dict[tuple[str, str], Rollout] = {}
        """Of each pair with a scored rollout, the one that stands for it in comparisons."""
        self.entries: dict[str, Entry] = {}
        self.refused: list[Candidate] = []
        self.book = ReflectionBook()

    # -- gepa's side ---------------------------------------------------------------------------------------------------

    def evaluate(
        self, batch: list[Problem], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Evaluation, None]:
        """As `batch_evaluate`, for one candidate."""
        return self.batch_evaluate([(candidate, batch)])[0]

    def batch_evaluate(
        self, items: Sequence[tuple[dict[str, str], list[Problem]]]
    ) -> list[EvaluationBatch[Evaluation, None]]:
        """Every pair of every item in one call of the policy; pairs that are known already are not asked again."""
        prompts = [Prompt.from_dict(candidate) for candidate, _ in items]
        self.ask([(prompt, problem) for prompt, (_, batch) in zip(prompts, items, strict=True) for problem in batch])
        return [self._batch(prompt, batch) for prompt, (_, batch) in zip(prompts, items, strict=True)]

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],
        eval_batch: EvaluationBatch[Evaluation, None],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What the proposer is shown of a minibatch: an example of each pair that has a scored rollout."""
        examples = [_example(evaluation) for evaluation in eval_batch.trajectories or ()]
        records = [{"example": example} for example in examples if example is not None]
        return {component: records for component in components_to_update}

    def propose_texts(self, jobs: Sequence[Job]) -> list[dict[str, str]]:
        """Each job's new texts, all of them proposed in one batch.

        An empty answer, which gepa skips, stands where reflection failed, was refused, or repeated what is known.
        """
        requests, feedback = [], []
        for candidate, dataset, components in jobs:
            parent = Prompt.from_dict(candidate)
            examples = tuple(record["example"] for record in dataset[components[0]])
            requests.append([self._request(parent, component, examples) for component in components if examples])
            feedback.append(_complaints(examples))
        outcomes = iter(propose_all(self.proposer, [request for job in requests for request in job]))
        return [
            self._child(job, [next(outcomes) for _ in job], lines)
            for job, lines in zip(requests, feedback, strict=True)
        ]

    @contextmanager
    def crashes_kept(self) -> Iterator[None]:
        """gepa just logs what callbacks and reflection raise. A defect must not look like a cycle without progress."""
        try:
            yield
        except Exception as error:
            self.crash = self.crash or error

    def newer(self, one: Prompt, other: Prompt) -> bool:
        """Whether one candidate was proposed after another."""
        order = list(self.entries)
        return order.index(one.hash) > order.index(other.hash)

    # -- ours ----------------------------------------------------------------------------------------------------------

    def hold_out(self, share: float) -> None:
        """Keep a share of the anchors of each kind from reflection. They come to stand behind the `shown` ones."""
        if not share:
            return
        kinds: dict[str, list[Problem]] = {}
        for problem in self.anchors:
            kinds.setdefault(problem.kind, []).append(problem)
        rng = random.Random(derive_seed(self.seed, "held out"))
        held = [p for members in kinds.values() for p in rng.sample(members, int(share * len(members)))]
        ids = {problem.id for problem in held}
        self.anchors = [*(problem for problem in self.anchors if problem.id not in ids), *held]
        self.shown = len(self.anchors) - len(held)

    def score_seeds(self, seeds: Sequence[Prompt]) -> None:
        """Score members of the population on all anchors in one batch. Raises BudgetSpentError, InfrastructureError."""
        self.ask([(prompt, problem) for prompt in seeds for problem in self.anchors])
        for prompt in seeds:
            entry = self.entries.setdefault(prompt.hash, Entry(prompt, accepted=True, reason=MEMBER))
            self.book_scores(entry, self.anchors)
            if not entry.scores:
                entry.reason = f"{MEMBER}; none of its rollouts could be scored"

    def scores(self, prompt: Prompt, problems: Sequence[Problem]) -> dict[str, float]:
        """Mean rewards by problem id; empty where no rollout of the prompt has one.

        A masked pair gets the mean over the batch's other pairs, or else over all that is known of the prompt.
        """
        return self._scores(prompt, problems, single=False)

    def single_scores(self, prompt: Prompt, problems: Sequence[Problem]) -> dict[str, float]:
        """As `scores`, of one rollout a pair."""
        return self._scores(prompt, problems, single=True)

    def book_scores(self, entry: Entry, problems: Sequence[Problem]) -> None:
        """Put a candidate's scores on some anchors, which are known, on its record."""
        entry.scores = self.scores(entry.prompt, problems)
        entry.single_scores = self.single_scores(entry.prompt, problems)

    def scores_by_position(self, prompt: Prompt) -> dict[int, float]:
        """Single scores by gepa's validation ids, which are positions in the list of anchors."""
        scores = self.entries[prompt.hash].single_scores
        return {index: scores[p.id] for index, p in enumerate(self.anchors) if p.id in scores}

    def pool(self) -> list[tuple[Prompt, dict[str, float]]]:
        """Every candidate that has anchor scores, oldest first."""
        return [(entry.prompt, entry.scores) for entry in self._pool()]

    def single_pool(self) -> list[dict[str, float]]:
        """The single scores of the candidates of `pool`."""
        return [entry.single_scores for entry in self._pool()]

    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate of the cycle, for the record."""
        return (*(_record(entry) for entry in self.entries.values()), *self.refused)

    @property
    def remaining(self) -> int:
        """Metric calls that are left."""
        return self.metric_calls - self.calls

    @property
    def reflection_error(self) -> str | None:
        """What the last failed call said, where calls failed for good and none brought a proposal."""
        return self.last_failure if self.successes == 0 else None

    def should_stop(self, minibatch: int, max_failures: int) -> bool:
        """Whether the cycle is over: no budget for another child, nothing new any more, or reflection is down."""
        over = self.remaining < minibatch or self.idle >= MAX_IDLE_PROPOSALS
        return over or self.failures_in_row >= max_failures or self.crash is not None

    def ask(self, pairs: Sequence[tuple[Prompt, Problem]]) -> None:
        """Have these pairs scored in one batch, those left out that are known. Raises BudgetSpentError."""
        unknown = {(prompt.hash, problem.id): (prompt, problem) for prompt, problem in pairs}
        wanted = [pair for key, pair in unknown.items() if key not in self.known]
        if not wanted:
            self.idle += 1
            return
        self._call(wanted)
        masked = [pair for pair in wanted if self._evaluation(pair).reward is None]
        self.masked += len(masked)
        if masked and len(masked) <= self.remaining:
            self._call(masked)
        self._check_scorer(wanted)

    def complaints(self, prompt: Prompt, problems: Sequence[Problem]) -> int:
        """About how many different things the verifier complains, over the failures among some known pairs."""
        drawn = [self.drawn.get((prompt.hash, problem.id)) for problem in problems]
        failed = [rollout for rollout in drawn if rollout is not None and (rollout.reward or 0.0) < 1.0]
        return len({line.strip() for rollout in failed for line in rollout.feedback.splitlines()} - {""})

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check_scorer(self, asked: Sequence[tuple[Prompt, Problem]]) -> None:
        """Raises InfrastructureError when nothing at all has been scored, or nothing any more."""
        if any(self._evaluation(pair).reward is not None for pair in asked):
            self.masked_batches = 0
            return
        self.masked_batches += 1
        nothing_yet = all(evaluation.reward is None for evaluation in self.known.values())
        if nothing_yet or self.masked_batches >= MAX_MASKED_BATCHES:
            failure = self._evaluation(asked[0]).rollouts[0].failure
            raise InfrastructureError(f"none of {len(asked)} rollouts of the prompt search could be scored: {failure}")

    def _call(self, pairs: Sequence[tuple[Prompt, Problem]]) -> None:
        if len(pairs) > self.remaining:
            raise BudgetSpentError
        self.calls += len(pairs)
        for (prompt, problem), evaluation in zip(pairs, self.evaluate_pairs(pairs), strict=True):
            key = (prompt.hash, problem.id)
            self.known[key] = evaluation
            scored = [rollout for rollout in evaluation.rollouts if rollout.reward is not None]
            if scored:
                self.drawn[key] = random.Random(derive_seed(self.seed, "draw", *key)).choice(scored)

    def _evaluation(self, pair: tuple[Prompt, Problem]) -> Evaluation:
        return self.known[pair[0].hash, pair[1].id]

    def _pool(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.accepted and entry.scores]

    def _scores(self, prompt: Prompt, problems: Sequence[Problem], *, single: bool) -> dict[str, float]:
        rewards = {problem.id: self._reward((prompt.hash, problem.id), single) for problem in problems}
        valid = [reward for reward in rewards.values() if reward is not None] or self._rewards(prompt, single)
        if not valid:
            return {}
        mean = sum(valid) / len(valid)
        return {problem_id: mean if reward is None else reward for problem_id, reward in rewards.items()}

    def _rewards(self, prompt: Prompt, single: bool) -> list[float]:
        rewards = [self._reward(key, single) for key in self.known if key[0] == prompt.hash]
        return [reward for reward in rewards if reward is not None]

    def _reward(self, key: tuple[str, str], single: bool) -> float | None:
        found = self.drawn[key] if single and key in self.drawn else self.known[key]
        return found.reward

    def _batch(self, prompt: Prompt, problems: Sequence[Problem]) -> EvaluationBatch[Evaluation, None]:
        evaluations = [self.known[prompt.hash, problem.id] for problem in problems]
        # gepa wants a number for each pair; a candidate without any score is turned away by `Acceptance`.
        scores = self.single_scores(prompt, problems) or {problem.id: 0.0 for problem in problems}
        return EvaluationBatch(
            [None] * len(problems), [scores[p.id] for p in problems], evaluations, num_metric_calls=0
        )

    def _request(self, parent: Prompt, component: str, examples: tuple[Example, ...]) -> ProposalRequest:
        self.proposals += 1
        chars = None if self.room is None else self.room.max_chars(parent, component)
        seed = derive_seed(self.seed, "propose", self.proposals)
        tried = attempts(parent, component, self.candidates(), getattr(self.proposer, "attempts", 0))
        return ProposalRequest(parent, component, examples, seed, chars, tried)

    def _child(
        self,
        requests: Sequence[ProposalRequest],
        outcomes: Sequence[Proposal | ReflectionError],
        feedback: tuple[str, ...],
    ) -> dict[str, str]:
        """Book what one job's proposals cost and brought; its texts, where they make a new candidate."""
        texts: dict[str, str] = {}
        for request, outcome in zip(requests, outcomes, strict=True):
            self.book.add(outcome)
            if isinstance(outcome, ReflectionError):
                self._book_failure(request, outcome, feedback)
            else:
                self.usage += outcome.usage
                self.successes += 1
                self.failures_in_row = 0
                texts[request.component] = outcome.text
        if not requests or len(texts) < len(requests):
            self.idle += 1
            return {}
        parent = requests[0].parent
        child = Prompt.from_dict({**parent.as_dict(), **texts})
        refusal = self._refusal(child)
        self.book.judged(len(requests), child, refusal)
        if refusal is not None:
            self.idle += 1
            self.refused.append(Candidate(child, parent.hash, False, f"refused: {refusal}", {}, feedback))
            return {}
        self.entries[child.hash] = Entry(
            child, parent.hash, reason="the budget ended before it was scored", feedback=feedback
        )
        return texts

    def _refusal(self, child: Prompt) -> str | None:
        """Why a whole proposal makes no candidate."""
        if child.hash in self.entries:
            return "a duplicate of a known prompt"
        too_long = None if self.room is None else self.room.refusal(child)
        if too_long is not None:
            self.too_long += 1
            self.usage += Usage(refused=1)
        return too_long

    def _book_failure(self, request: ProposalRequest, error: ReflectionError, feedback: tuple[str, ...]) -> None:
        spent = error.usage if isinstance(error.usage, Usage) else Usage(calls=1, failures=1)
        self.usage += spent
        message = " ".join(str(error).split())
        if spent.refused:
            self.failures_in_row = 0
        else:
            self.failures_in_row += 1
            self.last_failure = message
        if error.text is not None:
            child = request.parent.replace(request.component, error.text)
            self.refused.append(Candidate(child, request.parent.hash, False, f"refused: {message}", {}, feedback))


def _record(entry: Entry) -> Candidate:
    """A candidate for the record; one that nobody could afford to score has not been accepted."""
    unscored = entry.accepted and entry.parent_hash is not None and not entry.scores
    reason = f"{entry.reason}; the budget ended before its anchors" if unscored else entry.reason
    accepted = entry.accepted and not unscored
    return Candidate(entry.prompt, entry.parent_hash, accepted, reason, entry.scores, entry.feedback)


def _complaints(examples: Sequence[Example]) -> tuple[str, ...]:
    """The feedback of the failures, each text once."""
    return tuple(dict.fromkeys(e.feedback for e in examples if e.feedback and e.reward < 1.0))


def _example(evaluation: Evaluation) -> Example | None:
    """The worst rollout of a pair: there is most to learn from it."""
    valid = [rollout for rollout in evaluation.rollouts if rollout.reward is not None]
    if not valid:
        return None
    worst = min(valid, key=lambda rollout: rollout.reward or 0.0)
    problem = evaluation.problem
    question = "\n\n".join(m["content"] for m in problem.messages if m["role"] != "system")
    return Example(
        question, worst.text, worst.reward or 0.0, feedback_of(worst), turns_of(worst), reference_of(problem)
    )
