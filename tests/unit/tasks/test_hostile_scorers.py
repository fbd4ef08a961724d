"""Scorers that end the program, return what is no score, or say too much: no traceback, and nothing lost."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastslow.cli.main import main
from fastslow.errors import ConfigError, TaskError, told
from fastslow.extension import load_object
from fastslow.loop import train
from fastslow.runs.files import checkpoint_steps
from fastslow.tasks.base import LONGEST_FEEDBACK, ScoringFailure, Stage, Task, check_score
from fastslow.tasks.reward_functions import _call
from fastslow.types import Problem, Score

from runs import small_config
from toy import LettersTask

PROBLEM = Problem("p", ({"role": "user", "content": "x"},))


class Judged(Task):
    """Scores by what it was given."""

    def __init__(self, judge: Any) -> None:
        self.judge = judge

    def problems(self, split: str) -> list[Problem]:
        return [PROBLEM]

    def score(self, problem: Problem, completion: str) -> Score:
        return self.judge()  # type: ignore[no-any-return]


def score(judge: Any) -> Score | ScoringFailure:
    return Judged(judge).score_batch([PROBLEM], ["x"])[0]


def test_a_scorer_that_ends_the_program_masks_its_rollout_and_the_first_one_says_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        assert score(lambda: sys.exit("\x1b[31m")) == ScoringFailure("SystemExit: \x1b[31m")
    (record,) = caplog.records
    assert "SystemExit: \N{REPLACEMENT CHARACTER}[31m (" in record.message
    assert "test_hostile_scorers.py, line " in record.message


def test_a_reward_function_does_as_well() -> None:
    def function(completions: list[str]) -> list[float]:
        sys.exit(0)

    (found,) = _call("f", function, {"completions": ["x"]}, 1)
    assert isinstance(found, ScoringFailure)


@pytest.mark.parametrize("reward", [np.float32(0.5), np.float64(0.5), np.array(0.5), True])
def test_a_reward_of_another_librarys_is_a_number(reward: Any) -> None:
    found = score(lambda: Score(reward, ""))
    assert isinstance(found, Score)
    assert float(found.reward) in (0.5, 1.0)


@pytest.mark.parametrize("reward", ["0.5", None, float("nan"), 1.0000001, [0.5]])
def test_a_reward_that_is_none_is_named(reward: Any) -> None:
    with pytest.raises(TaskError, match="for problem 'p'"):
        score(lambda: Score(reward, ""))


def test_a_reward_of_more_digits_than_python_writes_is_named() -> None:
    with pytest.raises(TaskError, match="<int that cannot be shown> for problem 'p'"):
        score(lambda: Score(10**5000, ""))


class Odd(ValueError):
    """Its words are none."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class EndsInItsWords(ValueError):
    def __str__(self) -> str:
        sys.exit(0)


@pytest.mark.parametrize(
    "error",
    [
        GeneratorExit(),
        BaseExceptionGroup("g", [KeyError()]),
        asyncio.CancelledError(),
        Odd(),
        EndsInItsWords(),
        SystemExit(0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_scorer_raises_masks_its_rollout(error: BaseException) -> None:
    def fails() -> Score:
        raise error

    failed = score(fails)
    assert isinstance(failed, ScoringFailure)
    assert failed.reason.startswith(type(error).__name__)


def test_ctrl_c_in_a_scorer_is_no_failure_of_the_scorer() -> None:
    def fails() -> Score:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(fails)


def test_words_that_no_file_can_hold_are_replaced_and_endless_ones_cut() -> None:
    assert check_score(Score(0.5, "a\ud800b"), PROBLEM).feedback == "a\N{REPLACEMENT CHARACTER}b"
    found = check_score(Score(0.5, "x" * 10_000_000), PROBLEM)
    assert len(found.feedback) <= LONGEST_FEEDBACK

    def fails() -> Score:
        raise ValueError("y" * 10_000_000 + "\ud800")

    failed = score(fails)
    assert isinstance(failed, ScoringFailure)
    assert len(failed.reason) < 3000
    failed.reason.encode()


def test_a_module_that_ends_the_program_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_the_program.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"task.name: .* cannot be imported: it ends the program \(sys.exit\(0\)\)"):
        load_object("ends_the_program:Task", "task.name")


def test_nor_can_one_that_raises_what_is_no_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raises_oddly.py").write_text("raise GeneratorExit('no more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"task.name: .* cannot be imported: no more"):
        load_object("raises_oddly:Task", "task.name")


@pytest.mark.parametrize(
    ("statement", "named"), [("sys.exit(0)", "sys.exit(0)"), ("raise GeneratorExit('x')", "GeneratorExit: x")]
)
def test_no_code_of_a_config_ends_a_command_with_status_0(
    statement: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ends_when_made.py").write_text(f"import sys\nclass Task:\n    def __init__(self): {statement}\n")
    monkeypatch.delitem(sys.modules, "ends_when_made", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("model: {name: package:fastslow.lab/model}\ntask: {name: 'ends_when_made:Task'}\n")
    assert main(["train", str(config), "--dry-run"]) == 1
    assert f"code that the config names ended the program: {named}" in capsys.readouterr().err


class Ends(LettersTask):
    """Ends the program when it is asked what the third step trains on."""

    def stage(self, step: int) -> Stage:
        if step >= 2:
            sys.exit(0)
        return super().stage(step)


def test_a_run_that_is_ended_so_is_saved_first(tmp_path: Path, tiny_model_dir: Path) -> None:
    name = f"{__name__}:Ends"
    with pytest.raises(SystemExit) as caught:
        train(
            small_config(
                tiny_model_dir, tmp_path / "run", method="rl", steps=20, task={"name": name}, checkpoint_every=50
            )
        )
    assert "was saved in" in told(caught.value)
    assert checkpoint_steps(tmp_path / "run")


class Wrong(LettersTask):
    """Its reward is none from its sixth batch on."""

    def __init__(self, reward: str) -> None:
        super().__init__()
        self.reward, self.asked = float(reward), 0

    def score_batch(self, problems: Any, completions: Any) -> Any:
        self.asked += 1
        if self.asked == 6:
            return [Score(self.reward)] * len(problems)
        return super().score_batch(problems, completions)


@pytest.mark.parametrize("reward", ["nan", "1.0000001"])
def test_a_run_with_one_wrong_reward_in_the_middle_is_saved(tmp_path: Path, tiny_model_dir: Path, reward: str) -> None:
    task = {"name": f"{__name__}:Wrong", "options": {"reward": reward}}
    evaluation = {"every": 0}
    with pytest.raises(TaskError, match="rewards lie in") as caught:
        train(
            small_config(
                tiny_model_dir,
                tmp_path / "run",
                method="rl",
                steps=50,
                task=task,
                checkpoint_every=50,
                evaluation=evaluation,
            )
        )
    assert "The run stopped after step 5 and was saved in" in told(caught.value)
    assert checkpoint_steps(tmp_path / "run") == [5]
