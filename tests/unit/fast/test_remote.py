"""Retries, waiting, secrets, prices, and the checks that need no call."""

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from fastslow.errors import ConfigError, ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import ProposalRequest
from fastslow.fast.proposers.reflection import Question, Reply
from fastslow.fast.proposers.reflection_prompt import Wording
from fastslow.fast.proposers.registry import MODULES, build_proposer, check_proposer
from fastslow.fast.proposers.remote import (
    CallError,
    RemoteModel,
    call_error,
    retry_after,
)
from fastslow.fast.proposers.replies import usage_of
from fastslow.fast.proposers.secrets import known_secrets, redact
from fastslow.fast.proposers.settings import KINDS, ProposerConfig, proposer_config
from fastslow.types import Message, Prompt


def question(seed: int = 0) -> Question:
    return Question(ProposalRequest(Prompt.of("Help."), "system", (), seed), Wording(max_prompt_chars=100))


def openai_config(**changes: Any) -> ProposerConfig:
    return proposer_config(**{"kind": "openai", "model": "x", "base_url": "http://127.0.0.1:1/v1", **changes})


class Flaky:
    """Fails as told, then answers."""

    def __init__(self, *errors: CallError) -> None:
        self.errors = list(errors)

    def __call__(self, messages: list[Message], seed: int) -> Reply:
        if self.errors:
            raise self.errors.pop(0)
        return Reply("ok", "stop", Usage(input_tokens=1, usd=0.25))


def ask(*errors: CallError, retries: int = 5, backoff_s: float = 1.0, seed: int = 0) -> tuple[Any, list[float]]:
    waits: list[float] = []
    config = openai_config(retries=retries, backoff_s=backoff_s)
    model = RemoteModel("x", Flaky(*errors), config, waits.append)
    return model.answer([question(seed)])[0], waits


def busy(retry_after_s: float | None = None) -> CallError:
    return CallError("busy", retryable=True, retry_after_s=retry_after_s)


def test_waits_double_with_jitter_and_stop_growing() -> None:
    reply, waits = ask(*[busy()] * 9, retries=9, backoff_s=1.0)
    assert reply.usage == Usage(calls=10, failures=9, input_tokens=1, usd=0.25)
    for wait, base in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.5 * base <= wait <= 1.5 * base
    assert waits == ask(*[busy()] * 9, retries=9)[1]
    assert waits != ask(*[busy()] * 9, retries=9, seed=1)[1]


def test_a_server_is_waited_for_at_least_as_long_as_it_asks() -> None:
    assert ask(busy(20.0))[1] == [20.0]
    assert ask(busy(0.0))[1][0] >= 0.5


def test_retries_run_out() -> None:
    error, waits = ask(*[busy()] * 3, retries=2)
    assert isinstance(error, ReflectionError)
    assert error.usage == Usage(calls=3, failures=3)
    assert len(waits) == 2


def test_what_is_not_worth_a_retry_is_not_tried_again() -> None:
    error, waits = ask(CallError("no such model", retryable=False))
    assert error.usage == Usage(calls=1, failures=1)
    assert waits == []


class HttpError(Exception):
    def __init__(self, message: str, status_code: int, headers: dict[str, str]) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.litellm_response_headers = headers


def test_which_statuses_are_tried_again() -> None:
    statuses = (400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 529)
    again = [status for status in statuses if call_error(HttpError("x", status, {}), (), ()).retryable]
    assert again == [408, 409, 429, 500, 502, 503, 529]


def test_errors_without_a_status_are_tried_again_where_they_are_known_to_pass() -> None:
    assert call_error(ConnectionError("x"), (), (ConnectionError,)).retryable
    assert not call_error(TypeError("x"), (), (ConnectionError,)).retryable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(HttpError("x", 429, {"retry-after": value})) == seconds


def test_secrets_are_blotted_out_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redact("abcdef abc", ["abc", "abcdef"]) == "[secret] [secret]"
    monkeypatch.setenv("MY_PROVIDER_API_KEY", "key-in-the-environment")
    monkeypatch.setenv("SHORT_KEY", "ab")
    secrets = known_secrets("key-in-use")
    assert {"key-in-the-environment", "key-in-use"} <= set(secrets)
    assert "ab" not in secrets


class Tokens:
    prompt_tokens, completion_tokens = 2_000_000, 500_000


def test_prices_of_the_config_come_first_then_the_list_price_then_unknown() -> None:
    priced = openai_config(usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=4.0)
    assert usage_of(priced, Tokens(), lambda: 9.0) == Usage(input_tokens=2_000_000, output_tokens=500_000, usd=4.0)
    assert usage_of(openai_config(), Tokens(), lambda: 9.0).usd == 9.0
    assert usage_of(openai_config(), Tokens(), lambda: None).usd is None
    assert usage_of(priced, None, lambda: 9.0) == Usage(usd=None)


def test_local_servers_can_be_priced_at_nothing() -> None:
    free = openai_config(usd_per_million_input_tokens=0.0, usd_per_million_output_tokens=0.0)
    assert usage_of(free, Tokens(), lambda: None).usd == 0.0


# -- what is known before a model loads --------------------------------------------------------------------------------


def test_every_kind_of_the_config_has_a_module_and_nothing_else() -> None:
    assert set(MODULES) == set(KINDS)


@pytest.mark.parametrize("kind", ["lesson", "policy"])
def test_kinds_without_a_server_need_nothing(kind: Any) -> None:
    config = proposer_config(kind=kind)
    check_proposer(config)
    engine: Any = object()
    assert hasattr(build_proposer(config, engine), "propose")


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", " http://host/v1"]
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValidationError, match=r"base_url\n.* write it as"):
        openai_config(base_url=url)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_that_is_not_set_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISSING_REFLECTION_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MISSING_REFLECTION_KEY", value)
    with pytest.raises(ConfigError, match="'MISSING_REFLECTION_KEY' is not set"):
        check_proposer(openai_config(api_key_env="MISSING_REFLECTION_KEY"))


def test_half_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="give both prices"):
        check_proposer(openai_config(usd_per_million_input_tokens=1.0))


@pytest.mark.parametrize(("kind", "way_out"), [("litellm", "fastslow[litellm]"), ("openai", "pip install openai")])
def test_a_missing_package_is_named_with_the_way_to_install_it(
    kind: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError) as caught:
        check_proposer(openai_config(kind=kind))
    assert way_out in str(caught.value)


def test_litellm_names_an_unknown_provider_and_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="knows no provider for 'nonsense'"):
        check_proposer(proposer_config(kind="litellm", model="nonsense"))
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        check_proposer(proposer_config(kind="litellm", model="openai/gpt-5.2"))
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-0123")
    check_proposer(proposer_config(kind="litellm", model="openai/gpt-5.2"))
