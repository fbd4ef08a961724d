"""Which prompts each problem is dealt: all equally often, M different ones, from seed and number alone."""

from collections import Counter

import pytest

from fastslow.rollouts.dealing import dealt

CASES = [(4, 1), (4, 2), (4, 3), (8, 2), (5, 3), (3, 3), (1, 1)]


@pytest.mark.parametrize(("size", "each"), CASES)
def test_members_are_dealt_equally_often_at_every_moment(size: int, each: int) -> None:
    hands = dealt(range(size), each, 0, 60, seed=1)
    counts = Counter({place: 0 for place in range(size)})
    for hand in hands:
        assert len(set(hand)) == each and hand == sorted(hand)
        counts.update(hand)
        assert max(counts.values()) - min(counts.values()) <= 1
    if each < size:
        assert len({tuple(hand) for hand in hands}) >= size, "who meets whom changes"


def test_a_step_is_dealt_what_the_whole_run_is_dealt_there() -> None:
    whole = dealt("abcd", 3, 0, 12, seed=7)
    assert whole == [hand for first in range(0, 12, 3) for hand in dealt("abcd", 3, first, 3, seed=7)]
    assert whole != dealt("abcd", 3, 0, 12, seed=8)


def test_all_of_them_stand_in_the_order_of_the_population() -> None:
    assert dealt("zya", 3, 5, 2, seed=3) == [["z", "y", "a"]] * 2


@pytest.mark.parametrize("each", [0, 3])
def test_more_than_there_are_cannot_be_dealt(each: int) -> None:
    with pytest.raises(ValueError, match=f"{each} of 2 prompts cannot be dealt"):
        dealt("ab", each, 0, 1, seed=0)
