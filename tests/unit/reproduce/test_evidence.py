"""One rule for every verdict, by hand."""

import pytest

from fastslow.measuring.statistics import summarise
from fastslow.reproduce.evidence import differences, judged, number, ratio, together


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1, 0.2, 0.3], "held"),
        ([0.1, 0.2, -0.01], "undecided"),
        ([0.0, 0.2, 0.3], "undecided"),
        ([-0.1, -0.2, -0.3], "did not hold"),
        ([0.0, 0.0, 0.0], "did not hold"),
        ([-0.1, 0.0, -0.2], "did not hold"),
        ([0.1, 0.2], "too few seeds"),
        ([], "too few seeds"),
        # Of nine seeds the bracket leaves out the lowest and the highest.
        ([-1.0, *[0.5] * 8], "held"),
    ],
)
def test_a_verdict_needs_the_whole_bracket_on_one_side(values: list[float], verdict: str) -> None:
    assert judged(summarise(values), above=0.0) == verdict
    assert judged(summarise([-value for value in values]), below=0.0) == verdict
    assert judged(summarise([value + 1 for value in values]), above=1.0) == verdict


def test_a_run_that_never_gets_there_counts() -> None:
    assert [ratio(1.0, 4.0), ratio(None, 4.0), ratio(1.0, None), ratio(None, None)] == [0.25, None, 0.0, None]
    never = summarise([None, 0.5, 0.5])
    assert judged(never, below=1.0) == "undecided" and number(never, 2) == "0.50 (0.50 to never)"
    assert judged(summarise([None, None, None]), below=1.0) == "did not hold"


def test_differences_are_of_the_seeds_that_both_have() -> None:
    found = differences({0: 0.5, 1: 0.75, 2: 1.0}, {1: 0.25, 2: 0.75, 3: 0.0})
    assert (found.count, found.low, found.high) == (2, 0.25, 0.5)


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["held", "held"], "held"),
        (["held", "undecided"], "undecided"),
        (["undecided", "did not hold"], "did not hold"),
        (["held", "not run yet"], "not run yet"),
        (["did not hold", "too few seeds"], "too few seeds"),
    ],
)
def test_a_claim_of_two_parts_is_as_good_as_its_worse_one(parts: list[str], whole: str) -> None:
    assert together(parts) == whole
