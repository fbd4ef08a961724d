"""Reflection by the policy itself: no second model, no key, no price. Its completions count as sampled rollouts.

The policy may be small: its questions are shorter than a server's, and are shortened until they fit its context.
"""

from collections.abc import Sequence

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Proposer
from fastslow.fast.proposers.reflection import Question, ReflectionProposer, Reply
from fastslow.fast.proposers.reflection_prompt import Wording
from fastslow.fast.proposers.settings import PolicyProposerConfig
from fastslow.slow.engine import PolicyEngine, SampleRequest, SamplingParams
from fastslow.types import Completion

REQUEST_CHARS: int = PolicyProposerConfig.model_fields["request_chars"].default
MIN_REQUEST_CHARS = 250


def check(config: PolicyProposerConfig) -> None:
    """Raises ConfigError for a template that cannot be used; nothing else can be known before the policy is loaded."""
    Wording.of(config)


def build(config: PolicyProposerConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config."""
    model = PolicyModel(engine, config.max_tokens, config.temperature, config.request_chars)
    return ReflectionProposer(model, Wording.of(config), log_chars=config.log_chars)


class PolicyModel:
    """Answers questions in one batch of the policy, with its current weights."""

    def __init__(
        self, engine: PolicyEngine, max_tokens: int, temperature: float, request_chars: int = REQUEST_CHARS
    ) -> None:
        self.engine, self.temperature, self.request_chars = engine, temperature, request_chars
        self.limit: int | None = getattr(engine, "context_limit", None)
        # At most half of the context is kept for the reply, so that a question always has room.
        self.max_tokens = max_tokens if self.limit is None else min(max_tokens, self.limit // 2)

    def answer(self, questions: Sequence[Question]) -> list[Reply | ReflectionError]:
        """Sample one answer of the policy under training to each conversation, in one batch."""
        contexts = [self._fit(question) for question in questions]
        requests = [
            SampleRequest(context, 1, question.seed)
            for question, context in zip(questions, contexts, strict=True)
            if context is not None
        ]
        params = SamplingParams(self.max_tokens, self.temperature)
        sampled = iter(self.engine.sample(requests, params) if requests else [])
        return [self._too_long() if c is None else self._reply(c, next(sampled)[0]) for c in contexts]

    def _fit(self, question: Question) -> tuple[int, ...] | None:
        """The question's tokens, its examples halved until they fit; None where they never do."""
        chars = self.request_chars
        while True:
            context = self.engine.encode(question.messages(chars))
            if self.limit is None or len(context) + self.max_tokens <= self.limit:
                return context
            chars //= 2
            if chars < MIN_REQUEST_CHARS:
                return None

    def _reply(self, context: tuple[int, ...], completion: Completion) -> Reply:
        written = len(completion.tokens)
        usage = Usage(calls=1, input_tokens=len(context), output_tokens=written, sampled=1, sampled_tokens=written)
        return Reply(self.engine.decode(completion.tokens), completion.finish_reason, usage)

    def _too_long(self) -> ReflectionError:
        return ReflectionError(
            f"the reflection question does not fit the policy's {self.limit} positions beside {self.max_tokens} tokens "
            "of reply: lower fast.proposer.max_tokens or max_prompt_chars",
            Usage(calls=1, failures=1),
        )
