"""How long a prompt may be, with a tokenizer that makes a token of each character and two of each role."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from fastslow.errors import ConfigError
from fastslow.slow.context_room import ContextRoom
from fastslow.tasks.base import EpisodeTask, Split, Task
from fastslow.types import Message, Problem, Prompt, Score, Tool

SEED = Prompt.from_dict({"system": "be", "tools": "none"})


def encode(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
    shown = "".join(json.dumps(tool) for tool in tools)
    return tuple(ord(letter) for text in (*(f"##{m['content']}" for m in messages), shown) for letter in text)


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


# -- tools -------------------------------------------------------------------------------------------------------------


class Armed(TwoParts, EpisodeTask):
    """Its episodes have one tool, which the component `tools` describes. Those of the kind "broken" cannot be made."""

    made: tuple[Any, ...] = ()

    def episode(self, problem: Problem, prompt: Prompt) -> Any:
        if problem.kind == "broken":
            raise OSError("no server")
        episode = EpisodeOf({"name": prompt.as_dict()["tools"]})
        self.made += (episode,)
        return episode


class EpisodeOf:
    def __init__(self, tool: Tool) -> None:
        self.tools, self.closed = (tool,), 0

    def close(self) -> None:
        self.closed += 1


def armed_room(*lengths: int, kind: str = "", limit: int = 80) -> tuple[ContextRoom, Armed]:
    task = Armed(*lengths)
    problems = [Problem(problem.id, problem.messages, kind=kind) for problem in task.all]
    return ContextRoom(encode, task, limit, 10, [("train", problem) for problem in problems]), task


def test_the_tools_schemas_take_their_part_of_the_context() -> None:
    room, task = armed_room(3, 12)
    schema = len(json.dumps({"name": "none"}))
    assert room.longest == 23 + schema
    # A description stands in the context twice here: in the system message, and in its tool.
    assert room.max_chars(SEED, "system") == 80 - 10 - 4 - 12 - 1 - len("none") - schema
    assert room.refusal(SEED.replace("tools", "x" * 19)) is None
    assert "1 tokens too long" in str(room.refusal(SEED.replace("tools", "x" * 19).replace("system", "bes+")))
    with pytest.raises(ConfigError, match=r"'p1' of the train split, is 2 tokens too long"):
        armed_room(3, 12, limit=23 + schema + 8)[0].check_problems("the seed prompt", SEED)
    # One episode for each kind of problems and prompt, and each is closed.
    assert len(task.made) == 4
    assert [episode.closed for episode in task.made] == [1] * 4


def test_an_episode_that_cannot_be_made_stops_nothing_here(caplog: pytest.LogCaptureFixture) -> None:
    room, _ = armed_room(3, 12, kind="broken")
    assert room.longest == 23
    assert room.refusal(SEED) is None
    assert "problem 'p0': the tools are not counted, its episode cannot be made: no server" in caplog.text
