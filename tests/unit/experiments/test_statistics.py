"""Numbers read off curves, by hand."""

import math

import pytest

from fastslow.experiments.statistics import accuracy, area, final_accuracy, reached, summarise

CURVE = [
    {"step": 0, "rollouts": 0, "seconds": 0.0, "val/mean@4": 0.0, "kl/base": 0.0},
    {"step": 5, "rollouts": 100, "seconds": 2.0, "val/mean@4": 0.5, "kl/base": 0.1},
    {"step": 10, "rollouts": 300, "seconds": 4.0, "val/mean@4": 0.9, "kl/base": 0.3},
    {"step": 15, "rollouts": 400, "seconds": 5.0, "val/mean@4": 0.7, "kl/base": 0.4, "val/other/mean@4": 0.2},
]


def test_the_first_evaluation_at_or_above_a_threshold() -> None:
    found = reached(CURVE, 0.9)
    assert found is not None
    assert (found.step, found.rollouts, found.seconds, found.kl) == (10, 300, 4.0, 0.3)
    assert reached(CURVE, 0.95) is None


def test_the_end_is_a_mean_of_the_last_evaluations() -> None:
    assert final_accuracy(CURVE) == pytest.approx(0.7)
    assert final_accuracy(CURVE, last=1) == pytest.approx(0.7)
    assert accuracy(CURVE[-1], "other") == 0.2


def test_the_area_is_a_mean_over_the_axis() -> None:
    assert area(CURVE) == pytest.approx((100 * 0.25 + 200 * 0.7 + 100 * 0.8) / 400)
    assert area(CURVE[:1]) == 0.0


def test_medians_have_an_interval_and_never_reached_counts_as_infinite() -> None:
    found = summarise([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)
    assert summarise([1.0, None, None]).median == math.inf
    assert summarise([1.0, 2.0, None, None]).median == math.inf
    assert summarise([5.0] * 4).text() == "5.00 (5.00 to 5.00)"
    assert summarise([]).text() == "-"
    assert summarise([1.0, 4.0, 2.0], "a") == summarise([1.0, 4.0, 2.0], "a")
