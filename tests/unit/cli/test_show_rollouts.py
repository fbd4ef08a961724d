"""`fastslow prompts --rollouts`: transcripts, filtered by their end, with everything printed as text."""

from pathlib import Path

import pytest

from fastslow.cli.main import main

from report_runs import HOSTILE, episode, make_run, sample


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    cut = episode(end="max_turns", reward=0.0, feedback="The episode was cut off after 2 turns: finish in fewer.")
    lines = [episode(), cut, sample("[bold]one[/bold] turn", finish_reason="length"), episode(text=HOSTILE, said=[
        {"role": "user", "content": HOSTILE}], end="timed_out", reward=None, failure="it hung")]  # fmt: skip
    return str(make_run(tmp_path / "run", samples={1: lines[:2], 2: lines[2:]}))


def test_rollouts_are_printed_turn_by_turn(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", run, "--rollouts"]) == 0
    out = capsys.readouterr().out
    assert out.index("step 1") < out.index("I compute.") < out.index('-> calculator(expression="2*")')
    assert "tool (the answer to a failed call):" in out and "policy (a context of its own" in out
    assert "the environment ended it, after 2 turns; tool calls: 1, failed: 1" in out
    assert "[bold]one[/bold] turn" in out and "cut off: the answer was too long" in out
    assert "not scored" in out and "it hung" in out and "\x1b[31m" not in out and "\x07" not in out
    assert out.rstrip().endswith("4 of 4 kept rollouts.")


@pytest.mark.parametrize(
    ("end", "count"), [("max_turns", 1), ("done", 1), ("turn_tokens", 1), ("timed_out", 1), ("context", 0)]
)
def test_rollouts_are_filtered_by_their_end(run: str, end: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", run, "--rollouts", "--end", end]) == 0
    assert f"{count} of 4 kept rollouts." in capsys.readouterr().out


def test_nothing_of_a_foreign_run_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steers = "\x1b[31m\x07"
    line = episode(prompt=steers, problem=steers, end=steers, question=[{"role": steers, "content": steers}])
    assert main(["prompts", str(make_run(tmp_path / "run", samples={1: [line]})), "--rollouts"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 kept rollouts." in out and not {"\x1b", "\x07"} & set(out)


def test_a_wrong_end_and_an_end_without_rollouts_are_named(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", run, "--rollouts", "--end", "tired"]) == 2
    assert "'tired'" in (error := capsys.readouterr().err) and "max_turns" in error
    assert main(["prompts", run, "--end", "done"]) == 2
    assert "--rollouts" in capsys.readouterr().err


def test_a_run_that_kept_nothing_says_how_to_keep_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", str(make_run(tmp_path / "run", samples={})), "--rollouts"]) == 0
    assert "rollout_samples" in capsys.readouterr().out
