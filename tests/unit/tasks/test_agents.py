"""The task `agent` and its endpoint: options that are wrong, and requests that no client of OpenAI's sends."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from callers import talk
from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.agents.chat_api import ChatRequest, Refused, read_messages, read_request, split_calls
from fastslow.tasks.agents.endpoint import Endpoint
from fastslow.tasks.agents.session import AgentSession
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.types import Prompt

from toy import LettersTask

LETTERS = {"name": "toy:LettersTask"}


def task_of(**options: Any) -> Any:
    return build_task(TaskConfig(name="agent", options={"agent": "callers:once", "problems": LETTERS, **options}))


def test_the_problems_the_seed_prompt_and_the_messages_are_those_of_the_task_that_is_named() -> None:
    task, letters = task_of(name="mine"), LettersTask()
    assert task.name == "mine"
    assert task.seed_prompt == letters.seed_prompt
    assert task.problems("train") == letters.problems("train")
    problem = letters.problems("train")[0]
    assert task.messages(problem, Prompt.of("x")) == letters.messages(problem, Prompt.of("x"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"agent": "callers:nobody"}, "task.options.agent: .* cannot be imported"),
        ({"agent": "toy:FIRST"}, "task.options.agent: .* cannot be called"),
        ({"agent": "callers:troubled"}, "nothing gives the agent its parameter 'trouble'"),
        ({"agent": "test_agents_functions:positional"}, "nothing gives the agent its parameter 'base_url'"),
        ({"agent_options": {"speed": 3}}, "task.options.agent_options.speed: is no option of the agent's own"),
        ({"agent_options": {"api_key": "x"}}, "task.options.agent_options.api_key"),
        ({"at_once": 0}, "task.options.at_once: 0"),
        ({"problems": {"options": {}}}, "task.options.problems.name: Field required"),
        ({"problems": {"name": "nothing:X"}}, "task.name: .* cannot be imported"),
        ({"problems": 3}, "task.options.problems"),
        ({"agents": "x"}, "task.options.agents: unknown"),
    ],
)
def test_options_that_are_wrong_are_named(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_agents_functions.py").write_text("def positional(base_url, /):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=words):
        task_of(**options)


def test_records_need_no_scorer_until_the_agent_returns_a_text(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"n{n}", "letters": "ab"}) + "\n" for n in range(9)))
    problems = {"name": "records", "options": {"data": str(data), "splits": {"train": "rest", "validation": 2}}}
    task = task_of(problems=problems)
    problem = task.problems("train")[0]
    assert task.verdict(problem, 0.5).reward == 0.5
    assert "has no scorer" in task.verdict(problem, "ab").reason
    with pytest.raises(TaskError, match=r"task\.options\.agent: 'once' returned None"):
        task.verdict(problem, None)


# -- the endpoint ------------------------------------------------------------------------------------------------------


@pytest.fixture
def door() -> Any:
    """An endpoint with one session, which nobody answers."""
    session = AgentSession(threading.Condition(), 4)
    with Endpoint(1000) as endpoint:
        endpoint.add(session)
        yield endpoint, session


def ask(endpoint: Endpoint, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.server_address[1], timeout=5)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    assert reply.getheader("x-should-retry") == "false"
    return reply.status, json.loads(reply.read())["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v1/chat/completions", b"{}", {}, 400),
        ("POST", "/v1/chat/completions", b"[1, 2]", {}, 400),
        ("POST", "/v1/chat/completions", b"\xff{", {}, 400),
        ("POST", "/v1/chat/completions", b"[" * 900, {}, 400),
        ("POST", "/v1/chat/completions", b"x" * 1001, {}, 413),
        ("POST", "/v1/chat/completions", b"{}", {"Content-Length": "many"}, 411),
        ("POST", "/v1/completions", b"{}", {}, 404),
        ("GET", "/", None, {}, 404),
        ("GET", "/v1/chat/completions", None, {}, 405),
        ("GET", "/v1/models", None, {"Host": "evil.example"}, 421),
        ("GET", "/v1/models", None, {"Authorization": ""}, 401),
        ("GET", "/v1/models", None, {"Authorization": "Basic x"}, 401),
    ],
)
def test_what_is_no_call_gets_an_error_that_clients_read(
    door: Any, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    endpoint, session = door
    given = {"Authorization": f"Bearer {session.key}", **headers}
    found, error = ask(endpoint, method, path, body, **given)
    assert (found, set(error)) == (status, {"message", "type", "param", "code"})
    assert session.key not in error["message"]


def test_only_loopback_is_listened_on_and_each_key_is_another(door: Any) -> None:
    endpoint, session = door
    assert endpoint.server_address[0] == "127.0.0.1"
    assert len({AgentSession(threading.Condition(), 1).key for _ in range(50)} | {session.key}) == 51


def test_a_key_opens_its_own_session_and_none_that_has_ended(door: Any) -> None:
    endpoint, session = door
    session.close()
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
    status, error = ask(endpoint, "POST", "/v1/chat/completions", body, Authorization=f"Bearer {session.key}")
    assert (status, error["code"], session.late) == (403, "episode_ended", 1)


# -- OpenAI's JSON -----------------------------------------------------------------------------------------------------


def test_messages_of_every_form_are_read() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    given = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    assert read_messages(given) == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'},
        {"role": "tool", "name": "f", "content": "2"},
    )


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "hello",
        [1],
        [{"role": "robot", "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "assistant", "content": "", "tool_calls": [{}]}, {"role": "user", "content": "x"}],
    ],
)
def test_messages_that_are_none_are_refused(messages: Any) -> None:
    with pytest.raises(Refused) as refused:
        read_messages(messages)
    assert refused.value.status == 400


def test_parameters_that_say_nothing_are_no_question() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "temperature": 1.0, "top_p": 1, "n": None, "seed": 3}
    assert read_request(body) == ChatRequest(({"role": "user", "content": "x"},))
    for name, value in (("temperature", True), ("top_p", 0.5), ("parallel_tool_calls", False), ("stream", 1)):
        with pytest.raises(Refused, match=name):
            read_request({**body, name: value})
    read_request({**body, "top_p": 0.5}, ignored=("top_p",))


@pytest.mark.parametrize(
    ("text", "beside", "names"),
    [
        ('So. <tool_call>{"name": "f", "arguments": {}}</tool_call>', "So.", ["f"]),
        ('<think>f?</think><tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g"}</tool_call>', "", ["f", "g"]),
        ('[TOOL_CALLS][{"name": "f", "arguments": {}}]', "", ["f"]),
        ('{"name": "f", "parameters": {}}', "", ["f"]),
        ("no call {at all}", "no call {at all}", []),
        ("<tool_call>f</tool_call>", "<tool_call>f</tool_call>", []),
    ],
)
def test_calls_are_taken_out_of_a_turn(text: str, beside: str, names: list[str]) -> None:
    found, calls, wrong = split_calls(text)
    assert (found, [call.name for call in calls]) == (beside, names)
    assert bool(wrong) == ("<tool_call>f<" in text)


def test_an_agent_is_an_episode_of_texts_as_well() -> None:
    task = AgentTask(talk, LettersTask())
    problem = task.problems("train")[0]
    episode = task.episode(problem, task.seed_prompt)
    try:
        assert [m["content"] for m in episode.start()] == ["go", "n0"]
        assert episode.score().reward == 0.0, "it has not ended"
        assert episode.step("x") == ({"role": "user", "content": "and a"},)
        assert episode.step("ae") == ()
        assert (episode.score().reward, episode.step("more")) == (1.0, ())
    finally:
        episode.close()
