"""The suite for agents passes one that keeps the rules, and notices each rule that is broken."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from callers import once, talk
from fastslow.tasks.agents.task import AgentTask
from fastslow.testing.agents import check_agent
from fastslow.testing.tasks import check_task

from toy import LettersTask, TalkTask

COUNTER = itertools.count()


def letters(problem: Any) -> list[str]:
    return list(problem.data["letters"])


def silent(messages: list[Any]) -> float:
    return 1.0


def broken(base_url: str, api_key: str, messages: list[Any]) -> float:
    return {"a": 1.0}[once(base_url, api_key, messages)]


def forgets_the_prompt(base_url: str, api_key: str, problem: Any) -> tuple[float, str]:
    return talk(base_url, api_key, list(problem.messages), problem)


def counts(base_url: str, api_key: str, messages: list[Any]) -> str:
    return once(base_url, api_key, [*messages, {"role": "user", "content": f"try {next(COUNTER)}"}])


def never_content(base_url: str, api_key: str, messages: list[Any]) -> tuple[float, str]:
    once(base_url, api_key, messages)
    return 0.5, "Almost."


def test_an_agent_that_keeps_the_rules_passes() -> None:
    check_agent(AgentTask(talk, TalkTask()), plays=letters)
    check_task(AgentTask(once, LettersTask()), again=AgentTask(once, LettersTask()))
    assert AgentTask(once, LettersTask()).score(LettersTask().problems("train")[0], "ae").reward == 1.0


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (silent, "must call the policy"),
        (broken, "must bear what the policy says"),
        (forgets_the_prompt, "the prompt must reach the policy"),
        (counts, "differ though the policy said the same"),
        (never_content, "must have reward 1.0"),
    ],
)
def test_the_suite_notices(agent: Callable[..., Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_agent(AgentTask(agent, TalkTask()), plays=letters)
