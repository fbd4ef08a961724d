"""Reflection through LiteLLM: any model name that it knows, from hosted ones to a local server."""

import os
import warnings
from typing import Any

from fastslow.errors import ConfigError
from fastslow.fast.proposers.base import Proposer
from fastslow.fast.proposers.prices import UNKNOWN_PRICE, Billing, address_of, billing
from fastslow.fast.proposers.reflection import ReflectionProposer, Reply
from fastslow.fast.proposers.reflection_prompt import Wording
from fastslow.fast.proposers.remote import RemoteModel, call_error, check_remote, within
from fastslow.fast.proposers.replies import ReplyReader
from fastslow.fast.proposers.secrets import NO_KEY, api_key, known_secrets
from fastslow.fast.proposers.settings import RemoteConfig
from fastslow.slow.engine import PolicyEngine
from fastslow.types import Message


def check(config: RemoteConfig) -> None:
    """Raises ConfigError for a missing package or key, and for a model name without a provider."""
    litellm = _import()
    check_remote(config)
    try:
        litellm.get_llm_provider(config.model, api_base=config.base_url)
    except litellm.BadRequestError:
        raise ConfigError(
            f"fast.proposer.model: LiteLLM knows no provider for {config.model!r}: write provider/model, for example "
            "openai/gpt-5.2, anthropic/claude-sonnet-4-5 or ollama/qwen3"
        ) from None
    if config.api_key_env is None and config.base_url is None:
        _check_environment(litellm, config)


def build(config: RemoteConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config."""
    check(config)
    model = RemoteModel(str(config.model), LiteLLMChat(config), config)
    return ReflectionProposer(model, Wording.of(config), log_chars=config.log_chars, api_key=api_key(config))


class LiteLLMChat:
    """One attempt of a completion. Parameters that a model refuses, such as a temperature, are left out."""

    def __init__(self, config: RemoteConfig) -> None:
        self._litellm = _import()
        self.config = config
        # Without a key of its own, a server at base_url gets none of the environment's: it may be anybody's.
        self._api_key = api_key(config) or (NO_KEY if config.base_url else None)
        self._secrets = known_secrets(self._api_key)
        self._reader = ReplyReader(config, self._api_key, self._secrets)
        self._billing = _billing(self._litellm, config)

    def __call__(self, messages: list[Message], seed: int) -> Reply:
        config = self.config
        try:
            response = within(
                config.timeout_s,
                lambda: self._litellm.completion(
                    model=config.model,
                    messages=messages,
                    temperature=config.temperature,
                    max_tokens=config.max_tokens,
                    seed=seed,
                    timeout=config.timeout_s,
                    api_key=self._api_key,
                    api_base=config.base_url,
                    drop_params=True,
                    num_retries=0,
                    max_retries=0,
                ),
            )
            return self._reader.read(response, lambda: self._list_price(response))
        except Exception as error:  # whatever LiteLLM raises is a failed attempt, never the end of a training run
            raise call_error(error, self._secrets, (TimeoutError,)) from None

    def _list_price(self, response: object) -> float | None:
        if self._billing != "list":
            return 0.0 if self._billing == "free" else None
        try:
            return float(self._litellm.completion_cost(completion_response=response))
        except Exception:  # LiteLLM raises a bare Exception for a model without a price: the cost is unknown
            return None


def list_price(config: RemoteConfig) -> tuple[tuple[float, float] | None, str]:
    """USD for a million tokens read and written, as LiteLLM's list has them for a provider's own address; and in words,
    whose price it is.
    """
    litellm = _import()
    kind = _billing(litellm, config)
    if kind == "free":
        return (0.0, 0.0), "a server of your own costs nothing"
    if kind == "unknown":
        return None, UNKNOWN_PRICE
    try:
        read, written = litellm.cost_per_token(model=config.model, prompt_tokens=10**6, completion_tokens=10**6)
    except Exception:  # LiteLLM raises a bare Exception for a model without a price
        return None, UNKNOWN_PRICE
    return (float(read), float(written)), "LiteLLM's list prices"


def _billing(litellm: Any, config: RemoteConfig) -> Billing:
    try:
        provider = str(litellm.get_llm_provider(config.model, api_base=config.base_url)[1])
    except Exception:  # its name is refused elsewhere, with the way out
        return "unknown"
    return billing(provider, address_of(provider, config.base_url))


def _check_environment(litellm: Any, config: RemoteConfig) -> None:
    missing = litellm.validate_environment(config.model)["missing_keys"]
    # Other names (regions, projects) may come from a provider's own files,
    # so that only plain keys can be known to lack.
    if missing and all(name.endswith("_API_KEY") for name in missing):
        raise ConfigError(
            f"fast.proposer.model: {config.model!r} needs the environment variable {' or '.join(missing)}: export it, "
            "or name another one in fast.proposer.api_key_env"
        )


def _import() -> Any:
    # Its price list would otherwise be fetched from the network while it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError as error:
        raise ConfigError(
            "fast.proposer.kind: 'litellm' needs the litellm package: install it with pip install 'fastslow[litellm]'"
        ) from error
    litellm.suppress_debug_info = True
    # Over an answer of another shape, its objects warn with the answer's words, whatever these hold.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    return litellm
