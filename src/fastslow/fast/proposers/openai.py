"""Reflection through any server that speaks the OpenAI chat-completions protocol (vLLM, llama.cpp, SGLang, OpenAI)."""

from typing import Any

from fastslow.errors import ConfigError
from fastslow.fast.proposers.base import Proposer
from fastslow.fast.proposers.prices import UNKNOWN_PRICE
from fastslow.fast.proposers.reflection import ReflectionProposer, Reply
from fastslow.fast.proposers.reflection_prompt import Wording
from fastslow.fast.proposers.remote import RemoteModel, call_error, check_remote, within
from fastslow.fast.proposers.replies import ReplyReader
from fastslow.fast.proposers.secrets import NO_KEY, api_key, known_secrets
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
    return ReflectionProposer(model, Wording.of(config), log_chars=config.log_chars, api_key=api_key(config))


def list_price(config: RemoteConfig) -> tuple[tuple[float, float] | None, str]:
    """There is no list for this protocol: anybody may speak it."""
    return None, UNKNOWN_PRICE


class OpenAIChat:
    """One attempt of a chat completion. The key comes from the named environment variable and from nowhere else."""

    def __init__(self, config: RemoteConfig) -> None:
        self._openai = openai = _import()
        self.config = config
        self._key = api_key(config) or NO_KEY
        self._secrets = known_secrets(self._key)
        self._reader = ReplyReader(config, self._key, self._secrets)
        # A server that answers 200 with something that is no completion is broken for the moment, like one that hangs
        # up. The client fails over such an answer with whatever its code happens to raise.
        self._transient = (
            openai.APIConnectionError, openai.APIResponseValidationError, TimeoutError,
            ValueError, TypeError, AttributeError, LookupError, RecursionError,
        )  # fmt: skip

    def __call__(self, messages: list[Message], seed: int) -> Reply:
        config = self.config
        try:
            # A client of its own, so that closing it ends an answer that is given up, and no other.
            with self._openai.OpenAI(
                base_url=config.base_url, api_key=self._key, timeout=config.timeout_s, max_retries=0
            ) as client:
                response = within(
                    config.timeout_s,
                    lambda: client.chat.completions.create(
                        model=config.model,
                        messages=messages,
                        temperature=config.temperature,
                        max_tokens=config.max_tokens,
                        seed=seed,
                    ),
                )
            return self._reader.read(response, lambda: None)
        except Exception as error:  # whatever the client raises is a failed attempt, never the end of a training run
            raise call_error(error, self._secrets, self._transient) from None


def _import() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "fast.proposer.kind: 'openai' needs the openai package: install it with pip install openai"
        ) from error
    return openai
