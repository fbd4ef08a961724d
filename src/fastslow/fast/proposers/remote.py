"""Calls to a reflection LM on a server: time limits, retries, waiting, error messages without secrets.

The client libraries' own retries are off, so that every attempt is counted here and nowhere else.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar

from fastslow.errors import ConfigError, ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.reflection import Question, Reply
from fastslow.fast.proposers.reflection_prompt import Wording
from fastslow.fast.proposers.replies import BrokenReply
from fastslow.fast.proposers.secrets import api_key, redact
from fastslow.fast.proposers.settings import RemoteConfig
from fastslow.seeding import derive_seed
from fastslow.text import printable, shortened, storable
from fastslow.threads import side_by_side, together
from fastslow.types import Message

CALLS_AT_ONCE = 8
MAX_WAIT_S = 60.0
MAX_RETRY_AFTER_S = 300.0
RETRYABLE_STATUS = (408, 409, 429)
ADVICE: Mapping[int, str] = {
    400: "check fast.proposer.model and max_tokens; where the server names a parameter that it does not take, kind: "
    "litellm leaves it out",
    401: "set the environment variable named by fast.proposer.api_key_env to a valid key",
    403: "this key may not use fast.proposer.model: choose another model, or another key in fast.proposer.api_key_env",
    404: "check fast.proposer.model, and fast.proposer.base_url, which for most servers ends in /v1",
}


class CallError(Exception):
    """One failed attempt; its message holds no secret. `retry_after_s` is what the server asks to wait."""

    def __init__(self, message: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retryable, self.retry_after_s = retryable, retry_after_s


Value = TypeVar("Value")

Complete = Callable[[list[Message], int], Reply]
"""One attempt: messages and a seed to a reply. Raises CallError."""


class RemoteModel:
    """A reflection LM behind a server: questions go out side by side, each with its own retries."""

    def __init__(
        self, name: str, complete: Complete, config: RemoteConfig, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.name, self.complete, self.sleep = name, complete, sleep
        self.retries, self.backoff_s = config.retries, config.backoff_s
        self.request_chars = config.request_chars

    def answer(self, questions: Sequence[Question]) -> list[Reply | ReflectionError]:
        """Ask the server, several conversations at a time; answers come in the order of the questions."""
        if len(questions) == 1:
            return [self._ask(questions[0])]
        # Threads that nobody waits for: a pool would hold a second Ctrl-C up until every call has ended.
        return together([partial(self._ask, question) for question in questions], CALLS_AT_ONCE)

    def _ask(self, question: Question) -> Reply | ReflectionError:
        # JSON has no lone surrogates, and an answer or a verifier's feedback may.
        messages: list[Message] = [
            {"role": message["role"], "content": storable(message["content"])}
            for message in question.messages(self.request_chars)
        ]
        jitter = random.Random(derive_seed(question.seed, "backoff"))
        failures = 0
        while True:
            try:
                reply = self.complete(messages, question.seed % 2**31)
            except CallError as error:
                wait = self._wait(error, failures, jitter)
                failures += 1
                if wait is None:
                    return ReflectionError(f"{self.name}: {error}", Usage(calls=failures, failures=failures))
                self.sleep(wait)
            else:
                attempts = Usage(calls=failures + 1, failures=failures)
                return replace(reply, usage=reply.usage + attempts)

    def _wait(self, error: CallError, retried: int, jitter: random.Random) -> float | None:
        """Seconds until the next attempt; None where there is none."""
        if not error.retryable or retried >= self.retries:
            return None
        wait = min(MAX_WAIT_S, self.backoff_s * 2.0 ** min(retried, 30)) * jitter.uniform(0.5, 1.5)
        if error.retry_after_s is None:
            return wait
        return max(wait, error.retry_after_s) if error.retry_after_s <= MAX_RETRY_AFTER_S else None


def within(timeout_s: float, call: Callable[[], Value]) -> Value:
    """What a call gives, whole, within its time. Raises what it raises, and TimeoutError where it takes longer.

    The client libraries' own time limits begin anew with every byte, so that an answer that drips would never end. A
    call that is given up goes on in a thread that keeps nothing alive, until its connection is closed.
    """

    def attempt() -> tuple[list[Value], Exception | None]:
        try:
            return [call()], None
        except Exception as error:
            return [], error

    outcome = side_by_side([attempt], timeout_s, workers=1)[0]
    if outcome.timed_out:
        raise TimeoutError(f"no whole answer within {timeout_s:g} s (fast.proposer.timeout_s)")
    if outcome.failure is not None:  # the client ended its thread: no answer will come
        raise BrokenReply(outcome.failure)
    values: list[Value]
    values, error = outcome.value
    if error is not None:
        raise error
    return values[0]


def call_error(error: Exception, secrets: Sequence[str], transient: tuple[type[Exception], ...]) -> CallError:
    """What a library raised, as one of ours: retryable or not, in words, without secrets and control characters."""
    status = getattr(error, "status_code", None)
    words = shortened(printable(redact(" ".join(str(error).split()), secrets)), 500) or type(error).__name__
    if isinstance(error, BrokenReply):
        return CallError(words, retryable=True)
    if not isinstance(status, int):
        return CallError(f"{type(error).__name__}: {words}", retryable=isinstance(error, transient))
    retryable = status in RETRYABLE_STATUS or status >= 500
    advice = f". The way out: {ADVICE[status]}" if status in ADVICE else ""
    return CallError(f"HTTP {status}: {words}{advice}", retryable=retryable, retry_after_s=retry_after(error))


def retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait: its Retry-After header holds seconds or a date."""
    value = _header(error, "retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def check_remote(config: RemoteConfig) -> None:
    """Raises ConfigError for a missing key, a template that lacks a field, or half a price."""
    api_key(config)
    Wording.of(config)
    if (config.usd_per_million_input_tokens is None) != (config.usd_per_million_output_tokens is None):
        raise ConfigError(
            "fast.proposer.usd_per_million_input_tokens and usd_per_million_output_tokens: give both prices, or neither"
        )


def _header(error: Exception, name: str) -> str | None:
    # LiteLLM keeps the server's headers beside a response of its own making that has none.
    sources = (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    )
    return next((str(source[name]) for source in sources if source and name in source), None)
