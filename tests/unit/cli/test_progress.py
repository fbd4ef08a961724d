import io
import logging
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from fastslow.cli.progress import LiveObserver, PlainObserver, WarningsObserver, summary
from fastslow.training.observer import Observers, SilentObserver
from fastslow.types import Prompt


def step(number: int, **values: Any) -> dict[str, Any]:
    return {
        "step": number, "reward/mean": 0.25, "slow/loss": -0.1, "rollouts/sampled": 64,
        "rollouts/sampled_total": 64 * number,
        "rollouts/reused": 8, "time/step_s": 4.0, "time/sample_s": 1.0, "time/evolve_s": 1.0, **values,
    }  # fmt: skip


START = {"steps": 10, "max_rollouts": None, "output": "runs/x", "step": 0, "rollouts": 0}


def test_plain_lines_name_the_numbers_that_people_watch(capsys: pytest.CaptureFixture[str]) -> None:
    observer = PlainObserver()
    observer.on_event("start", START)
    observer.on_event("cycle", {"cycle": 1, "population": [], "metric_calls": 9, "error": None, "best_score": 0.5})
    observer.on_event("step", step(1, **{"val/mean@4": 0.5, "kl/base": 0.01}))
    observer.on_event("warning", {"message": "careful"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run runs/x: from step 0"
    assert lines[1] == "cycle 1: 9 metric calls, best on its anchors 0.500"
    for part in ("step 1", "reward 0.250", "val 0.500", "KL 0.010", "rollouts 64", "rollouts/s 32.0", "left"):
        assert part in lines[2]
    assert lines[3] == "warning: careful"


def test_the_first_line_says_what_the_engine_decided(capsys: pytest.CaptureFixture[str]) -> None:
    decided = "bfloat16 on cuda, prefixes are shared: packed log-probabilities are within 4.0e-05 nats of plain ones"
    PlainObserver().on_event("start", {**START, "engine": decided})
    assert capsys.readouterr().out == f"run runs/x: from step 0; {decided}\n"
    observer = LiveObserver()
    observer.console.file = __import__("io").StringIO()
    observer.on_event("start", {**START, "engine": decided})
    observer.on_event("end", {})
    assert "prefixes are shared" in observer.console.file.getvalue()


def test_the_live_panel_shows_prompts_as_text_and_not_as_markup() -> None:
    observer = LiveObserver()
    observer.console.file = __import__("io").StringIO()
    observer.on_event("start", START)
    prompt = Prompt.of("[bold red]evil[/] \x1b[2J")
    observer.on_event(
        "cycle", {"cycle": 1, "population": [prompt], "metric_calls": 9, "error": None, "best_score": 0.5}
    )
    observer.on_event("step", step(1))
    with observer.console.capture() as captured:
        observer.console.print(observer._render())
    observer.on_event("end", {})
    shown = captured.get()
    assert "[bold red]evil[/]" in shown
    assert "\x1b[2J" not in shown
    assert "0.250" in shown


def test_quiet_runs_still_warn(capsys: pytest.CaptureFixture[str]) -> None:
    both = Observers([WarningsObserver(), SilentObserver()])
    both.on_event("step", step(1))
    both.on_event("warning", {"message": "masked"})
    assert capsys.readouterr() == ("", "fastslow: masked\n")


def test_a_step_that_sampled_nothing_has_no_rate() -> None:
    record = step(1, **{"time/sample_s": 0.0, "time/evolve_s": 0.0})
    assert summary(record)["rollouts/s"] == "-"


def test_an_estimated_kl_is_called_an_estimate() -> None:
    assert summary(step(1, **{"kl/base": 0.01}))["KL"] == "0.010"
    assert summary(step(1, **{"kl/base_estimate": 0.01}))["KL"] == "0.010 (estimate)"
    assert summary(step(1))["KL"] == "-"


# -- the panel ---------------------------------------------------------------------------------------------------------

LONG = Prompt.of("\n".join(f"Rule {number}: {'be careful and exact ' * 12}" for number in range(60)))


def panel(width: int, height: int, steps: int = 12) -> list[str]:
    """The lines of the panel of a run with a long prompt, as a terminal of that size has them."""
    observer = LiveObserver()
    observer.console = Console(width=width, height=height, force_terminal=True, file=io.StringIO())
    observer.progress.live.console = observer.console
    observer.live = Live(console=observer.console, auto_refresh=False)
    observer.on_event("start", START)
    observer.on_event("cycle", {**CYCLE, "population": [LONG]})
    for number in range(1, steps + 1):
        observer.on_event("step", step(number))
    observer.on_event("phase", {"name": "evolving"})
    observer.on_event("progress", SEARCH)
    with observer.console.capture() as captured:
        observer.console.print(observer._render())
    observer.close()
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in captured.get().splitlines()]


CYCLE = {"cycle": 1, "population": [Prompt.of("a")], "metric_calls": 9, "error": None, "best_score": 0.5}
SEARCH = {
    "name": "evolving", "done": 340, "total": 960, "unit": "metric calls", "candidates": 12, "best": 0.4371,
}  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("height", [5, 10, 24, 60])
def test_no_prompt_pushes_the_bar_off_the_screen(width: int, height: int) -> None:
    lines = panel(width, height)
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    assert "12/10" in lines[-1] or "step 12" in lines[-1]
    assert "evolving: 340/960 metric calls" in lines[-2]
    if height >= 24:
        assert any(line.startswith("best prompt: Rule 0") for line in lines)
        assert any(line.startswith("... and 55 more lines") for line in lines)
        assert sum("0.250" in line for line in lines) == 8


FIRST_EVENT = """
import sys
from fastslow.cli import main, progress

class First(progress.WarningsObserver):
    def on_event(self, kind, payload):
        print(kind, payload["name"], "torch" in sys.modules)
        raise KeyboardInterrupt

progress.make_observer = lambda quiet=False: First()
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", [("train", "package:fastslow.lab/lab.yaml"), ("evaluate", "a-model")])
def test_something_is_shown_before_what_takes_long_to_import(command: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_EVENT, *command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "phase loading False\n", done.stderr
    assert done.returncode == 130


def test_the_bar_of_an_evaluation_alone_counts_its_completions() -> None:
    observer = LiveObserver()
    observer.console = Console(width=90, height=24, force_terminal=True, file=io.StringIO())
    observer.on_event("phase", {"name": "evaluating under best"})
    observer.on_event("progress", {"done": 12, "total": 64, "unit": "completions"})
    observer._render()
    (bar,) = observer.progress.tasks
    assert (bar.description, bar.completed, bar.total) == ("evaluating under best", 12, 64)
    assert observer.status().startswith("evaluating under best: 12/64 completions")
    observer.close()


def test_the_status_says_how_far_a_search_is() -> None:
    observer = PlainObserver()
    observer.on_event("phase", {"name": "evolving"})
    observer.on_event("progress", SEARCH)
    assert observer.status() == "evolving: 340/960 metric calls, 12 prompts, best 0.437, 0m00s"
    observer.on_event("phase", {"name": "evaluating"})
    assert observer.status() == "evaluating: 0m00s"


def test_a_log_is_never_silent_for_longer_than_it_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainObserver(silence_s=0.1) as observer:
        observer.on_event("phase", {"name": "evolving"})
        observer.on_event("progress", SEARCH)
        time.sleep(1.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("  evolving: 340/960 metric calls") for line in lines)
    time.sleep(0.3)
    assert capsys.readouterr().out == ""


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_a_warning_is_shown_once_whoever_says_it_and_whatever_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainObserver() as observer:
        for number in (3, 4, 5):
            message = f"step {number}: 2 of 8 rollouts masked"
            observer.on_event("warning", {"message": message})
            logging.getLogger("fastslow.training.context").warning("%s", message)
        logging.getLogger("fastslow.fast").warning("the server's usage is not booked")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "warning: step 3: 2 of 8 rollouts masked",
        "warning: the server's usage is not booked",
    ]
    assert err == ""
    assert observer.repeated == ["2 more like: step 3: 2 of 8 rollouts masked"]


def test_what_must_not_be_missed_is_shown_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainObserver() as observer:
        for number in (3, 4):
            observer.on_event("warning", {"message": f"cycle {number}: EVERY reply was refused", "loud": True})
            logging.getLogger("fastslow").warning("cycle %d: EVERY reply was refused", number)
    assert capsys.readouterr().out.count("EVERY reply was refused") == 2
