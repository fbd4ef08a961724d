"""What the base class does for every task."""

import pytest

from fastslow.errors import TaskError
from fastslow.tasks.base import ScoringFailure, Task, check_splits, reference_of, with_system_prompt
from fastslow.types import Problem, Prompt, Score


class Fixed(Task):
    """Scores are looked up by completion; an exception is raised."""

    name = "fixed"

    def __init__(self, scores=None, splits=None):
        self.scores, self.splits = scores or {}, splits or {}

    def problems(self, split):
        return [Problem(id, ({"role": "user", "content": id},)) for id in self.splits.get(split, ())]

    def score(self, problem, completion):
        value = self.scores[completion]
        if isinstance(value, Exception):
            raise value
        return value


class ToolTask(Fixed):
    """A task that names a second component and places it itself."""

    @property
    def seed_prompt(self):
        return Prompt.from_dict({"system": "Be brief.", "tool": "search(query): looks things up."})

    def messages(self, problem, prompt):
        parts = prompt.as_dict()
        return with_system_prompt(problem.messages, f"{parts['system']}\n\nTools:\n{parts['tool']}")


PROBLEM = Problem("p", ({"role": "user", "content": "q"},))


def test_a_broken_scorer_masks_its_rollout_and_no_other():
    task = Fixed({"a": Score(0.0, "wrong"), "b": RuntimeError("the sandbox is down"), "c": Score(1.0)})
    assert task.score_batch([PROBLEM] * 3, ["a", "b", "c"]) == [
        Score(0.0, "wrong"),
        ScoringFailure("RuntimeError: the sandbox is down"),
        Score(1.0),
    ]


@pytest.mark.parametrize(
    ("data", "reference"),
    [
        ({"answer": 4}, "4"),
        ({"reference": "four", "answer": 4}, "four"),
        ({"answer": [4]}, None),
        ({"answer": True}, None),
    ],
)
def test_a_task_tells_the_reference_answer_that_its_problem_holds(data, reference):
    problem = Problem("p", PROBLEM.messages, data)
    assert reference_of(Fixed(), problem) == reference
    assert reference_of(Fixed().with_seed_prompt(Prompt.of("Be brief.")), problem) == reference


def test_a_reference_that_breaks_or_is_long_costs_nothing():
    class Odd(Fixed):
        def reference(self, problem):
            return problem.data["missing"] if problem.id == "p" else "\ud800" + "x" * 9000

    assert reference_of(Odd(), PROBLEM) is None
    long = reference_of(Odd(), Problem("q", PROBLEM.messages))
    assert len(long) <= 2000 and long.encode()


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan")])
def test_a_reward_outside_0_and_1_raises(reward):
    with pytest.raises(TaskError, match=r"reward .* for problem 'p': rewards lie in \[0, 1\]"):
        Fixed({"a": Score(reward)}).score_batch([PROBLEM], ["a"])


def test_a_score_that_is_no_score_raises():
    with pytest.raises(TaskError, match=r"returned 0\.5 for problem 'p': return a fastslow\.Score"):
        Fixed({"a": 0.5}).score_batch([PROBLEM], ["a"])


def test_the_prompt_is_merged_into_a_system_message_never_stacked():
    user = {"role": "user", "content": "q"}
    own = {"role": "system", "content": "Own."}
    assert with_system_prompt([user], "Evolved.") == ({"role": "system", "content": "Evolved."}, user)
    assert with_system_prompt([own, user], "Evolved.") == ({"role": "system", "content": "Evolved.\n\nOwn."}, user)
    assert with_system_prompt([own, user], "") == (own, user)
    assert own == {"role": "system", "content": "Own."}


def test_another_seed_prompt_leaves_the_task_as_it_was():
    task = Fixed({"a": Score(1.0)}, {"train": ["1"]})
    seeded = task.with_seed_prompt(Prompt.of("Think hard."))
    assert seeded.seed_prompt == Prompt.of("Think hard.")
    assert task.seed_prompt == Prompt.of("You are a helpful assistant.")
    assert (seeded.name, type(task)) == ("fixed", Fixed)
    assert seeded.problems("train") == task.problems("train")
    assert seeded.score(PROBLEM, "a") == Score(1.0)
    assert seeded.score_batch([PROBLEM], ["a"]) == [Score(1.0)]
    assert seeded.with_seed_prompt(Prompt.of("Again.")).seed_prompt == Prompt.of("Again.")


def test_a_task_with_several_components_places_them_itself():
    task = ToolTask()
    changed = task.seed_prompt.replace("tool", "search(query): use it twice.")
    system = "Be brief.\n\nTools:\nsearch(query): use it twice."
    expected = ({"role": "system", "content": system}, *PROBLEM.messages)
    assert task.messages(PROBLEM, changed) == expected
    assert task.with_seed_prompt(changed).messages(PROBLEM, changed) == expected


def test_a_seed_prompt_must_have_the_tasks_components():
    with pytest.raises(TaskError, match=r"components \['system'\], those of task 'fixed' are \['system', 'tool'\]"):
        ToolTask().with_seed_prompt(Prompt.of("x"))


def test_check_splits():
    assert check_splits(Fixed(splits={"train": "ab", "validation": "c"})) == {"train": 2, "validation": 1, "test": 0}
    with pytest.raises(TaskError, match="'a' stands in 'train' and in 'test': splits must be disjoint"):
        check_splits(Fixed(splits={"train": "ab", "validation": "c", "test": "a"}))
    with pytest.raises(TaskError, match="'a' stands twice in 'train'"):
        check_splits(Fixed(splits={"train": "aa", "validation": "c"}))
    with pytest.raises(TaskError, match="has no validation problems"):
        check_splits(Fixed(splits={"train": "ab"}))


def test_rewards_of_other_libraries_become_numbers_and_texts_do_not():
    import numpy as np

    (score,) = Fixed({"a": Score(np.float32(0.5), "x")}).score_batch([PROBLEM], ["a"])
    assert (type(score.reward), score) == (float, Score(0.5, "x"))
    with pytest.raises(TaskError, match=r"returned reward array\(\[0.5\]\) for problem 'p': a number is needed"):
        Fixed({"a": Score(np.array([0.5]))}).score_batch([PROBLEM], ["a"])


@pytest.mark.parametrize("reward", ["0.5", None, [0.5], 1j])
def test_a_reward_that_is_no_number_is_named(reward):
    with pytest.raises(TaskError, match=r"returned reward .* for problem 'p': a number is needed"):
        Fixed({"a": Score(reward)}).score_batch([PROBLEM], ["a"])


def test_feedback_that_is_no_text_is_named():
    with pytest.raises(TaskError, match="feedback for problem 'p' is None: a text is needed"):
        Fixed({"a": Score(0.5, None)}).score_batch([PROBLEM], ["a"])
