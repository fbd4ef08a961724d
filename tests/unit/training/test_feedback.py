"""What is said where the prompt search has nothing to read."""

import time
from pathlib import Path
from typing import Any

import pytest

import fastslow
from fastslow.config import parse_config
from fastslow.plan import describe
from fastslow.training.feedback import silence
from fastslow.types import Problem, Score

from runs import small_config
from toy import LettersTask, TalkTask


class SaysTask(LettersTask):
    """The letters, with this for feedback."""

    name = "says"

    def __init__(self, says: str = "", reward: float = 0.0) -> None:
        super().__init__()
        self.says, self.reward = says, reward

    def score(self, problem: Problem, completion: str) -> Score:
        return Score(self.reward, self.says)


def config_of(proposer: dict[str, Any] | None = None, method: str = "fst") -> fastslow.Config:
    fast = {"proposer": proposer} if proposer else {}
    return small_config(Path("nowhere"), Path("run"), method=method, fast=fast)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (SaysTask("short: 0"), "a wrong answer gets 'short: 0': the fast side has nothing to read"),
        (SaysTask("short: 0\nright: 0.5"), "nothing to read"),
        (SaysTask("The reference answer is 4."), "nothing to read"),
        (SaysTask(), "a wrong answer gets no words: the fast side has nothing to read"),
        (SaysTask("Write a word.\nshort: 0"), ""),
        (SaysTask("", reward=1.0), ""),
        (TalkTask(), ""),
    ],
)
def test_a_dry_run_says_that_the_fast_side_has_nothing_to_read(task: Any, words: str) -> None:
    found = "\n".join(silence(config_of(), task))
    assert words in found and bool(words) == bool(found)
    assert not words or ("returns (reward, feedback)" in found and "task.options.answer" in found)


def test_a_language_model_has_answers_to_read() -> None:
    reader = config_of({"kind": "policy"})
    (line,) = silence(reader, SaysTask("short: 0"))
    assert "questions, answers and rewards to read, and no words" in line
    assert silence(reader, SaysTask("The reference answer is 4.")) == []


def test_nothing_is_asked_where_nothing_is_searched() -> None:
    task = SaysTask()
    task.score = None  # type: ignore[assignment, method-assign]
    assert silence(config_of(method="rl"), task) == []


class BrokenTask(LettersTask):
    """A scorer that divides by zero, or never returns."""

    def __init__(self, hangs: bool) -> None:
        super().__init__()
        self.hangs = hangs

    def score(self, problem: Problem, completion: str) -> Score:
        time.sleep(1e6 if self.hangs else 0)
        return Score(1 / 0)


class BrokenBatches(BrokenTask):
    """The same, a batch at a time."""

    def score_batch(self, problems: Any, completions: Any) -> Any:
        return [self.score(*row) for row in zip(problems, completions, strict=True)]


@pytest.mark.parametrize("kind", [BrokenTask, BrokenBatches])
@pytest.mark.parametrize(("hangs", "why"), [(False, "ZeroDivisionError"), (True, "within task.timeout_s = 0.3 s")])
def test_a_scorer_that_breaks_or_hangs_is_found_before_the_run(kind: Any, hangs: bool, why: str) -> None:
    task = kind(hangs)
    task.limit_scoring(0.3)
    (line,) = silence(config_of(), task)
    assert "the scorer broke on the answer" in line and why in line


def test_a_run_says_it_at_its_first_search_and_its_prompt_stays_clean(tiny_model_dir: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def hear(kind: str, payload: dict[str, Any]) -> None:
        told.extend([str(payload["message"])] if kind == "warning" else [])

    config = small_config(tiny_model_dir, tmp_path / "run", steps=2, evaluation={"every": 0})
    result = fastslow.train(config, task=SaysTask("short: 0"), callbacks=[hear])
    assert sum("got no words: prompts have nothing to learn from" in message for message in told) == 1
    assert all("short" not in line["components"]["system"] for line in fastslow.read_candidates(result.run))


def test_the_plan_shows_it(tiny_model_dir: Path, tmp_path: Path) -> None:
    tree = small_config(tiny_model_dir, tmp_path / "run").model_dump(mode="json")
    tree["task"]["name"] = f"{__file__}:SaysTask"
    assert "nothing to read" in describe(parse_config(tree)).partition("Fast weights")[2]
