"""Agents that reach a limit, break, ask too much or outlive their engine: each costs its own rollout, and no more."""

import threading
import time
from typing import Any

import openai
import pytest

from callers import LATE, client_of, once, talk, troubled
from fastslow.tasks.agents.task import AgentTask
from speaker import Speaker, play, roll

from toy import LettersTask, TalkTask


@pytest.mark.parametrize(
    ("settings", "turns", "end", "rule"),
    [
        ({"max_turns": 2}, 2, "max_turns", "The episode was cut off after 2 turns"),
        ({"max_tokens": 17}, 5, "max_tokens", "all its answers together became too long"),
        ({"context_limit": 30}, 2, "context", "no longer fits into the model's context"),
    ],
)
@pytest.mark.parametrize("bears", [False, True])
def test_limits_end_an_agents_episode_as_any_other(
    settings: dict[str, int], turns: int, end: str, rule: str, bears: bool
) -> None:
    codes = []

    def agent(base_url: str, api_key: str, messages: list[Any], problem: Any) -> Any:
        try:
            return talk(base_url, api_key, messages, problem, tries=9)
        except openai.BadRequestError as error:
            codes.append(error.code)
            if bears:
                return 1.0, "Write the letter e."
            raise

    ((rollout,),) = roll(Speaker("a"), AgentTask(agent, TalkTask(patience=9)), **settings)
    assert (len(rollout.turns), rollout.end, rollout.reward) == (turns, end, 0.0)
    assert rule in rollout.feedback.splitlines()[0]
    assert rollout.feedback.splitlines()[1:] == (["Write the letter e."] if bears else [])
    assert codes == [{"context": "context_length_exceeded"}.get(end, end)]


def test_a_turn_that_is_cut_off_ends_the_episode() -> None:
    ((rollout,),) = roll(Speaker("ae", cut=True), AgentTask(talk, TalkTask()))
    assert (rollout.reward, rollout.end, len(rollout.turns)) == (0.0, "turn_tokens", 1)


def test_agents_that_break_mask_their_own_rollouts_only(caplog: pytest.LogCaptureFixture) -> None:
    trouble = {"0": "raise", "1": "hang", "2": "exit", "3": "flood", "4": "silent", "5": "late"}
    task = AgentTask(troubled, LettersTask(), agent_options={"trouble": trouble})
    LATE.clear()
    groups = roll(Speaker("x"), task, problems=7, step_timeout_s=0.8)
    flat = [rollout for group in groups for rollout in group]
    assert [r.end for r in flat] == ["failed", "timed_out", "failed", "failed", "failed", "done", "done"]
    words = ["the agent crashed with [key]", "within 0.8 s", "SystemExit", "1000000 characters", "without a call"]
    assert all(word in (r.failure or "") for word, r in zip(words, flat, strict=False))
    assert [r.reward for r in flat] == [None] * 5 + [1.0] * 2
    assert [len(r.turns) for r in flat] == [1, 1, 1, 1, 0, 1, 1]
    assert [type(error) for error in LATE] == [openai.PermissionDeniedError]
    assert "1 requests came after the end" in caplog.text


def test_only_the_keys_of_episodes_open_the_door() -> None:
    codes = []

    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        for key in ("", "guess", f"{api_key}x"):
            try:
                once(base_url, key or "-", messages)
            except openai.AuthenticationError as error:
                codes.append((error.code, api_key in str(error)))
        once(base_url, api_key, messages)
        return 1.0

    assert play(agent).reward == 1.0
    assert codes == [("invalid_api_key", False)] * 3


def test_a_key_never_reaches_the_rollouts() -> None:
    def agent(base_url: str, api_key: str) -> float:
        once(base_url, api_key, [{"role": "user", "content": f"my key is {api_key}"}])
        return 1.0

    assert "holds the episode's key" in str(play(agent).failure)


def test_requests_that_are_too_large_or_too_many_are_refused() -> None:
    def large(base_url: str, api_key: str, messages: list[Any]) -> float:
        with pytest.raises(openai.APIStatusError, match="max_request_bytes = 1000") as refused:
            once(base_url, api_key, [{"role": "user", "content": "x" * 5000}])
        assert refused.value.status_code == 413
        once(base_url, api_key, messages)
        return 1.0

    assert play(large, max_request_bytes=1000).reward == 1.0

    def many(base_url: str, api_key: str) -> float:
        client = client_of(base_url, api_key)
        while True:
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(model="m", messages=[])

    assert "100 of its requests were refused" in str(play(many).failure)


def test_more_calls_at_once_than_allowed_are_told_to_come_later() -> None:
    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        errors: list[Exception] = []

        def ask() -> None:
            try:
                once(base_url, api_key, messages)
            except openai.RateLimitError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 1.0 - len(errors) / 10

    engine = Speaker("a")
    sample = engine.sample

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        return sample(*arguments)

    engine.sample = slowly  # type: ignore[method-assign]
    assert play(agent, engine, calls_at_once=1).reward == pytest.approx(0.8)


def test_agents_are_let_go_of_when_the_engine_fails() -> None:
    errors: list[Exception] = []
    done = threading.Event()

    def agent(base_url: str, api_key: str, messages: list[Any]) -> float:
        try:
            once(base_url, api_key, messages)
        except openai.APIError as error:
            errors.append(error)
        done.set()
        return 1.0

    engine = Speaker("x")
    engine.sample = lambda *_: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        play(agent, engine)
    assert done.wait(5.0) and isinstance(errors[0], openai.APIError)
