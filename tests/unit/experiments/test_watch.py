"""What is said while an experiment runs: in a pipe never nothing for long, and a time left from the first steps on."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fastslow.experiments.runner import Planned, Status
from fastslow.experiments.watch import SILENCE_S, LiveWatcher, PlainWatcher

from report_runs import make_run

PLANNED = {"fst": Planned(40), "rl": Planned(40), "second": Planned(20)}


def status(
    directory: Path, running: str, waiting: str, done: str, seconds: float, planned: Mapping[str, Planned] = PLANNED
) -> Status:
    names = [tuple(each.split()) for each in (running, waiting, done)]
    return Status("demo", directory, names[0], names[1], names[2], (), seconds, len(names[2]), planned)


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


def test_where_rollouts_end_a_run_they_are_its_pace(tmp_path: Path) -> None:
    planned = {"fst": Planned(400, 400), "prompt": Planned(16, 400)}
    watcher = LiveWatcher()

    def left(seconds: float, running: str = "fst prompt", done: str = "") -> str:
        summary = watcher._render(status(tmp_path, running, "", done, seconds, planned)).renderables[-1]
        return str(summary).partition(" | ")[2]

    assert left(0.0) == "0m00s so far, 2 runs to go"
    # 10 of 400 steps, but 200 of 400 rollouts: it is half done.
    make_run(tmp_path / "fst", steps=10)
    assert left(10.0) == "0m10s so far, about 0m30s left"
    # 160 of 400 rollouts, but 8 of 16 steps.
    make_run(tmp_path / "prompt", steps=8)
    assert left(20.0) == "0m20s so far, about 0m20s left"
    assert left(30.0, "prompt", "fst") == "0m30s so far, about 0m10s left"
