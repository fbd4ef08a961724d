"""Reflection through any server that speaks the OpenAI chat-completions protocol (vLLM, llama.cpp, SGLang, OpenAI)."""

import json
from typing import Any

from fastslow.errors import ConfigError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Proposer
from fastslow.fast.proposers.reflection import ReflectionProposer, Reply
from fastslow.fast.proposers.remote import (
    NO_KEY,
    CallError,
    RemoteModel,
    api_key,
    call_error,
    check_remote,
    known_secrets,
    usage_of,
)
from fastslow.fast.proposers.settings import RemoteConfig
from fastslow.slow.engine import PolicyEngine
from fastslow.types import Message


def check(config: RemoteConfig) -> None:
    """Raises ConfigError for what can be known before a call is made."""
    _import()
    check_remote(config)


def build(config: RemoteConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config."""
    check(config)
    model = RemoteModel(f"{config.model} at {config.base_url}", OpenAIChat(config), config)
    return ReflectionProposer(model, recipe=config.recipe, max_prompt_chars=config.max_prompt_chars)


class OpenAIChat:
    """One attempt of a chat completion. The key comes from the named environment variable and from nowhere else."""

    def __init__(self, config: RemoteConfig) -> None:
        openai = _import()
        self.config = config
        key = api_key(config) or NO_KEY
        self._secrets = known_secrets(key)
        # A server that answers 200 with something that is not JSON is broken for the moment, like one that hangs up.
        self._transient = (openai.APIConnectionError, openai.APIResponseValidationError, json.JSONDecodeError)
        self._client: Any = openai.OpenAI(
            base_url=config.base_url, api_key=key, timeout=config.timeout_s, max_retries=0
        )

    def __call__(self, messages: list[Message], seed: int) -> Reply:
        try:
            response = self._client.chat.completions.create(
                model=self.config.model,
                messages=messages,
                temperature=self.config.temperature,
                max_tokens=self.config.max_tokens,
                seed=seed,
            )
        except Exception as error:  # whatever the client raises is a failed attempt, never the end of a training run
            raise call_error(error, self._secrets, self._transient) from None
        return read_completion(response, usage_of(self.config, getattr(response, "usage", None), lambda: None))


def read_completion(response: object, usage: Usage) -> Reply:
    """The reply of a chat completion. Raises a retryable CallError where the response holds none."""
    choices = getattr(response, "choices", None)
    if not choices:
        raise CallError("the server's answer holds no choices", retryable=True)
    return Reply(choices[0].message.content or "", choices[0].finish_reason, usage)


def _import() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "fast.proposer.kind: 'openai' needs the openai package: install it with pip install openai"
        ) from error
    return openai
