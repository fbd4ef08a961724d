"""The suite for episodes notices each rule that is broken."""

from collections.abc import Callable
from typing import Any

import pytest

from fastslow.testing.episodes import check_episodes
from fastslow.types import Score

from toy import Talk, TalkTask

SHARED: list[str] = []


def raises(talk: Talk) -> None:
    talk.step = lambda text: [][len(text)]  # type: ignore[method-assign]


def says_texts(talk: Talk) -> None:
    talk.step = lambda text: "higher"  # type: ignore[method-assign, assignment, return-value]


def forgets_the_prompt(talk: Talk) -> None:
    talk.start = lambda: talk.problem.messages  # type: ignore[method-assign]


def starts_anew(talk: Talk) -> None:
    content = f"go, episode {len(talk.task.opened)}"
    talk.start = lambda: [{"role": "user", "content": content}]  # type: ignore[method-assign]


def scores_beyond_1(talk: Talk) -> None:
    talk.score = lambda: Score(2.0, "Well done.")  # type: ignore[method-assign]


def says_nothing_of_a_failure(talk: Talk) -> None:
    talk.score = lambda: Score(0.0, "")  # type: ignore[method-assign]


def listens_to_others(talk: Talk) -> None:
    SHARED.clear()
    talk.heard = SHARED


def has_nameless_tools(talk: Talk) -> None:
    talk.tools = ({"type": "function"},)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (raises, "IndexError"),
        (says_texts, "not a text"),
        (forgets_the_prompt, "must show the prompt"),
        (starts_anew, "the same messages each time"),
        (scores_beyond_1, "rewards lie in"),
        (says_nothing_of_a_failure, "comes with words"),
        (listens_to_others, "because another one ran beside it"),
        (has_nameless_tools, "this one is"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_rule_is_named(broken: Callable[[Talk], None], words: str) -> None:
    class Broken(TalkTask):
        def episode(self, problem: Any, prompt: Any) -> Talk:
            talk = super().episode(problem, prompt)
            broken(talk)
            return talk

    with pytest.raises(AssertionError, match=words):
        check_episodes(Broken(), plays=lambda problem: list("rub" + problem.data["letters"]))


def test_the_toy_keeps_every_rule() -> None:
    check_episodes(TalkTask(), plays=lambda problem: list(problem.data["letters"]))
