"""The family tree of prompts: parents, loops, repeated scores, and what changed."""

from collections.abc import Sequence
from typing import Any

import pytest

from fastslow.runs.family import Member, changes, difference, edits, family, roots, scores_by_cycle, word_edits


def line(hash_: str, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    record = {
        "hash": hash_, "parent": parent, "cycle": 1, "components": {"system": text}, "accepted": False, "reason": "r",
        "mean": None, "scores": {}, "feedback": [],
    }  # fmt: skip
    return record | more


def shape(members: Sequence[Member]) -> list[Any]:
    return [(member.hash, shape(member.children)) for member in members]


def family_tree(lines: list[Any]) -> list[Member]:
    return roots(family(lines))


def test_children_hang_below_their_parents_in_order() -> None:
    lines = [line("a", None, "x"), line("b", "a", "x\ny"), line("c", "b", "y"), line("d", "a", "z")]
    assert shape(family_tree(lines)) == [("a", [("b", [("c", [])]), ("d", [])])]
    (root,) = family_tree(lines)
    assert root.changes == ()
    assert root.children[0].changes == (("+", "y"),)
    assert root.children[0].children[0].changes == (("-", "x"),)
    assert root.children[1].changes == (("-", "x"), ("+", "z"))


def test_a_prompt_that_is_scored_again_stands_once_with_its_last_score() -> None:
    lines = [
        line("a", None, "x", mean=0.1),
        line("b", "a", "y", accepted=True, mean=0.5, scores={"p": 0.5}),
        line("b", None, "y", cycle=2, mean=0.7, scores={"p": 0.7}),
    ]
    assert shape(family_tree(lines)) == [("a", [("b", [])])]
    child = family_tree(lines)[0].children[0]
    assert (child.mean, child.scores, child.accepted, child.cycle) == (0.7, {"p": 0.7}, True, 1)
    assert [(event.cycle, event.mean, event.count) for event in child.events] == [(1, 0.5, 1), (2, 0.7, 1)]


def test_a_prompt_that_comes_back_to_its_ancestor_closes_no_loop() -> None:
    lines = [line("a", None, "x"), line("b", "a", "y"), line("a", "b", "x"), line("c", "unknown", "z")]
    assert shape(family_tree(lines)) == [("a", [("b", [])]), ("c", [])]


def test_changes_are_told_component_by_component() -> None:
    before, after = {"system": "a\nb\nc", "tool": "t"}, {"system": "a\nB\nc\nd", "tool": "t"}
    assert changes(before, after) == (("-", "b"), ("+", "B"), ("+", "d"))


def test_what_is_said_again_is_counted() -> None:
    (member,) = family([line("a", None, "x"), line("a", None, "x"), line("a", None, "x", reason="other")])
    assert [(event.reason, event.count) for event in member.events] == [("r", 2), ("other", 1)]


def test_a_parent_that_is_found_later_stands_before_its_child() -> None:
    """A prompt of the population that a later search arrives at again, from another one."""
    lines = [line("b", None, "y"), line("a", None, "x"), line("b", "a", "y", cycle=2, feedback=["f"])]
    members = family(lines)
    assert [(member.hash, member.parent) for member in members] == [("a", None), ("b", "a")]
    assert (members[1].cycle, members[1].feedback) == (2, ["f"])


def test_two_prompts_that_name_each_other_as_parents_close_no_loop() -> None:
    assert shape(family_tree([line("b", "a", "y"), line("a", "b", "x")])) == [("a", [("b", [])])]


def test_lines_that_stayed_are_told_as_well() -> None:
    assert difference(["a", "b"], ["a", "c"]) == [(" ", "a"), ("-", "b"), ("+", "c")]


def test_no_prompts_make_no_tree() -> None:
    assert family_tree([]) == []


@pytest.mark.parametrize("verdicts", [(False, True), (True, False)])
def test_a_prompt_is_accepted_once_a_cycle_has_accepted_it(verdicts: tuple[bool, bool]) -> None:
    (root,) = family_tree([line("a", None, "x", accepted=verdict) for verdict in verdicts])
    assert root.accepted is True


def test_a_prompt_that_no_cycle_has_accepted_is_not() -> None:
    (root,) = family_tree([line("a", None, "x"), line("a", None, "x")])
    assert root.accepted is False


def test_a_prompt_that_was_there_before_is_adopted_by_whoever_leads_to_it() -> None:
    lines = [line("a", None, "x"), line("b", None, "y", mean=0.5, reason="seed")]
    lines.append(line("b", "a", "y", cycle=3, reason="better", feedback=["Do it."]))
    (root,) = family_tree(lines)
    (child,) = root.children
    assert root.hash == "a"
    assert (child.hash, child.parent, child.cycle, child.reason) == ("b", "a", 3, "better")
    assert (child.feedback, child.mean) == (["Do it."], 0.5)
    assert child.changes == (("-", "x"), ("+", "y"))


def test_of_two_parents_the_first_has_the_child() -> None:
    lines = [line("a", None, "x"), line("b", None, "y"), line("c", "a", "z"), line("c", "b", "z", cycle=2, reason="s")]
    assert shape(family_tree(lines)) == [("a", [("c", [])]), ("b", [])]
    assert family_tree(lines)[0].children[0].cycle == 1


def test_a_parent_that_is_not_in_the_file_is_no_parent() -> None:
    (root,) = family_tree([line("a", None, "x"), line("a", "unknown", "x")])
    assert root.parent is None
    assert root.changes == ()


def test_a_component_that_comes_or_goes_is_all_change() -> None:
    assert changes({"system": "a", "old": "b\nc"}, {"system": "a", "new": "d"}) == (("-", "b"), ("-", "c"), ("+", "d"))


def test_a_line_that_stands_very_often_is_still_a_line() -> None:
    filler = "\n" * 300
    assert changes({"system": f"a{filler}"}, {"system": f"b{filler}"}) == (("-", "a"), ("+", "b"))


def test_scores_stand_by_cycle_and_prompt_and_unscored_prompts_have_none() -> None:
    lines: list[Any] = [
        line("a", None, "x", scores={"p": 0.5}),
        line("b", "a", "y"),
        line("b", "a", "y", scores={"p": 1.0}),
        line("a", None, "x", cycle=2, scores={"p": 0.0, "q": 1.0}),
    ]
    assert scores_by_cycle(lines) == {1: {"a": {"p": 0.5}, "b": {"p": 1.0}}, 2: {"a": {"p": 0.0, "q": 1.0}}}
    assert scores_by_cycle([]) == {}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a b c", "a x c", [(2, 3, 2, 3)]),
        ("Sort them down.", "Sort them up, please.", [(10, 15, 10, 21)]),
        ("a \U0001f600 c", "a \U0001f600 d", [(4, 5, 4, 5)]),
        ("a b", "b", [(0, 2, 0, 0)]),
        ("same", "same", []),
        ("a b", "c d", None),
        ("", "x", None),
    ],
)
def test_what_changed_within_a_line(before: str, after: str, expected: list[tuple[int, ...]] | None) -> None:
    assert word_edits(before, after) == expected


@pytest.mark.parametrize(
    ("before", "after"), [("a|b|c", "a|x|y|c"), ("", "a"), ("a", ""), ("a|b", "b|a"), ("a|a|b", "a|b|b"), ("x", "x")]
)
def test_edits_turn_one_into_the_other(before: str, after: str) -> None:
    old, new = before.split("|"), after.split("|")
    found, done = [], 0
    for start, end, first, last in edits(old, new):
        assert old[start:end] != new[first:last]
        found += [*old[done:start], *new[first:last]]
        done = end
    assert [*found, *old[done:]] == new


def test_what_was_said_of_a_prompt_first_stays_and_what_comes_later_fills_gaps() -> None:
    lines = [
        line("a", None, "x", reason="seed"),
        line("a", None, "x", feedback=["f"], accepted=True),
        line("a", None, "x", feedback=["g"], mean=0.5),
    ]
    (member,) = family(lines)
    assert (member.reason, member.feedback, member.accepted) == ("seed", ["f"], True)
    assert [event.accepted for event in member.events] == [False, True, False]


def test_a_parent_that_is_its_own_descendant_is_none() -> None:
    members = family([line("a", None, "x"), line("b", "a", "y"), line("a", "b", "x"), line("c", "c", "z")])
    assert {member.hash: member.parent for member in members} == {"a": None, "b": "a", "c": None}
