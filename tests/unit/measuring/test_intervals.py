"""Intervals by hand, and where there is little to go by."""

import math

import numpy as np
import pytest

from fastslow.measuring.intervals import mean_interval, median_note, median_rank, ratio_interval, share_interval


def test_a_share_has_the_exact_interval() -> None:
    # Clopper and Pearson's for 8 of 10, as in their table; and 0.025^(1/8) for 8 of 8.
    assert share_interval(0.8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert share_interval(1.0, 8) == pytest.approx((0.025 ** (1 / 8), 1.0))
    assert share_interval(0.0, 64) == pytest.approx((0.0, 1 - 0.025 ** (1 / 64)))
    with pytest.raises(ValueError, match=r"a share of 1\.2 of 10 draws"):
        share_interval(1.2, 10)


def test_samples_that_say_nothing_new_do_not_count() -> None:
    ones = [[1.0], [0.0], [0.0], [1.0]] * 8
    alike = [group * 4 for group in ones]
    assert mean_interval(ones)[0] < 0.5 < mean_interval(ones)[1]
    assert mean_interval(alike) == pytest.approx(mean_interval(ones), abs=0.01)
    # Half of each problem's samples are right: they vary less between problems than 32 coins would.
    mixed = [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]] * 8
    low, high = mean_interval(mixed)
    assert high - low < 0.6 * (mean_interval(ones)[1] - mean_interval(ones)[0])
    # But never as if there were more draws than there are.
    assert low <= share_interval(0.5, 128)[0] + 1e-9


def test_all_or_nothing_is_no_certainty() -> None:
    assert mean_interval([[1.0, 1.0]] * 8) == share_interval(1.0, 8)
    assert mean_interval([[0.0] * 4] * 64) == share_interval(0.0, 64)
    assert mean_interval([[1.0]])[0] == pytest.approx(0.025)
    with pytest.raises(ValueError, match="a reward of each"):
        mean_interval([[1.0], []])


def test_rewards_between_0_and_1_are_as_sure_as_their_spread_is_small() -> None:
    rewards = [[0.5 + 0.01 * (index % 3 - 1)] for index in range(30)]
    low, high = mean_interval(rewards)
    error = np.std([r for (r,) in rewards], ddof=1) / math.sqrt(30)
    assert (low, high) == pytest.approx((0.5 - 2.045 * error, 0.5 + 2.045 * error), abs=1e-4)


def test_the_median_has_an_interval_of_the_values_themselves() -> None:
    assert [median_rank(n).rank for n in (1, 2, 3, 5, 8, 9, 12)] == [1, 1, 1, 1, 1, 2, 3]
    assert median_rank(2).coverage == 0.5
    assert median_note([5, 2, 9]) == (
        "In brackets an interval of the median, with how often such intervals cover it: of 5 seeds from the lowest to "
        "the highest, 93.8 %; of 9 seeds from the second lowest to the second highest, 96.1 %. 95 % takes six seeds. "
        "Where all seeds gave one value, it says so: a range without width is no interval."
    )
    assert median_note([1, 2]) == "Fewer than three seeds have no brackets."


def test_a_ratio_weighs_its_entries() -> None:
    values, weights = [1.0, 6.0, 2.0, 4.0] * 8, [1.0, 3.0, 2.0, 2.0] * 8
    low, high = ratio_interval(values, weights, seed=0)
    assert low < 13 / 8 < high
    assert (low, high) == ratio_interval(values, weights, seed=0)
    assert ratio_interval([0.0] * 9, [4.0] * 9, seed=0) == (0.0, 0.0)
    assert ratio_interval([0.3], [4.0], seed=0) == (0.0, math.inf)
    assert ratio_interval([0.0, 0.0, 0.0, 5.0], [1.0] * 4, seed=0)[0] >= 0.0
