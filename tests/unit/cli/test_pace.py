"""The time left: by hand, from one step on, with searches and evaluations at their own times."""

from typing import Any

import pytest

from fastslow.cli.pace import Pace

START = {
    "steps": 10, "max_rollouts": None, "step": 0, "rollouts": 0, "search_every": 5, "search_until": 10,
    "evaluate_every": 4,
}  # fmt: skip


def line(
    step: int, *, train_s: float = 2.0, evolve_s: float = 0.0, evaluate_s: float = 0.0, **more: Any
) -> dict[str, Any]:
    return {
        "step": step, "time/step_s": train_s + evolve_s + evaluate_s, "time/evolve_s": evolve_s,
        "time/evaluate_s": evaluate_s, "rollouts/sampled": 0, "rollouts/sampled_total": 0, **more,
    }  # fmt: skip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def after(*lines: dict[str, Any], **start: Any) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(clock)
    pace.on_event("start", {**START, **start})
    for each in lines:
        pace.on_event("step", each)
    return pace, clock


def test_there_is_an_estimate_from_the_first_step_on_and_not_before() -> None:
    assert after(line(0, evaluate_s=7.0))[0].seconds_left() is None
    # 9 steps of 2 s; a search of 30 s before step 6; evaluations of 7 s after steps 4 and 8.
    pace, _ = after(line(0, evaluate_s=7.0), line(1, evolve_s=30.0))
    assert pace.seconds_left() == pytest.approx(9 * 2 + 30 + 2 * 7)


def test_the_estimate_counts_down_within_a_step_and_not_beyond_it() -> None:
    pace, clock = after(line(1), search_every=0, evaluate_every=0)
    assert pace.seconds_left() == pytest.approx(18)
    clock.now = 1.5
    assert pace.seconds_left() == pytest.approx(16.5)
    clock.now = 100.0
    assert pace.seconds_left() == pytest.approx(16)


def test_a_search_that_ends_early_in_the_run_is_not_counted_for_later_steps() -> None:
    pace, _ = after(line(1, evolve_s=30.0), search_every=1, search_until=3, evaluate_every=0)
    assert pace.seconds_left() == pytest.approx(9 * 2 + 2 * 30)


def test_a_budget_of_rollouts_ends_the_run_sooner() -> None:
    # A step samples 10 and a search 20, every five steps: 14 a step. Of 100, 30 are spent: 5 steps are left,
    # with one search.
    sampled = {"rollouts/sampled": 30, "rollouts/sampled_gepa": 20, "rollouts/sampled_total": 30}
    pace, _ = after(line(1, evolve_s=30.0, **sampled), max_rollouts=100, evaluate_every=0)
    assert pace.seconds_left() == pytest.approx(5 * 2 + 30)
    assert (pace.done, pace.total) == (30, 100)


def test_a_resumed_run_begins_where_it_stands() -> None:
    pace, _ = after(line(9), step=8, search_every=0, evaluate_every=0)
    assert pace.seconds_left() == pytest.approx(2)
