"""By hand: what a population must keep where problems are of several kinds."""

import random
from typing import Any, cast

from fastslow.fast.gepa.adapter import CycleAdapter
from fastslow.fast.gepa.kinds import Kinds
from fastslow.types import Problem, Prompt

A, B, C = Prompt.of("a"), Prompt.of("b"), Prompt.of("c")


def kinds_over(*names: str) -> Kinds:
    """Anchors p0, p1, ... of the kinds with these names. Nothing here asks the policy or the proposer."""
    anchors = [Problem(f"p{index}", (), kind=name) for index, name in enumerate(names)]
    nobody = cast(Any, None)
    return Kinds(CycleAdapter(nobody, nobody, anchors, 100, 0), 2, random.Random(0))


def scores(row: str) -> dict[str, float]:
    """Rewards in tenths on p0, p1, ...; a dot is an anchor not scored."""
    return {f"p{index}": int(digit) / 10 for index, digit in enumerate(row) if digit != "."}


def test_the_best_prompt_for_each_kind_has_a_place_the_better_kind_first() -> None:
    kinds = kinds_over("n", "n", "s", "s")
    pool = [(A, scores("8800")), (B, scores("9800")), (C, scores("0066"))]
    assert kinds.reserved(pool) == [1, 2]
    assert kinds.best([A, B, C], pool) == {"n": B, "s": C}
    assert not kinds.neglected(pool)


def test_a_prompt_that_is_best_for_every_kind_takes_one_place() -> None:
    pool = [(A, scores("5555")), (B, scores("9999"))]
    assert kinds_over("n", "n", "s", "s").reserved(pool) == [1]


def test_a_kind_that_nothing_serves_keeps_the_newest_edit_of_its_search_last() -> None:
    kinds = kinds_over("n", "n", "s", "s")
    pool = [(A, scores("9900")), (B, scores("0000")), (C, scores("..00"))]
    assert kinds.neglected(pool)
    assert kinds.reserved(pool) == [0]
    kinds.heads["s"] = C
    assert kinds.reserved(pool) == [0, 2]
    # Of prompts that serve a kind equally badly the first counts as the best for it.
    assert kinds.best([A, C], pool) == {"n": A, "s": A}


def test_scores_on_one_kind_are_compared_as_if_the_others_were_zero() -> None:
    kinds = kinds_over("n", "n", "s", "s")
    assert kinds.comparable(scores("..9.")) == scores("009.")
    assert kinds.comparable(scores("9080")) == scores("9080")
    assert kinds.comparable({}) == {}
    assert kinds_over("", "").comparable(scores("9.")) == scores("9.")


def test_with_one_kind_nothing_is_reserved() -> None:
    kinds = kinds_over("", "")
    pool = [(A, scores("99")), (B, scores("00"))]
    assert kinds.reserved(pool) == []
    assert kinds.best([A, B], pool) == {}
    assert not kinds.neglected([(B, scores("00"))])


def test_minibatches_are_of_one_kind_and_kinds_take_turns() -> None:
    kinds = kinds_over("s", "n", "s", "n", "s")

    class State:
        """Nothing scores: the parent is the prompt with the fewest complaints, here the only one."""

        program_candidates = (A.as_dict(),)
        prog_candidate_val_subscores = (dict.fromkeys(range(5), 0.0),)

    kinds.heads = {"n": A, "s": A}
    parents, batches = zip(*[kinds.draw(cast(Any, State)) for _ in range(4)], strict=True)
    assert parents == (0, 0, 0, 0)
    assert [{position % 2 for position in batch} for batch in batches] == [{1}, {0}, {1}, {0}]
    assert all(len(set(batch)) == 2 for batch in batches)


def test_the_best_for_a_kind_was_scored_on_all_of_its_anchors() -> None:
    kinds = kinds_over("n", "n", "s", "s")
    pool = [(A, scores("5500")), (B, scores("9.00")), (C, scores("..9."))]
    assert kinds.reserved(pool) == [2, 0]
    # Those that were scored on all anchors of s scored nothing there.
    assert kinds.best([B, A, C], pool) == {"n": A, "s": C}
