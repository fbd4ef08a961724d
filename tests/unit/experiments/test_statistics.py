"""Numbers read off curves, by hand."""

import math

import pytest

from fastslow.experiments.tables import by_method, ratios, seed_counts
from fastslow.measuring.statistics import accuracy, area, at_the_end, chosen_rate, final_accuracy, reached, summarise

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
    assert at_the_end([(0, 0.1), (5, 0.4), (10, 0.6)]) == pytest.approx(0.5)  # the start is no end
    assert at_the_end([(0, 0.1)]) is None and at_the_end([]) is None
    assert accuracy(CURVE[-1], "other") == 0.2


def test_the_area_is_a_mean_over_the_axis() -> None:
    assert area(CURVE) == pytest.approx((100 * 0.25 + 200 * 0.7 + 100 * 0.8) / 400)
    assert area(CURVE[:1]) == 0.0


def test_medians_have_an_interval_and_never_reached_counts_as_infinite() -> None:
    found = summarise([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)
    assert summarise([1.0, None, None]).median == math.inf
    assert summarise([1.0, 2.0, None, None]).median == math.inf
    assert summarise([5.0] * 4).text() == "5.00 (all 4 alike)"
    assert summarise([]).text() == "-"


def test_the_interval_of_few_seeds_says_what_it_covers() -> None:
    # By hand: the range misses the median where all values lie on one side of it, 2 / 2^n.
    assert [summarise([1.0] * n).coverage for n in (3, 4, 5, 6)] == [0.75, 0.875, 0.9375, 0.96875]
    found = summarise([float(value) for value in range(10)])
    # 2 (1 + 10) / 1024 is missed between the second lowest and the second highest of ten.
    assert (found.low, found.high, found.coverage) == (1.0, 8.0, 1 - 22 / 1024)


def test_how_many_seeds_there_are_and_how_many_a_ratio_is_of() -> None:
    def run(method: str, seed: int, end: float) -> dict:
        curve = [{"step": s, "rollouts": 10 * s, "seconds": s, "val/mean@4": end * s / 2} for s in range(3)]
        return {"labels": {"task": "a", "method": method, "seed": seed}, "curve": curve}

    runs = [run("fst", seed, end) for seed, end in enumerate([0.9, 0.9, 0.9, 0.1])]
    runs += [run("rl", seed, end) for seed, end in enumerate([0.9, 0.9, 0.9, 0.1])]
    assert seed_counts(runs) == [4, 4]
    (line, _) = ratios(by_method(runs), 0.8)
    assert line.endswith("(0 where RL alone never got there; 3 of 4 seeds, since neither got there on the others).")


@pytest.mark.parametrize(
    ("lower", "chosen"),
    [
        ([0.46, 0.46, 0.46], 1e-4),  # Within the best one's 0.41 to 0.48.
        ([0.20, 0.41, 0.50], 1e-4),  # On its edge: the median counts, not the runs.
        ([0.40, 0.40, 0.60], 1e-3),  # Below it, whatever its best run.
        ([0.49, 0.50, 0.50], 1e-4),  # It is the best itself.
    ],
)
def test_of_rates_that_a_search_cannot_tell_apart_the_lowest_is_taken(lower: list[float], chosen: float) -> None:
    assert chosen_rate({1e-2: [0.3, 0.3, 0.3], 1e-3: [0.41, 0.47, 0.48], 1e-4: lower}) == chosen


def test_with_one_seed_the_best_rate_is_taken_however_close_another_is() -> None:
    assert chosen_rate({1e-4: [0.46], 1e-3: [0.47], 1e-5: []}) == 1e-3
