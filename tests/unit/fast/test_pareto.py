"""Hand-computed frontiers and populations."""

import math

import pytest

from fastslow.fast.pareto import is_luck, mean_score, paired_gain, pareto_frontier, select_population


def scores(*rows: str) -> list[dict[str, float]]:
    """Rows of digits: the candidate's rewards in tenths on instances a, b, c ...; a dot is an instance not scored."""
    return [{"abcdefgh"[i]: int(digit) / 9 for i, digit in enumerate(row) if digit != "."} for row in rows]


def test_the_mean_is_over_what_was_scored() -> None:
    assert mean_score({"a": 1.0, "b": 0.0, "c": 0.5}) == 0.5
    assert mean_score({}) == 0.0


def test_a_candidate_that_is_best_somewhere_is_on_the_frontier() -> None:
    # 0 wins a, 1 wins b, 2 wins nothing although its mean (8/9) is above that of 0 (9/18).
    assert pareto_frontier(scores("90", "09", "88")) == [1, 0]


def test_means_order_the_frontier_and_newer_candidates_come_first_where_they_tie() -> None:
    assert pareto_frontier(scores("900", "099")) == [1, 0]
    assert pareto_frontier(scores("09", "90")) == [1, 0]


def test_of_candidates_that_tie_everywhere_the_newest_is_kept() -> None:
    assert pareto_frontier(scores("99", "99", "99")) == [2]


def test_a_candidate_covered_by_a_set_of_others_is_dominated() -> None:
    # 2 ties with 0 on a and with 1 on b; each of those two is alone in winning c or d.
    assert pareto_frontier(scores("9090", "0909", "9900")) == [1, 0]


def test_instances_that_nobody_solves_say_nothing() -> None:
    assert pareto_frontier(scores("000", "000")) == []
    assert pareto_frontier(scores("009", "000")) == [0]


def test_instances_are_compared_among_those_that_were_scored_on_them() -> None:
    assert pareto_frontier(scores("9.", ".5")) == [0, 1]


def test_a_frontier_that_is_too_large_keeps_those_that_win_most() -> None:
    # Wins: 0 two, 1 three, 2 one. Means: 0 2/6, 1 3/6, 2 1/6.
    table = scores("990000", "009990", "000009")
    assert select_population(table, 2) == [1, 0]
    assert select_population(table, 1) == [1]


def test_a_small_frontier_is_padded_with_the_next_best_that_reach_half_of_the_best() -> None:
    # Means: 0 4/4, 1 2/4, 2 1/4. Candidate 1 reaches exactly half, candidate 2 does not.
    table = scores("9999", "9900", "9000")
    assert select_population(table, 2) == [0, 1]
    assert select_population(table, 3) == [0, 1, 0]


def test_candidates_that_tie_everywhere_pad_the_population_newest_first() -> None:
    assert select_population(scores("99", "99", "99"), 2) == [2, 1]
    assert select_population(scores("99", "99"), 5) == [1, 0, 1, 0, 1]


def test_while_nothing_scores_the_newest_stay() -> None:
    assert select_population(scores("00", "00", "0.", ".0"), 3) == [3, 2, 1]


def test_one_candidate_fills_the_population() -> None:
    assert select_population(scores("50"), 3) == [0, 0, 0]


def test_an_empty_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^there is no candidate to select from$"):
        select_population([], 2)


def test_members_of_the_frontier_compete_for_the_places_that_are_not_reserved() -> None:
    # 1 wins three instances, 2 one, although its mean is higher. Beside the reserved one there is room for one of them.
    rows = scores("00009", "44400", "33390")
    assert select_population(rows, 2, reserved=[0]) == [1, 0]
    assert select_population(rows, 3, reserved=[0]) == [2, 1, 0]


def test_reserved_candidates_have_a_place_as_far_as_there_is_room() -> None:
    # 0 and 1 win an instance each; 2 wins nothing and would not be taken.
    rows = scores("900", "090", "100")
    assert select_population(rows, 2) == [1, 0]
    assert select_population(rows, 2, reserved=[2]) == [1, 2]
    assert select_population(rows, 1, reserved=[2, 0]) == [2]
    assert select_population(rows, 3, reserved=[2]) == [1, 0, 2]


def test_the_frontier_is_by_single_rollouts_and_the_order_by_means_over_all() -> None:
    # Each wins an instance; by all its rollouts the older one is the better prompt.
    rows = scores("90", "09")
    assert pareto_frontier(rows) == [1, 0]
    assert pareto_frontier(rows, [0.9, 0.5]) == [0, 1]
    assert select_population(rows, 2, means=[0.9, 0.5]) == [0, 1]
    assert select_population(scores("99", "90"), 2, means=[0.3, 0.5]) == [1, 0]


def test_the_first_place_is_for_a_candidate_that_was_scored_everywhere() -> None:
    # Candidate 1 has the best mean (9/9), on a quarter of the instances.
    rows = scores("9990", "9...", "0990")
    assert select_population(rows, 3) == [0, 1, 2]
    assert select_population(rows, 1) == [0]
    assert select_population(rows, 2, reserved=[1]) == [0, 1]
    assert select_population(rows, 1, reserved=[1]) == [0]
    assert select_population(rows, 2, complete=[False, False, True]) == [2, 1]
    assert select_population(rows, 2, complete=[False, False, False]) == [1, 0]


def test_complete_candidates_that_scored_nothing_lead_nobody() -> None:
    assert select_population(scores("0000", "9..."), 2) == [1, 1]
    assert select_population(scores("0000", "0..."), 1) == [1]


@pytest.mark.parametrize(
    ("hits", "count", "luck"),
    [
        (0, 0, True),
        (0, 7, True),
        (0.7, 7, True),  # a tenth of few
        (0.8, 7, False),
        (1, 7, False),  # with fewer than eight a whole hit is no luck
        (1.8, 8, True),  # a tenth of eight, and one hit more
        (1.9, 8, False),
        (2, 10, True),
        (3, 10, False),
    ],
)
def test_luck_is_one_in_ten_and_one_hit_more_where_there_are_eight(hits: float, count: int, luck: bool) -> None:
    whole, part = divmod(hits, 1)
    rewards = [1.0] * int(whole) + [part] * (part > 0)
    assert is_luck(iter(rewards + [0.0] * (count - len(rewards)))) is luck


@pytest.mark.parametrize(
    ("after", "before", "mean", "error"),
    [
        ([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], 0.5, 0.25),  # differences 1, 1, 0, 0: variance 1/4, over 4
        ([0.0, 3.0], [2.0, 2.0], -0.5, math.sqrt(2.25 / 2)),  # differences -2, 1: variance 9/4, over 2
        ([1.0], [0.25], 0.75, 0.0),
    ],
)
def test_a_paired_gain_is_a_mean_difference_with_its_standard_error(
    after: list[float], before: list[float], mean: float, error: float
) -> None:
    assert paired_gain(after, before) == pytest.approx((mean, error))


def test_a_paired_gain_is_over_the_same_instances() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_gain([1.0, 0.0], [1.0])


def test_a_member_of_the_frontier_has_a_place_however_low_its_mean_is() -> None:
    # Means 18/36 and 1/36: the second could not pad, but nobody else solves the last instance.
    assert select_population(scores("9900", "0001"), 2) == [0, 1]


def test_of_two_that_tie_everywhere_the_one_with_the_better_mean_over_all_rollouts_is_taken() -> None:
    assert select_population(scores("99", "99"), 1, means=[0.9, 0.5]) == [0]


def test_a_win_is_the_best_reward_on_an_instance_however_small_it_is() -> None:
    # Wins: 0 three (with 2/9 each), 1 and 2 one each, with higher means.
    assert select_population(scores("222000", "000800", "000080"), 1) == [0]


def test_an_instance_that_nobody_solves_is_nobody_s_win() -> None:
    # Wins: 0 two, 1 one and five zeros that are the best there is.
    assert select_population(scores("22......", "00800000"), 1, complete=[True, True]) == [0]


def test_candidates_with_as_many_wins_go_by_mean_and_then_by_age() -> None:
    assert select_population(scores("3000", "0900", "0060"), 2) == [1, 2]
    assert select_population(scores("900", "090", "009"), 2) == [2, 1]
