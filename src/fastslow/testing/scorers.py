"""The contract of a scorer of `records`, for its author to run: a function, or a `Scorer`.

from fastslow.testing.scorers import check_scorer

check_scorer(my_function, [{"question": "2 + 2?", "answer": "4"}], right=lambda record: record["answer"])
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastslow.tasks.base import check_score
from fastslow.tasks.formats import get_format
from fastslow.tasks.scorers import Record, Scorer, ScoreRecord, from_function
from fastslow.testing.contract import require, run_checks
from fastslow.types import Problem, Score

RUBBISH = (
    "",
    " ",
    "rubbish",
    "</think>",
    "\\boxed{",
    "\\boxed{}",
    "```json\n{\n```",
    "{" * 5000,
    "\ud800",
    "9" * 5000,
    "\0",
)
"""Completions of a policy that is far from an answer."""


@dataclass(frozen=True)
class ScorerCase:
    """A scorer with records that it must judge, and what is right for each."""

    scorer: Scorer | Callable[..., Any]
    records: Sequence[Record]
    right: Callable[[Record], str]
    answer: str | None
    answer_format: str

    def judge(self) -> ScoreRecord:
        """The scorer as `records` uses it, on (completion, record)."""
        scorer = self.scorer
        if not isinstance(scorer, Scorer):
            return from_function(scorer, "the scorer", self.answer)
        form = get_format(self.answer_format)
        return lambda completion, record: scorer.judge(completion, scorer.prepare(record[self.answer or ""]), form)

    def verdict(self, completion: str, record: Record) -> Score:
        """The score, checked as a run checks it."""
        return check_score(self.judge()(completion, copy.deepcopy(record)), Problem("a-record", ()))


def check_scorer(
    scorer: Scorer | Callable[..., Any],
    records: Sequence[Mapping[str, Any]],
    *,
    right: Callable[[Record], str],
    answer: str | None = "answer",
    answer_format: str = "plain",
) -> None:
    """Run every check. `right` gives a completion that is right for a record; `answer` names the column with answers.

    Raises: AssertionError.
    """
    require(len(records) > 0, "check_scorer needs at least one record")
    run_checks("the scorer", CHECKS, ScorerCase(scorer, records, right, answer, answer_format))


def can_be_called(case: ScorerCase) -> None:
    """Found by its name or import path, or given as an object, it becomes a function of (completion, record)."""
    case.judge()


def scores_the_right_answer_with_1(case: ScorerCase) -> None:
    """For every record: 1 is what full marks are in validation and in the report."""
    for record in case.records:
        score = case.verdict(case.right(record), record)
        require(score.reward == 1.0, f"the right answer to {record} must have reward 1.0, it has {score.reward}")


def takes_any_completion(case: ScorerCase) -> None:
    """A wrong answer, however it looks, is the model's doing. What raises is masked, and nothing is learnt from it."""
    for text in RUBBISH:
        try:
            case.verdict(text, case.records[0])
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(
                f"the completion {text[:20]!r} must get a score in [0, 1], it gave {type(error).__name__}: {error}"
            ) from error


def tells_right_from_wrong(case: ScorerCase) -> None:
    """A scorer that gives rubbish as much as the right answer teaches nothing."""
    for record in case.records:
        best = max(case.verdict(text, record).reward for text in RUBBISH)
        right = case.verdict(case.right(record), record).reward
        require(best < right, f"rubbish must score less than the right answer to {record}: {best} against {right}")


def says_the_same_twice(case: ScorerCase) -> None:
    """Rewards are stored and reused, and a resumed run must get those of the uninterrupted one."""
    for record in case.records:
        for text in (case.right(record), "rubbish"):
            first, second = case.verdict(text, record), case.verdict(text, record)
            require(first == second, f"the same completion must get the same score: {first}, then {second}")


def leaves_the_record_alone(case: ScorerCase) -> None:
    """A record is scored many times in a run, so a change would move later rewards."""
    for record in case.records:
        before = copy.deepcopy(record)
        used = dict(copy.deepcopy(record))
        for text in (case.right(record), "rubbish"):
            case.judge()(text, used)
        require(used == before, f"the scorer changed the record {before} to {used}: it is used again")


def refuses_answers_of_no_use(case: ScorerCase) -> None:
    """A `Scorer` reads every answer before any model loads, and says which are of no use."""
    scorer = case.scorer
    if not isinstance(scorer, Scorer):
        return
    for useless in (None, ""):
        try:
            scorer.prepare(useless)
        except (ValueError, TypeError):
            continue
        raise AssertionError(f"prepare({useless!r}) must raise ValueError: such an answer is of no use")


CHECKS = (
    can_be_called,
    scores_the_right_answer_with_1,
    takes_any_completion,
    tells_right_from_wrong,
    says_the_same_twice,
    leaves_the_record_alone,
    refuses_answers_of_no_use,
)
