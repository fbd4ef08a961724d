"""TRL-style reward functions: the calling convention, the sum, and what breaks."""

import asyncio

import pytest

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.base import ScoringFailure
from fastslow.tasks.reward_functions import RewardFunctions
from fastslow.types import Score


def length(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def matches(prompts, completions, answer):
    return [1.0 if completion == a else 0.0 for completion, a in zip(completions, answer, strict=True)]


def score(functions, completions, answer=None, **options):
    names = {f"module:{function.__name__}": function for function in functions}
    columns = {"answer": answer or ["a"] * len(completions)}
    return RewardFunctions(names, **options).score(["q"] * len(completions), completions, columns)


def test_rewards_are_summed_with_weights_and_mapped_from_their_range():
    # 2 * matches + 0.5 * length of "a": 2.5; of "bb": 1.0; the range is 0 to 5.
    got = score([matches, length], ["a", "bb"], weights=[2.0, 0.5], reward_range=[0, 5])
    assert got == [Score(0.5, "matches: 1\nlength: 1"), Score(0.2, "matches: 0\nlength: 2")]


def test_a_function_may_say_why():
    def says(completions, **kwargs):
        return [(1.0, "Good."), Score(0.5, "Add a unit.\nIt is cm."), (0.0, None), None][: len(completions)]

    got = score([says, matches], ["a", "b", "a", "a"], reward_range=[0, 2])
    assert [each.feedback for each in got] == [
        "Good.\nsays: 1\nmatches: "
        "1", "Add a unit.\nIt is cm.\nsays: 0.5\nmatches: 0", "says: 0\nmatches: 1", "matches: 1",
    ]  # fmt: skip
    assert [each.reward for each in got] == [1.0, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("value", [(1.0, 3), ("x", "Good."), (1.0, "a", "b"), (None, 3, 4)])
def test_what_is_no_reward_with_words_is_said(value):
    def odd(completions, **kwargs):
        return [value]

    with pytest.raises(TaskError, match="reward_functions: 'module:odd' returned the"):
        score([odd], ["a"])


def test_a_negative_range_is_mapped_too():
    def signed(completions, **kwargs):
        return [-1.0, 0.0, 1.0]

    assert [s.reward for s in score([signed], ["x"] * 3, reward_range=[-1, 1])] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("value", [1.5, -0.5])
def test_a_reward_out_of_range_raises_and_is_not_clipped(value):
    def off(completions, **kwargs):
        return [value for _ in completions]

    with pytest.raises(
        TaskError, match=rf"reward_range: the reward functions gave {value} \(off: {value}\), outside \[0, 1\]"
    ):
        score([off], ["x"])


def test_none_does_not_apply():
    def sometimes(completions, **kwargs):
        return [None if completion == "a" else 0.25 for completion in completions]

    assert score([sometimes, matches], ["a", "b"]) == [
        Score(1.0, "matches: 1"),
        Score(0.25, "sometimes: 0.25\nmatches: 0"),
    ]
    assert score([sometimes], ["a", "b"]) == [
        ScoringFailure("every reward function returned None for this completion"),
        Score(0.25, "sometimes: 0.25"),
    ]


def test_one_bad_row_costs_one_rollout():
    def fragile(completions, **kwargs):
        if "bad" in completions:
            raise KeyError("bad")
        return [1.0 for _ in completions]

    got = score([fragile], ["a", "bad", "b"])
    assert got == [Score(1.0, "fragile: 1"), ScoringFailure("KeyError: 'bad'"), Score(1.0, "fragile: 1")]


def test_a_failure_of_one_function_masks_the_rollout_whatever_the_others_say():
    def fragile(completions, **kwargs):
        raise RuntimeError("down")

    assert score([matches, fragile], ["a"]) == [ScoringFailure("RuntimeError: down")]


def test_a_server_that_is_down_is_not_asked_for_every_row():
    calls = []

    def down(completions, **kwargs):
        calls.append(len(completions))
        raise ConnectionError("refused")

    assert score([down], ["x"] * 50) == [ScoringFailure("ConnectionError: refused")] * 50
    assert calls == [50, 1, 1, 1]


def test_async_functions_with_and_without_a_running_loop():
    async def slow(completions, **kwargs):
        await asyncio.sleep(0)
        return [0.5 for _ in completions]

    async def from_a_notebook():
        return score([slow], ["x"])

    assert score([slow], ["x"]) == [Score(0.5, "slow: 0.5")]
    assert asyncio.run(from_a_notebook()) == [Score(0.5, "slow: 0.5")]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "returned 1 rewards for 2 completions"),
        (0.5, "returned 0.5 for 2 completions"),
        (None, "returned None for 2 completions"),
        (["good", 1.0], "returned the reward 'good': a number, .number, text."),
        ([float("nan"), 1.0], "returned the reward nan"),
        ([float("inf"), 1.0], "returned the reward inf"),
        ("10", "returned '10' for 2 completions"),
        (b"10", "returned b'10' for 2 completions"),
        ({0: 1.0, 1: 0.0}, r"returned \{0: 1.0, 1: 0.0\} for 2 completions"),
        ({0.0, 1.0}, r"returned \{0.0, 1.0\} for 2 completions"),
        (["1", "0"], "returned the reward '1': a number, .number, text."),
        ([[1.0], [0.0]], r"returned the reward \[1.0\]"),
        ([1j, 0.0], "returned the reward 1j"),
        ([1.0, 0.0, 1.0], "returned 3 rewards for 2 completions"),
    ],
)
def test_what_a_function_may_not_return(returned, message):
    def odd(completions, **kwargs):
        return returned

    with pytest.raises(TaskError, match=f"reward_functions: 'module:odd' {message}"):
        score([odd], ["x", "y"])


def test_numbers_of_other_libraries_are_numbers():
    import numpy as np

    def array(completions, **kwargs):
        return np.array([0.5, 1.0])

    assert [s.reward for s in score([array], ["x", "y"])] == [0.5, 1.0]

    def scalars(completions, **kwargs):
        return (np.float32(0.5), np.bool_(True))

    assert [s.reward for s in score([scalars], ["x", "y"])] == [0.5, 1.0]

    def column(completions, **kwargs):
        return np.array([[0.5], [1.0]])

    with pytest.raises(TaskError, match=r"returned the reward array\(\[0.5\]\)"):
        score([column], ["x", "y"])


def test_options_that_do_not_fit():
    with pytest.raises(ConfigError, match="has 1 weights for 2 reward_functions"):
        RewardFunctions({"m:a": length, "m:b": matches}, weights=[1.0])


@pytest.mark.parametrize("bad", [[1.0, 0.0], [0.0], [0.0, 0.0]])
def test_a_range_that_is_none_is_refused(bad):
    with pytest.raises(ConfigError, match=r"must be \[low, high\] with low < high"):
        RewardFunctions({"m:a": length}, reward_range=bad)


def test_a_column_that_is_missing_is_named():
    functions = RewardFunctions({"m:matches": matches})
    functions.check_columns(["answer"])
    with pytest.raises(ConfigError, match="'m:matches' asks for 'answer', the records have question, solution"):
        functions.check_columns(["solution", "question"])
