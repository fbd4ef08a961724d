"""What reflection may take, before a run begins: calls, tokens and money.

Upper bounds, but for calls that are tried again and for replies that bring nothing new: these cost no metric calls.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastslow.fast.proposers.base import Example, ProposalRequest
from fastslow.fast.proposers.reflection_prompt import Wording, render_messages
from fastslow.fast.proposers.registry import price_of
from fastslow.fast.proposers.settings import ReflectionConfig, RemoteConfig
from fastslow.types import Prompt

FEEDBACK_CHARS = 300
"""What a verifier's words are taken to be long."""


@dataclass(frozen=True)
class ReflectionEstimate:
    """Calls of a cycle, from `fewest`, where every child is scored on all anchors, to `most`, where none is;
    tokens of a call.

    `usd`: of the whole run at most; None where the price is not known. `price`: in words, whose price it is.
    """

    fewest: int
    most: int
    cycles: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    price: str

    def describe(self) -> list[str]:
        """In words."""
        total = self.cycles * self.most
        read, written = total * self.input_tokens, total * self.output_tokens
        money = "" if self.usd is None else f": up to {self.usd:.2f} USD"
        return [
            f"reflection: {self.fewest} to {self.most} calls a cycle, up to {total} in {self.cycles} cycles, retries "
            f"and replies that bring nothing new not counted; a call reads up to about {self.input_tokens} tokens and "
            f"writes up to {self.output_tokens}",
            f"together up to {read / 1e6:.2f} M tokens read and {written / 1e6:.2f} M written{money} ({self.price})",
        ]


def calls_of_a_cycle(metric_calls: int, anchors: int, minibatch: int, seeds: int) -> tuple[int, int]:
    """The fewest and the most children that the budget of a cycle pays for, its seeds scored first.

    A child costs its minibatch, whose problems are anchors, and as many more anchors as it is scored on.
    """
    left = max(0, metric_calls - seeds * anchors)
    return left // max(anchors, minibatch), left // min(anchors, minibatch)


def estimate_reflection(
    config: ReflectionConfig,
    *,
    calls: tuple[int, int],
    cycles: int,
    minibatch: int,
    prompt: Prompt,
    question: str,
    answer_tokens: int,
    count: Callable[[str], int],
) -> ReflectionEstimate:
    """`question`: a problem of usual length; `answer_tokens`: of the longest answer; `count`: tokens of a text,
    roughly those of the reflection LM too.
    """
    per_token = len(question) / max(1, count(question))
    answer = "x" * round(answer_tokens * max(1.0, per_token))
    example = Example(question, answer, 0.0, "x" * FEEDBACK_CHARS)
    request = ProposalRequest(prompt, prompt.components[0][0], (example,) * minibatch, 0)
    asked = sum(
        len(message["content"]) for message in render_messages(request, Wording.of(config), config.request_chars)
    )
    input_tokens = round(asked / max(1.0, per_token))
    prices, words = price_of(config) if isinstance(config, RemoteConfig) else ((0.0, 0.0), "the policy's own tokens")
    total = cycles * calls[1]
    usd = None
    if prices is not None:
        usd = total * (input_tokens * prices[0] + config.max_tokens * prices[1]) / 1e6
    return ReflectionEstimate(calls[0], calls[1], cycles, input_tokens, config.max_tokens, usd, words)
