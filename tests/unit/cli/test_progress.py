from typing import Any

import pytest

from fastslow.cli.progress import LiveObserver, PlainObserver, WarningsObserver, summary
from fastslow.training.observer import Observers, SilentObserver
from fastslow.types import Prompt


def step(number: int, **values: Any) -> dict[str, Any]:
    return {
        "step": number, "reward/mean": 0.25, "slow/loss": -0.1, "rollouts/sampled": 64, "rollouts/sampled_total": 64 * number,
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
