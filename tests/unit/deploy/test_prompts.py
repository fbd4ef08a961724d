"""Which prompt a question gets, and how it is put in."""

from typing import Any

import pytest

from fastslow.deploy.prompts import Prompts
from fastslow.lab.tasks import LabTask
from fastslow.tasks.base import Task
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.types import Message, Prompt

from toy import KindsTask, LettersTask

BEST, OTHER = Prompt.of("best"), Prompt.of("other")


def prompts(task: Task | None, **by_kind: Prompt) -> Prompts:
    return Prompts(BEST, (BEST, OTHER), {kind: prompt.hash for kind, prompt in by_kind.items()}, task)


def said(*texts: str) -> list[Message]:
    """A conversation that the user begins."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


HAZEL = LabTask("hazel", train=4, validation=2, test=2)


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        (said("north : 4 5 a b"), "north"),
        (said("south : 1"), "south"),
        (said("east : 1"), None),
        (said("4 5"), None),
        (said("south : 1", "1", "north : 1"), "south"),
        ([{"role": "system", "content": "north : "}, *said("south : 1")], "south"),
    ],
)
def test_a_task_that_can_tell_kinds_tells_those_of_questions_that_are_new(messages: Any, kind: str | None) -> None:
    assert prompts(HAZEL, north=BEST, south=OTHER).kind_of(messages) == kind


def test_a_wrapped_task_tells_them_too() -> None:
    wrapped = build_task(TaskConfig(name="lab", options={"world": "hazel"}, seed_prompt="Hello."))
    stream = build_task(
        TaskConfig(name="stream", options={"tasks": [{"name": "lab", "options": {"world": "hazel"}}], "steps": 1})
    )
    for task in (wrapped, stream):
        assert prompts(task, north=BEST, south=OTHER).kind_of(said("south : 1")) == "south"


def test_the_tasks_own_problems_are_known_by_their_questions() -> None:
    found = prompts(KindsTask(), even=BEST, odd=OTHER)
    assert [found.kind_of(said(text)) for text in ("n0", "n2001", "n5000")] == ["even", "odd", None]


def test_where_all_kinds_have_one_prompt_nothing_is_asked() -> None:
    assert prompts(KindsTask(), even=BEST, odd=BEST).kind_of(said("n0")) is None
    assert prompts(None, even=BEST, odd=OTHER).kind_of(said("n0")) is None


def test_a_task_that_breaks_on_a_question_leaves_it_to_the_best_prompt(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(KindsTask):
        def kind_of(self, messages: Any) -> str | None:
            raise RuntimeError("what is that?")

    assert prompts(Broken(), even=BEST, odd=OTHER).kind_of(said("hm")) is None
    assert "what is that?" in caplog.text


def test_a_prompt_comes_before_the_clients_own_system_message_and_only_once() -> None:
    found = prompts(LettersTask())
    own: list[Message] = [{"role": "system", "content": "Be brief."}, *said("a", "b", "c")]
    placed = found.place(own, BEST, None)
    assert placed[0] == {"role": "system", "content": "best\n\nBe brief."}
    assert list(placed[1:]) == own[1:]
    assert found.place(placed, BEST, None) == placed


def test_components_besides_the_system_text_are_placed_as_in_training() -> None:
    texts = {"system": "go", "skill:letters": "Write a.", "tool:look": "Looks things up."}
    prompt = Prompt.from_dict(texts)
    found = Prompts(prompt, (prompt,))
    (system, _) = found.place(said("x"), prompt, None)
    assert system["content"] == "go\n\n# letters\n\nWrite a."
    tool = {"type": "function", "function": {"name": "look", "description": "?", "parameters": {}}}
    (described,) = found.tools((tool,), prompt)
    assert described["function"]["description"] == "Looks things up."  # type: ignore[index]
    assert tool["function"]["description"] == "?"  # type: ignore[index]


def test_a_task_that_places_by_what_its_own_problems_hold_is_not_needed() -> None:
    class Own(LettersTask):
        def messages(self, problem: Any, prompt: Prompt) -> Any:
            return [{"role": "user", "content": problem.data["letters"]}]

    assert prompts(Own()).place(said("x"), BEST, None)[0] == {"role": "system", "content": "best"}
