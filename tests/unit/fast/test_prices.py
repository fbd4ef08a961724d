"""A server of one's own is never billed at a hosted model's price, whatever its model is called."""

from typing import Any

import pytest

from fastslow.fast.proposers.prices import address_of, billing, is_local
from fastslow.fast.proposers.registry import build_proposer, price_of
from fastslow.fast.proposers.settings import RemoteConfig, proposer_config
from fastslow.types import Prompt

from chat_server import Answer, ChatServer

HOSTED = "openai/gpt-4o"
"""A model that LiteLLM's list has a price for."""


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:8000/v1", "http://127.0.0.1:11434", "http://127.9.9.9/v1", "http://[::1]:8000/v1",
        "localhost:8000",
        "http://0.0.0.0:8000", "http://10.1.2.3:8000/v1", "https://192.168.0.9/v1", "http://172.31.255.1",
        "http://100.64.0.7",
        "http://169.254.1.1", "http://[fd00::7]:8000", "http://[::ffff:10.0.0.1]/v1", "http://vllm:8000/v1",
        "http://gpu.local",
        "http://host.docker.internal:8000", "http://llm.default.svc:80", "http://llm.svc.cluster.local",
        "HTTP://LOCALHOST.:80",
    ],
)  # fmt: skip
def test_loopback_and_private_addresses_are_local(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com/v1", "http://8.8.8.8/v1", "http://172.32.0.1", "https://localhost.example.com",
        "http://[2001:4860::1]/v1", "https://internal.example.org", "http://100.128.0.1",
    ],
)  # fmt: skip
def test_other_addresses_are_not(address: str) -> None:
    assert not is_local(address)


@pytest.mark.parametrize(
    ("provider", "address", "expected"),
    [
        ("openai", None, "list"), ("openai", "https://api.openai.com/v1", "list"),
        ("openai", "http://10.0.0.1/v1", "unknown"),
        ("ollama", None, "free"), ("ollama", "http://gpu:11434", "free"),
        ("hosted_vllm", "https://my.example.com", "unknown"),
    ],
)  # fmt: skip
def test_whose_price_a_call_has(provider: str, address: str | None, expected: str) -> None:
    assert billing(provider, address) == expected


def test_an_address_of_the_environment_counts_where_the_config_has_none() -> None:
    environment = {"OPENAI_API_BASE": "http://localhost:4000", "OLLAMA_API_BASE": " "}
    assert address_of("openai", None, environment) == "http://localhost:4000"
    assert address_of("openai", "https://api.openai.com/v1", environment) == "https://api.openai.com/v1"
    assert address_of("ollama", None, environment) is None


def remote(kind: str, model: str, **changes: Any) -> RemoteConfig:
    config = proposer_config(kind=kind, model=model, **changes)
    assert isinstance(config, RemoteConfig)
    return config


@pytest.mark.parametrize(
    ("kind", "model", "usd"),
    [("litellm", HOSTED, None), ("litellm", "hosted_vllm/gpt-4o", 0.0), ("openai", "gpt-4o", None)],
)
def test_a_call_to_a_server_here_is_not_billed_as_the_hosted_model_of_that_name(
    kind: str, model: str, usd: float | None
) -> None:
    if kind == "litellm":
        pytest.importorskip("litellm")
    with ChatServer([Answer()]) as server:
        config = remote(kind, model, base_url=server.url)
        proposal: Any = build_proposer(config, None).propose(Prompt.of("Help."), "system", [], seed=1)  # type: ignore[arg-type]
    assert (proposal.text, proposal.usage.calls, proposal.usage.usd) == ("Be brief.", 1, usd)
    assert price_of(config)[0] == (None if usd is None else (0.0, 0.0))


def test_the_list_counts_for_the_providers_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    prices, words = price_of(remote("litellm", HOSTED))
    assert prices is not None and 0 < prices[0] < prices[1]
    assert words == "LiteLLM's list prices"
    monkeypatch.setenv("OPENAI_API_BASE", "http://localhost:4000")
    assert price_of(remote("litellm", HOSTED))[0] is None
    own = remote("litellm", HOSTED, usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=3.0)
    assert price_of(own) == ((1.0, 3.0), "the config's prices")
