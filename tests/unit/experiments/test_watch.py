"""What is said while an experiment runs: in a pipe never nothing for long, and a time left from the first steps on."""

from pathlib import Path

import pytest

from fastslow.experiments.runner import Status
from fastslow.experiments.watch import SILENCE_S, LiveWatcher, PlainWatcher

from report_runs import make_run

PLANNED = {"fst": 40, "rl": 40, "second": 20}


def status(directory: Path, running: str, waiting: str, done: str, seconds: float) -> Status:
    names = [tuple(each.split()) for each in (running, waiting, done)]
    return Status("demo", directory, names[0], names[1], names[2], (), seconds, len(names[2]), PLANNED)


def test_a_pipe_hears_of_what_runs_before_a_part_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    watcher = PlainWatcher(lambda: clock[0])

    def heard(at: float, running: str, waiting: str, done: str = "") -> list[str]:
        clock[0] = at
        watcher(status(tmp_path, running, waiting, done, at))
        return capsys.readouterr().out.splitlines()

    assert heard(0, "fst rl", "second") == []
    assert heard(SILENCE_S - 1, "fst rl", "second") == []
    assert heard(SILENCE_S, "fst rl", "second") == ["  fst: starting; rl: starting [0m30s so far, 3 runs to go]"]
    make_run(tmp_path / "fst", steps=10)
    assert heard(SILENCE_S + 10, "fst rl", "second") == [], "something was said ten seconds before"
    (line,) = heard(2 * SILENCE_S, "fst rl", "second")
    assert (
        line == "  fst: step 10, 200 rollouts, accuracy 1.000, KL 0.100; rl: starting [1m00s so far, about 4m30s left]"
    )
    make_run(tmp_path / "fst", steps=40)
    (line,) = heard(2 * SILENCE_S + 1, "rl", "second", "fst")
    assert line.startswith("demo 1/3: fst: step 40, ") and line.endswith(" [1m01s so far, about 0m46s left]")
    assert heard(2 * SILENCE_S + 2, "rl", "second", "fst") == [], "no part is told twice"


def test_what_was_done_before_is_no_part_of_the_pace(tmp_path: Path) -> None:
    make_run(tmp_path / "rl", steps=10)
    watcher = LiveWatcher()

    def left(seconds: float) -> str:
        summary = watcher._render(status(tmp_path, "rl", "second", "fst", seconds)).renderables[-1]
        return str(summary).partition(" | ")[2]

    assert left(0.0) == "0m00s so far, 2 runs to go"
    assert len(watcher._render(status(tmp_path, "", "", "fst rl second", 1.0)).renderables) == 1, "no head without rows"
    make_run(tmp_path / "rl", steps=20)
    assert left(10.0) == "0m10s so far, about 0m40s left"
