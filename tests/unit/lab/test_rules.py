"""The rules of the lab: what they do, that answers can be taken apart again, what the verifier says of wrong ones."""

import itertools
import random

import pytest

from fastslow.errors import TaskError
from fastslow.lab import rules
from fastslow.lab.corpus import draw_habit, draw_stated
from fastslow.lab.tasks import HELD_OUT, LONGEST, SHORTEST, WORLDS, LabTask, draw_items, is_held_out, right_prompts
from fastslow.tasks.base import SPLITS, check_splits

ITEMS = tuple("3b3a071")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "3 b 3 a 0 7 1"),
        (("digits_only",), "3 3 0 7 1"),
        (("dedup",), "3 b a 0 7 1"),
        (("drop_small",), "b a 7"),
        (("drop_first",), "b 3 a 0 7 1"),
        (("add_one",), "4 b 4 a 1 8 2"),
        (("capitals",), "3 B 3 A 0 7 1"),
        (("ascending",), "0 1 3 3 7 a b"),
        (("descending",), "b a 7 3 3 1 0"),
        (("reverse",), "1 7 0 a 3 b 3"),
        (("long_reverse",), "1 7 0 a 3 b 3"),
        (("swap_ends",), "1 b 3 a 0 7 3"),
        (("repeat_last",), "3 b 3 a 0 7 1 1"),
        (("commas",), "3 , b , 3 , a , 0 , 7 , 1"),
        (("brackets",), "[ 3 b 3 a 0 7 1 ]"),
        (("count",), "3 b 3 a 0 7 1 = 7"),
        (("tags",), "<answer> 3 b 3 a 0 7 1 </answer>"),
        (("star",), "3 b 3 a 0 7 1 *"),
        (("result",), "result : 3 b 3 a 0 7 1"),
        (("done",), "3 b 3 a 0 7 1 done"),
        (("dedup", "descending", "tags", "commas"), "<answer> b , a , 7 , 3 , 1 , 0 </answer>"),
        (("drop_first", "brackets", "count", "done", "star", "result"), "result : [ b 3 a 0 7 1 ] = 6 * done"),
    ],
)
def test_each_rule_by_hand(names: tuple[str, ...], expected: str) -> None:
    assert " ".join(rules.answer(ITEMS, names)) == expected


def test_conditions_look_at_the_input() -> None:
    assert rules.answer("12345", ["long_reverse"]) == tuple("12345")
    assert rules.answer("123456", ["long_reverse"]) == tuple("654321")
    assert rules.answer("12", ["star"]) == tuple("12")
    assert rules.answer(["9"], ["add_one"]) == ("0",)


def test_an_answer_can_be_taken_apart_again() -> None:
    rng = random.Random(0)
    for _ in range(500):
        items, chosen = draw_items(rng), draw_stated(rng)
        inner, shown = rules.undress(rules.answer(items, chosen))
        formats = {name for name in chosen if name in rules.FORMAT_NAMES}
        assert inner == rules.operate(items, chosen)
        if "star" in formats and not set(items) & set(rules.LETTERS):
            formats.remove("star")
        assert shown - {"commas"} == formats - {"commas"}


def test_the_verifier_finds_nothing_in_the_right_answer_and_something_in_any_other() -> None:
    rng = random.Random(1)
    for _ in range(500):
        items, hidden, other = draw_items(rng), draw_stated(rng), draw_stated(rng)
        right, tried = rules.answer(items, hidden), rules.answer(items, other)
        assert rules.findings(items, right, hidden) == ([], False)
        broken, extra = rules.findings(items, tried, hidden)
        assert bool(broken or extra) == (tried != right)
        assert set(broken) <= hidden


def test_the_verifier_names_exactly_the_rule_that_is_missing() -> None:
    rng = random.Random(2)
    named = 0
    for world in WORLDS.values():
        for hidden, left_out in ((h, name) for h in world.slices.values() for name in sorted(h)):
            for _ in range(20):
                items = draw_items(rng)
                tried = rules.answer(items, hidden - {left_out})
                if tried != rules.answer(items, hidden):
                    broken, extra = rules.findings(items, tried, hidden)
                    assert broken == [left_out], (world.name, items, left_out)
                    assert not extra
                    named += 1
    assert named > 300


def test_the_verifier_says_when_something_was_done_that_nobody_asked_for() -> None:
    assert rules.findings("1234", ("9", "result"), frozenset({"reverse"}))[0] == ["reverse"]
    assert rules.findings("1234", ["4", "3", "2", "1", "done"], frozenset({"reverse"})) == ([], True)
    assert rules.findings("1224", ["4", "2", "1"], frozenset({"reverse"})) == ([], True)


def test_feedback_names_one_thing_in_one_line_and_is_the_same_every_time() -> None:
    task = LabTask("amber")
    problem = task.problems("train")[0]
    score = task.score(problem, "nonsense")
    assert score == task.score(problem, "nonsense")
    assert score.reward == 0.0
    assert score.feedback in {rules.RULES[name].verdict for name in task.world.slices[""]}
    right = " ".join(rules.answer(problem.data["items"], task.world.slices[""]))
    assert task.score(problem, f"  {right}\n").reward == 1.0
    assert task.score(problem, f"{right} done").feedback == rules.NOTHING_ELSE_VERDICT


def test_half_of_the_verdicts_are_in_words_that_pretraining_never_saw() -> None:
    known = {sentence for rule in rules.RULES.values() for sentence in rule.sentences}
    unseen = [rule for rule in rules.RULES.values() if rule.verdict not in known]
    assert 0.4 <= len(unseen) / len(rules.RULES) <= 0.6
    for world in WORLDS.values():
        verdicts = [rules.RULES[name].verdict for hidden in world.slices.values() for name in hidden]
        assert len(set(verdicts)) == len({name for hidden in world.slices.values() for name in hidden})


def test_pretraining_never_sees_a_tasks_rule_set_stated_or_by_habit() -> None:
    rng = random.Random(3)
    for _ in range(20000):
        stated = draw_stated(rng)
        assert not is_held_out(stated)
        assert not is_held_out(stated | draw_habit(rng, stated))


def test_without_the_exclusion_pretraining_would_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.lab.corpus.is_held_out", lambda names: False)
    rng = random.Random(3)
    drawn = [draw_habit(rng, frozenset()) for _ in range(20000)]
    assert sum(hidden <= chosen for hidden, chosen in itertools.product(HELD_OUT, drawn)) > 100


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_is_a_task_with_disjoint_splits_and_right_answers(name: str) -> None:
    task = LabTask(name, train=200, validation=40, test=40)
    assert check_splits(task) == {"train": 200, "validation": 40, "test": 40}
    for split in SPLITS:
        for problem in task.problems(split):
            items = problem.data["items"]
            assert SHORTEST <= len(items) <= LONGEST
            right = rules.answer(items, task.world.slices[problem.kind])
            assert task.score(problem, " ".join(right)).reward == 1.0
    assert set(right_prompts(task.world)) == set(task.world.slices)


def test_splits_stay_the_same_when_training_grows_and_seeds_differ() -> None:
    small, large, other = LabTask("elm", train=50), LabTask("elm", train=500), LabTask("elm", seed=1)
    assert small.problems("test") == large.problems("test")
    assert {p.id for p in small.problems("test")} != {p.id for p in other.problems("test")}


def test_slices_take_turns_and_say_their_word() -> None:
    task = LabTask("hazel", train=8)
    assert [problem.kind for problem in task.problems("train")] == ["north", "south"] * 4
    assert task.problems("train")[0].messages[0]["content"].startswith("north : ")


def test_an_unknown_world_is_named() -> None:
    with pytest.raises(TaskError, match=r"task\.options\.world: 'oak' is unknown.*amber"):
        LabTask("oak")
