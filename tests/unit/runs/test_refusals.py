"""What a run directory refuses, word for word, and the lines of episodes."""

import os
from pathlib import Path
from typing import Any

import pytest

from fastslow.config import Config, parse_config
from fastslow.errors import ConfigError, ResumeError
from fastslow.runs.directory import RunDirectory
from fastslow.runs.files import read_config
from fastslow.runs.samples import transcript
from fastslow.types import Completion, Rollout, Trace, Turn


def config_of(**more: Any) -> Config:
    return parse_config({"model": {"name": "m"}, "task": {"name": "t"}, "steps": 5} | more)


def test_an_output_below_a_file_is_refused_with_both_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run"
    with pytest.raises(ConfigError) as caught:
        RunDirectory(path).check_free()
    file = str(tmp_path / "file")
    assert str(caught.value) == (
        f"output: {str(path)!r} cannot be made, since {file!r} is no directory: take another path"
    )


@pytest.mark.parametrize("missing", [os.W_OK, os.X_OK])
def test_an_output_that_cannot_be_written_is_refused(
    missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & missing)
    path = tmp_path / "run"
    with pytest.raises(ConfigError) as caught:
        RunDirectory(path).check_free()
    assert str(caught.value) == (
        f"output: {str(path)!r} cannot be made, since {str(tmp_path)!r} cannot be written to: take another path"
    )


def test_a_directory_that_the_system_refuses_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    path = tmp_path / "run"
    with pytest.raises(ConfigError) as caught:
        RunDirectory(path).create(config_of())
    assert str(caught.value) == f"output: {str(path)!r} cannot be made: No space left on device. Take another path"


def opened(path: Path, before: Config, after: Config) -> None:
    directory = RunDirectory(path)
    directory.create(before)
    directory.close()
    directory.open(after)
    directory.close()


def test_more_steps_would_bend_a_schedule_that_is_as_long_as_the_run(tmp_path: Path) -> None:
    linear = {"slow": {"schedule": "linear"}}
    with pytest.raises(ResumeError) as caught:
        opened(tmp_path / "run", config_of(**linear), config_of(**linear, **{"steps": 7}))
    assert str(caught.value) == (
        "steps: 7 instead of 5 would bend the learning rate of slow.schedule: linear, whose length is the run's: "
        "resume with 5; a run that may grow is started with slow.schedule_steps"
    )


@pytest.mark.parametrize("slow", [{}, {"schedule": "linear", "schedule_steps": 10}])
def test_more_steps_are_taken_where_they_bend_nothing(slow: dict[str, Any], tmp_path: Path) -> None:
    opened(tmp_path / "run", config_of(slow=slow), config_of(slow=slow, steps=7))
    assert read_config(tmp_path / "run").steps == 7


def test_a_schedule_that_is_as_long_as_the_run_is_resumed_with_the_same_steps(tmp_path: Path) -> None:
    linear = {"slow": {"schedule": "linear"}}
    opened(tmp_path / "run", config_of(**linear), config_of(**linear))
    assert read_config(tmp_path / "run") == config_of(**linear)


def test_a_transcript_says_who_said_what_where_it_forked_and_why_it_ended() -> None:
    ask, answer = {"role": "user", "content": "now"}, {"role": "tool", "content": "4"}
    turns = (
        Turn((1, 2), Completion((3, 4), (-0.1, -0.2), "stop"), "first"),
        Turn((1, 2, 3, 4, 5), Completion((6,), (-0.3,), "stop"), "second", (answer,)),
        Turn((9,), Completion((7,), (-0.3,), "length"), "third", (ask,)),
    )
    trace = Trace("finished", said=(answer,), tool_calls=2, tool_errors=("no tool 'x'",))
    assert transcript(Rollout("p", "h", turns, 1.0, "", None, 0, "rl", trace=trace)) == {
        "end": "finished",
        "turns": [
            {"messages": [], "text": "first", "tokens": 2, "forked": False},
            {"messages": [answer], "text": "second", "tokens": 1, "forked": False},
            {"messages": [ask], "text": "third", "tokens": 1, "forked": True},
        ],
        "said": [answer],
        "tool_calls": 2,
        "tool_errors": ["no tool 'x'"],
    }


def test_a_rollout_of_one_turn_has_no_transcript() -> None:
    turn = Turn((1,), Completion((2,), (-0.5,), "stop"), "a")
    assert transcript(Rollout("p", "h", (turn,), 1.0, "", None, 0, "rl")) == {}
