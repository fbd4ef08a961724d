"""What a reflection server's answer holds, read without trust: the text, and what it cost.

A client library builds its objects from whatever JSON came, so that any member may be missing or of any type.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.reflection import Reply
from fastslow.fast.proposers.secrets import redact
from fastslow.fast.proposers.settings import RemoteConfig
from fastslow.text import printable, shortened, shown

MOST_TOKENS = 10**8
"""No call of any model reads or writes that many tokens: more is a mistake, and is not booked."""
LONG_SECRET = 16
LONGEST_REASON = 100
"""Characters of a finish reason that are kept: it is a word."""

logger = logging.getLogger(__name__)


class BrokenReply(ValueError):
    """A server's answer that is no chat completion. The message has nothing of the answer but the kind of a value."""


class ReplyReader:
    """Reads one server's answers. `key`: what it was sent; `secrets`: what else must not come back from it."""

    def __init__(self, config: RemoteConfig, key: str | None, secrets: Sequence[str]) -> None:
        self.config = config
        # A short value of the environment may be an ordinary word of a prompt; it was never sent to the server either.
        self._echoes = [secret for secret in secrets if secret == key or len(secret) >= LONG_SECRET]
        self._warned = False

    def read(self, response: object, list_price: Callable[[], float | None]) -> Reply:
        """The reply of a chat completion. Raises BrokenReply where the response holds none."""
        text, finish_reason = read_completion(response)
        refusal = None
        if any(secret in text for secret in self._echoes):
            text, refusal = redact(text, self._echoes), "the reply repeats a key or another secret of the environment"
        if finish_reason is not None:
            finish_reason = shortened(printable(redact(finish_reason, self._echoes)), LONGEST_REASON)
        return Reply(text, finish_reason, self._usage(response, list_price), refusal)

    def _usage(self, response: object, list_price: Callable[[], float | None]) -> Usage:
        try:
            return usage_of(self.config, _member(response, "usage"), list_price)
        except BrokenReply as error:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "fast.proposer: the server's usage is not booked, so that the cost of reflection is "
                    "unknown from here on: %s",
                    error,
                )
            return Usage(usd=None)


def read_completion(response: object) -> tuple[str, str | None]:
    """Text and finish reason of a chat completion. Raises BrokenReply where the response is none."""
    choices = _member(response, "choices")
    if not isinstance(choices, list | tuple) or not choices:
        raise BrokenReply("the server's answer holds no choices")
    message = _member(choices[0], "message")
    if not _has(message, "content"):
        raise BrokenReply("the server's answer holds no message")
    text, reason = _member(message, "content"), _member(choices[0], "finish_reason")
    if not isinstance(text, str | None):
        raise BrokenReply(f"the content of the server's answer is {_kind(text)} instead of a text")
    if not isinstance(reason, str | None):
        raise BrokenReply(f"the finish_reason of the server's answer is {_kind(reason)} instead of a text")
    return text or "", reason


def usage_of(config: RemoteConfig, usage: object, list_price: Callable[[], float | None]) -> Usage:
    """Tokens and price of a response's `usage` part: the config's prices, else the list price, else unknown.

    Raises BrokenReply for a part that holds no numbers of tokens.
    """
    if usage is None:
        return Usage(usd=None)
    asked, written = (_tokens(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    prices = config.usd_per_million_input_tokens, config.usd_per_million_output_tokens
    if prices[0] is not None and prices[1] is not None:
        return Usage(input_tokens=asked, output_tokens=written, usd=(asked * prices[0] + written * prices[1]) / 1e6)
    usd = list_price()
    if usd is not None and not (math.isfinite(usd) and usd >= 0):
        raise BrokenReply(f"its price is {usd}")
    return Usage(input_tokens=asked, output_tokens=written, usd=usd)


def _tokens(usage: object, name: str) -> int:
    if not _has(usage, name) and not isinstance(usage, dict):
        raise BrokenReply(f"usage is {_kind(usage)} instead of numbers of tokens")
    value = _member(usage, name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenReply(f"usage.{name} is {_kind(value)} instead of a number")
    if not 0 <= value <= MOST_TOKENS:
        raise BrokenReply(f"usage.{name} is {shown(value)}")
    return int(value)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _has(value: object, name: str) -> bool:
    return name in value if isinstance(value, dict) else hasattr(value, name)


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
