"""Reflection servers that answer nonsense, never end, or send back what they must not: one declared error for each."""

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastslow.config import parse_config
from fastslow.errors import ConfigError, ReflectionError
from fastslow.fast.optimiser import Candidate, Usage
from fastslow.fast.proposers.base import Example, Proposal, ProposalRequest, propose_all
from fastslow.fast.proposers.registry import build_proposer
from fastslow.fast.proposers.secrets import redact
from fastslow.fast.proposers.settings import ProposerConfig, proposer_config
from fastslow.runs.directory import RunDirectory
from fastslow.types import Prompt

from chat_server import Answer, ChatServer

KEY, KEY_ENV = "sk-test-0123456789abcdef", "FASTSLOW_TEST_REFLECTION"
PARENT = Prompt.of("Be helpful.")
MODELS = {"openai": "x", "litellm": "openai/x"}
TEXT = "<new_prompt>Be brief.</new_prompt>"


def config(kind: str, url: str, **changes: Any) -> ProposerConfig:
    settings = {"retries": 0, "backoff_s": 0.0, "timeout_s": 10.0, "api_key_env": KEY_ENV, **changes}
    return proposer_config(kind=kind, model=MODELS[kind], base_url=url, **settings)


def outcome(kind: str, answer: Answer, **changes: Any) -> Proposal | ReflectionError:
    with ChatServer([answer]) as server:
        request = ProposalRequest(PARENT, "system", (Example("1 + \ud800?", "x", 0.0, "\udfff no"),), 1)
        return propose_all(build_proposer(config(kind, server.url, **changes), None), [request])[0]  # type: ignore[arg-type]


def completion(**changes: Any) -> Answer:
    """A completion whose members are replaced: those of the choice by their names, `usage` and `choices` themselves."""
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    usage = changes.pop("usage", {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
    choices = changes.pop("choices", [{**choice, **changes}])
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": choices, "usage": usage}
    return Answer(body=json.dumps(body))


@pytest.fixture(params=["openai", "litellm"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "litellm":
        pytest.importorskip("litellm")
    monkeypatch.setenv(KEY_ENV, KEY)
    return str(request.param)


SHAPES = {
    "choices of null": completion(choices=[None]),
    "choices of a text": completion(choices="abc"),
    "choices of a number": completion(choices=5),
    "choices of lists": completion(choices=[[]]),
    "no message": completion(message=None),
    "message of a text": completion(message="hello"),
    "content of a number": completion(message={"role": "assistant", "content": 5}),
    "content of NaN": completion(message={"role": "assistant", "content": float("nan")}),
    "content of a list": completion(message={"role": "assistant", "content": [{"type": "text", "text": TEXT}]}),
    "content of an object": completion(message={"role": "assistant", "content": {"text": TEXT}}),
    "reason of a list": completion(finish_reason=["stop"]),
    "null": Answer(body="null"),
    "a text": Answer(body='"hello"'),
    "a list": Answer(body="[]"),
    "deep": Answer(body="[" * 20_000 + "]" * 20_000),
    "no UTF-8": Answer(body='{"choices": [\udcff]}'),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_of_another_shape_is_a_failed_attempt_that_is_tried_again(kind: str, shape: str) -> None:
    with ChatServer([SHAPES[shape], completion()]) as server:
        proposer: Any = build_proposer(config(kind, server.url, retries=1), None)  # type: ignore[arg-type]
        usage = proposer.propose(PARENT, "system", [], seed=1).usage
    assert (usage.calls, usage.failures) == (2, 1)


def test_an_answer_without_content_is_an_empty_reply(kind: str) -> None:
    found = outcome(kind, completion(message={"role": "assistant", "content": None}))
    assert isinstance(found, ReflectionError)
    assert str(found) == "the reply is empty"


@pytest.mark.parametrize("part", ["body", "headers"])
def test_an_answer_that_drips_is_given_up_in_time(kind: str, part: str) -> None:
    start = time.monotonic()
    with ChatServer([replace(Answer(), drip=part)]) as server:
        proposer: Any = build_proposer(config(kind, server.url, timeout_s=0.4), None)  # type: ignore[arg-type]
        with pytest.raises(
            ReflectionError, match=r"no whole answer within 0.4 s \(fast.proposer.timeout_s\)"
        ) as caught:
            proposer.propose(PARENT, "system", [], seed=1)
        assert 0.4 <= time.monotonic() - start < 3.0
        assert caught.value.usage == Usage(calls=1, failures=1)
        if kind == "openai":  # closing its connection ends the thread that was left behind
            deadline = time.monotonic() + 5.0
            while server.dripping and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.dripping == 0


@pytest.mark.parametrize(
    "usage",
    [
        "text",
        [1, 2],
        7,
        {"prompt_tokens": -8_000_000_000, "completion_tokens": 1, "total_tokens": 1},
        {"prompt_tokens": 10**30, "completion_tokens": 1, "total_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": float("nan"), "total_tokens": 1},
        {"prompt_tokens": "many", "completion_tokens": 1, "total_tokens": 1},
    ],
    ids=str,
)
def test_usage_that_cannot_be_is_not_booked_and_said_once(usage: Any, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 1.0}
    with ChatServer([completion(usage=usage)]) as server, caplog.at_level(logging.WARNING, "fastslow"):
        proposer: Any = build_proposer(config("openai", server.url, **prices), None)  # type: ignore[arg-type]
        for _ in range(2):
            proposal = proposer.propose(PARENT, "system", [], seed=1)
    assert (proposal.text, proposal.usage) == ("Be brief.", Usage(calls=1, usd=None))
    assert [record.message.count("is not booked") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    "usage", ["text", {"prompt_tokens": -8_000_000_000, "completion_tokens": 1, "total_tokens": 1}]
)
def test_litellm_books_no_nonsense_either(usage: Any, monkeypatch: Any) -> None:
    pytest.importorskip("litellm")
    monkeypatch.setenv(KEY_ENV, KEY)
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 1.0}
    found = outcome("litellm", completion(usage=usage), **prices)
    spent: Any = found.usage
    assert spent.usd is None or spent.usd >= 0.0
    assert (spent.input_tokens, spent.output_tokens) == (0, 0)


@pytest.mark.parametrize("character", ["\ud800", "\0", "\x1b", "\x07", "\x9b", "\r"])
def test_control_characters_and_surrogates_become_no_prompt_and_can_be_written_down(
    kind: str, character: str, tmp_path: Path
) -> None:
    text = f"<new_prompt>Be{character} brief.</new_prompt>"
    found = outcome(kind, completion(message={"role": "assistant", "content": text}))
    assert isinstance(found, ReflectionError)
    assert f"control characters or surrogates (U+{ord(character):04X})" in str(found)
    assert isinstance(found.usage, Usage) and found.usage.refused == 1
    assert found.text == "Be\N{REPLACEMENT CHARACTER} brief."
    # What else is recorded beside it, such as a verifier's words, can be written down too.
    candidate = Candidate(PARENT, None, False, f"a{character}b", {}, ())
    RunDirectory(tmp_path).append_candidates(1, [candidate], [1])
    line = json.loads((tmp_path / "prompts.jsonl").read_text(encoding="utf-8"))
    assert line["reason"] == ("a\N{REPLACEMENT CHARACTER}b" if character == "\ud800" else f"a{character}b")


def test_line_ends_of_another_system_are_line_ends(kind: str) -> None:
    text = "<new_prompt>Be\r\nbrief.</new_prompt>"
    found = outcome(kind, completion(message={"role": "assistant", "content": text}))
    assert isinstance(found, Proposal)
    assert found.text == "Be\nbrief."


def test_a_reply_that_repeats_the_key_is_refused_and_the_key_is_gone(kind: str) -> None:
    text = f"<new_prompt>Be brief. {KEY}</new_prompt>"
    found = outcome(kind, completion(message={"role": "assistant", "content": text}))
    assert isinstance(found, ReflectionError)
    assert "repeats a key" in str(found)
    assert found.text == "Be brief. [secret]"


def test_a_key_is_not_cut_in_half_by_a_long_message_nor_are_escape_sequences_repeated(kind: str) -> None:
    body = json.dumps({"error": {"message": "\x1b[31m" + "x" * 230 + KEY * 20}})
    found = outcome(kind, Answer(status=400, body=body))
    assert "[secret]" in str(found)
    assert "sk-test" not in str(found)
    assert "\x1b" not in str(found)


def refused(method: str, **proposer: Any) -> str:
    """What is said of a config with this proposer, also of a run that will never ask it."""
    fast = {"proposer": {"kind": "openai", "model": "x", "base_url": "http://host/v1", **proposer}}
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"name": "x"}, "task": {"name": "lab"}, "method": method, "fast": fast})
    return str(caught.value)


@pytest.mark.parametrize("method", ["fst", "rl"])
@pytest.mark.parametrize("end", ["?key=hunter2hunter2", "?hunter2", "#hunter2"])
def test_an_address_with_a_query_is_refused_and_not_repeated(end: str, method: str) -> None:
    said = refused(method, base_url=f"http://host/v1{end}")
    assert said.startswith("fast.proposer.base_url: ") and "api_key_env" in said and "hunter2" not in said
    said = refused(method, base_url=f"host/v1{end}")
    assert "is no address" in said and "hunter2" not in said
    assert "hunter2" not in refused(method, base_url=[f"http://host/v1{end}"])
    said = refused(method, base_url="http://me:hunter2@host/v1")
    assert "holds a user name or a password" in said and "hunter2" not in said


@pytest.mark.parametrize("method", ["fst", "rl"])
@pytest.mark.parametrize("pasted", [KEY, "AKIAIOSFODNN7EXAMPLE", "sk_live_abcdefgh", "0123abcdef", "a\0b"])
def test_a_key_in_the_place_of_its_variables_name_is_not_repeated(method: str, pasted: str) -> None:
    said = refused(method, api_key_env=pasted)
    assert "no environment variable has the name that stands here" in said and pasted not in said
    for wrong in ([pasted], {pasted: 1}):
        said = refused(method, api_key_env=wrong)
        assert "fast.proposer.api_key_env" in said and pasted not in said


def test_a_key_in_the_place_of_a_section_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"name": "x"}, "task": {"name": "lab"}, "fast": {"proposer": KEY}})
    assert "fast.proposer" in str(caught.value) and KEY not in str(caught.value)


def test_a_finish_reason_is_a_word_without_the_key(monkeypatch: Any) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    found = outcome("openai", completion(finish_reason=KEY + "x" * 1_000_000))
    assert isinstance(found, ReflectionError)
    assert "sk-test" not in str(found) and len(str(found)) < 300


def test_a_key_in_the_usage_is_not_repeated(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    usage = {"prompt_tokens": KEY, "completion_tokens": 1, "total_tokens": 1}
    with ChatServer([completion(usage=usage)]) as server, caplog.at_level(logging.WARNING, "fastslow"):
        proposer: Any = build_proposer(config("openai", server.url), None)  # type: ignore[arg-type]
        proposer.propose(PARENT, "system", [], seed=1)
    assert "usage.prompt_tokens is a value of type str" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize("key", ["it's-a-\\-key-0123", "ke\x1by-0123456789"])
def test_a_key_is_blotted_out_as_python_and_json_write_it(key: str) -> None:
    for text in (key, f"refused: {key!r}", json.dumps({"got": key})):
        assert "0123" not in redact(text, [key])
