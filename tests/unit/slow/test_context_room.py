"""How long a prompt may be, with a tokenizer that makes a token of each character and two of each role."""

from collections.abc import Sequence

import pytest

from fastslow.errors import ConfigError
from fastslow.slow.context_room import ContextRoom
from fastslow.tasks.base import Split, Task
from fastslow.types import Message, Problem, Prompt, Score

SEED = Prompt.from_dict({"system": "be", "tools": "none"})


def encode(messages: Sequence[Message]) -> tuple[int, ...]:
    return tuple(ord(letter) for message in messages for letter in f"##{message['content']}")


class TwoParts(Task):
    """Its prompts have two components, its problems the lengths that it is given."""

    def __init__(self, *lengths: int) -> None:
        self.all = [Problem(f"p{i}", ({"role": "user", "content": "?" * length},)) for i, length in enumerate(lengths)]

    @property
    def seed_prompt(self) -> Prompt:
        return SEED

    def problems(self, split: Split) -> Sequence[Problem]:
        return self.all

    def score(self, problem: Problem, completion: str) -> Score:
        return Score(0.0)

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        parts = prompt.as_dict()
        return ({"role": "system", "content": f"{parts['system']} {parts['tools']}"}, *problem.messages)


def room_of(*lengths: int, limit: int | None = 50, max_tokens: int = 10) -> ContextRoom:
    task = TwoParts(*lengths)
    return ContextRoom(encode, task, limit, max_tokens, [("train", problem) for problem in task.all])


def test_a_prompt_may_fill_what_the_longest_problem_and_a_completion_leave_and_no_more() -> None:
    room = room_of(3, 12, 5)
    # 50 positions less 10 of completion, 4 of markup, 12 of the problem, and the blank: 23 for both components.
    assert room.longest == 23
    assert room.max_chars(SEED, "system") == 23 - len("none")
    assert room.max_chars(SEED, "tools") == 23 - len("be")
    assert room.refusal(SEED.replace("system", "x" * 19)) is None
    assert room.refusal(SEED.replace("system", "x" * 20)) == (
        "the prompt is 1 tokens too long for the model: with problem 'p1', 10 tokens after a context of 41 exceed the "
        "model's 50 positions"
    )


def test_a_problem_that_no_prompt_could_serve_is_no_prompts_fault_but_the_tasks() -> None:
    room = room_of(12, 30)
    assert room.refusal(SEED) is None
    assert room.max_chars(SEED, "system") == 19
    with pytest.raises(
        ConfigError, match=r"1 of 2 .* 'p1' of the train split, is 1 tokens too long.*max_tokens to 9, "
    ):
        room.check_problems("the seed prompt", SEED)
    room_of(12, 29).check_problems("the seed prompt", SEED)


@pytest.mark.parametrize("room", [room_of(3, limit=None), room_of(100)], ids=["no limit", "nothing fits"])
def test_where_nothing_is_known_nothing_is_refused(room: ContextRoom) -> None:
    assert room.refusal(SEED.replace("system", "x" * 1000)) is None
    assert room.max_chars(SEED, "system") is None


def test_other_components_that_take_everything_leave_nothing() -> None:
    assert room_of(12).max_chars(SEED.replace("tools", "x" * 60), "system") == 0
