"""The slow side's interface: three protocols, `Sampler`, `Learner` and `Checkpoints`, and an engine,
which is all of them.

Tokens in, tokens out, and every call is synchronous and batched, so that an engine that speaks the Tinker API can
implement it as well: `sample` is a set of futures awaited together, `train_step` is forward_backward plus optim_step.
`distill_step` alone asks for more than log-probabilities of given tokens: whole distributions of two contexts.

Errors: every method raises `InfrastructureError` when the machine or server behind it fails, and `DivergedError` where
log-probabilities or weights are not finite. An update whose loss or gradient is not finite is left out: see
`UpdateMetrics.not_finite`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from fastslow.errors import ConfigError
from fastslow.types import Completion, Message, Tool

Weights = Literal["current", "base"]


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn. `temperature` 0 is greedy; `max_tokens` counts the end-of-sequence token."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class SampleRequest:
    """`n` completions of one context. Completion i depends on the weights, the context and (seed, i) alone.

    `continued_tokens`: the context begins with that many tokens of an earlier request and its completion (all of both),
    as the turns of an episode do. A sampler may keep keys and values of `context + completion` and look them up by
    `context_tokens[:continued_tokens]`; what it samples must not depend on that. 0: nothing is known of.
    `keep`: a later request may continue this one. A sampler that keeps something has a method `release(sequences)`,
    which is told which of them (context and completion) nothing will continue.
    """

    context_tokens: tuple[int, ...]
    n: int
    seed: int
    continued_tokens: int = 0
    keep: bool = False


@dataclass(frozen=True)
class TokenSequence:
    """A context and a completion of it; log-probabilities are those of the completion's tokens."""

    context_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Datum:
    """One turn of a rollout as the update sees it.

    `advantage` holds for each of its tokens. `token_weight` is the weight of each token in the step's loss:
    1 / (tokens of its problem's group * problems) gives the paper's problem-level aggregation. `fresh`: the weights
    that the update starts from sampled it; false for a reused rollout of an older policy.
    """

    context_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    advantage: float
    token_weight: float
    fresh: bool = True

    def __post_init__(self) -> None:
        if not self.completion_tokens or len(self.completion_tokens) != len(self.sampler_logprobs):
            raise ValueError(
                f"a datum needs one sampler log-probability a completion token, got {len(self.sampler_logprobs)} for "
                f"{len(self.completion_tokens)} tokens"
            )


@dataclass(frozen=True)
class DistillDatum:
    """One turn of the student's rollout as distillation sees it: the same completion after the student's context, which
    it was sampled from, and after the teacher's. `token_weight` as in `Datum`.
    """

    context_tokens: tuple[int, ...]
    teacher_context_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    token_weight: float

    def __post_init__(self) -> None:
        if not (self.context_tokens and self.teacher_context_tokens and self.completion_tokens):
            raise ValueError("a datum of distillation needs two contexts and a completion, none of them empty")


@dataclass(frozen=True)
class UpdateMetrics:
    """What one update did. Ratio, clip fraction, entropy (nats) and KL (nats a token) are means over tokens; NaN where
    the update has no such thing. `not_finite` says what was NaN or infinite, and is why the update was left out.
    `loss_metrics`: the means of what the loss measures besides its clip fraction.

    `mismatch_kl` and `mismatch_max` say how far sampler and learner were apart on the fresh datums before the
    update, in nats a token and in nats (`slow/mismatch.py`); NaN where that is not known. `masked`: completions that
    the correction left out.
    """

    loss: float
    grad_norm: float
    ratio_mean: float
    ratio_max: float
    clip_fraction: float
    entropy: float
    kl_penalty: float
    tokens: int
    computed_tokens: int
    not_finite: str | None = None
    loss_metrics: Mapping[str, float] = field(default_factory=dict)
    mismatch_kl: float = math.nan
    mismatch_max: float = math.nan
    masked: int = 0


NAN = math.nan
NO_UPDATE = UpdateMetrics(0.0, 0.0, NAN, NAN, 0.0, NAN, 0.0, 0, 0)
"""What an update without any datum did."""


@dataclass(frozen=True)
class Correction:
    """What an update does where sampler and learner differ, see `slow/mismatch.py`. `low` and `high` bound the ratio of
    their probabilities: of a token for `truncate`, which has no lower bound, of a whole completion for `mask`.
    """

    kind: Literal["none", "truncate", "mask"] = "none"
    low: float = 0.0
    high: float = 2.0


@dataclass(frozen=True)
class LossSettings:
    """Which loss, and its constants. `tau` is the absolute ceiling of the ratio (paper: 1 + clip_high = 4),
    `floor` its floor, `1 - clip_low`.

    `temperature` is the one that the rollouts were sampled at. Log-probabilities, ratio, entropy and KL penalty are
    those of softmax(logits / temperature), so that the ratio of a fresh rollout is 1.

    `entropy_coefficient` times the entropy of the learner's distribution, over the full vocabulary, is taken off
    each token's loss, and the gradient flows through it. An engine that cannot do that, or cannot make the
    `correction`, refuses it.
    """

    name: str = "cispo"
    tau: float = 4.0
    kl_coefficient: float = 1e-3
    temperature: float = 1.0
    floor: float = 0.0
    correction: Correction = Correction()
    entropy_coefficient: float = 0.0


class Sampler(Protocol):
    """Draws completions from the current weights.

    One that draws a call's completions in parts may have an attribute `on_rows`, None at first: where the run puts a
    function there, the sampler calls it after each part with how many are drawn, and of how many.
    """

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        """Completions of each request, in order: `len(result[i]) == requests[i].n`, with the log-probabilities that
        they were drawn with. Raises TooLongError for what the model's context does not hold.
        """
        ...

    def sync(self) -> None:
        """Take the weights as they are now. The engine calls it after every update and `load`; twice does no harm."""
        ...


class Learner(Protocol):
    """Measures completions under the current and the base weights, and moves the current ones."""

    @property
    def policy_version(self) -> int:
        """Number of updates that the weights have had; each `train_step` and each `distill_step` applied adds one."""
        ...

    @property
    def kl_is_exact(self) -> bool:
        """Whether `kl_to_base` sums over the vocabulary; otherwise it estimates from the completion's own tokens."""
        ...

    @property
    def intact(self) -> bool:
        """False where an update has begun and its outcome is not known: weights in such a state must not be saved."""
        ...

    def logprobs(self, sequences: Sequence[TokenSequence], weights: Weights = "current") -> list[list[float]]:
        """Temperature-1 log-probabilities of every completion token, under the current or the base weights."""
        ...

    def kl_to_base(self, sequences: Sequence[TokenSequence]) -> list[list[float]]:
        """KL(current || base) at every completion position, in nats.

        Over the full vocabulary where `kl_is_exact`. Otherwise an estimate, unbiased where the completions were sampled
        from the current weights at temperature 1.
        """
        ...

    def train_step(self, datums: Sequence[Datum], loss: LossSettings, learning_rate: float) -> UpdateMetrics:
        """One optimiser step on the sum over tokens of `token_weight * loss`.

        Raises: ConfigError, before anything moves, for a loss, a correction or an entropy bonus that it cannot run.
        """
        ...

    def distill_step(
        self, datums: Sequence[DistillDatum], learning_rate: float, temperature: float = 1.0
    ) -> UpdateMetrics:
        """One optimiser step on the sum over tokens of `token_weight * KL(student || teacher)`,
        over the full vocabulary.

        The student is the current weights after `context_tokens`, the teacher the base weights after
        `teacher_context_tokens`, both at the temperature of the rollouts; the gradient flows through the student alone.
        Raises: ConfigError, before anything moves, where it cannot do that.
        """
        ...


class Checkpoints(Protocol):
    """Writes the weights, and takes them back."""

    def save(self, directory: Path, *, resumable: bool) -> None:
        """Write the weights as a directory that transformers (or PEFT) loads; with what resuming needs if asked."""
        ...

    def load(self, directory: Path) -> None:
        """Restore what `save(..., resumable=True)` wrote, bit for bit."""
        ...


class PolicyEngine(Sampler, Learner, Checkpoints, Protocol):
    """A policy that can be sampled, measured, trained and saved, with its tokenizer."""

    @property
    def context_limit(self) -> int | None:
        """Positions of the model's context, completion included; None: not known.
        `sample` raises TooLongError beyond it.
        """
        ...

    def describe(self) -> str:
        """In one line what it computes in, and what it decided about this model and why."""
        ...

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Context tokens for chat messages, generation prompt included. Never mutates its argument."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of completion tokens, special tokens left out."""
        ...


class Chat(Protocol):
    """How an engine renders conversations. It is optional: an engine that has one has it as the attribute `renderer`.

    Without it each turn of an episode gets a context of its own, which `encode` makes of the whole conversation,
    and tools are told in words.
    """

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Context tokens for chat messages and tools, generation prompt included."""
        ...

    def extend(
        self,
        last: TokenSequence,
        conversation: Sequence[Message],
        said: Sequence[Message],
        tools: Sequence[Tool] = (),
    ) -> tuple[int, ...]:
        """The context of an episode's next turn, after `last` and what the environment `said` to it.

        It begins with every token of `last`; what was sampled is never rendered again. Where the template would render
        the conversation (all messages, the policy's last one included) in another way, it is the whole rendering:
        a fork.
        """
        ...

    def read(self, context_tokens: Sequence[int], tokens: Sequence[int], tools: Sequence[Tool] = ()) -> str:
        """Text of a turn's tokens. With tools it is what the environment gets:
        as `Episode.step` in `tasks/episode.py` says.
        """
        ...


def check_protocol(made: object, protocol: type, what: str) -> None:
    """Raises ConfigError, which begins with `what`, where an object lacks members of one of these protocols;
    it names them.
    """
    wanted = {
        name
        for part in protocol.__mro__
        if part.__module__ == __name__
        for name in vars(part)
        if not name.startswith("_")
    }
    missing = sorted(name for name in wanted if not hasattr(made, name))
    if missing:
        raise ConfigError(
            f"{what} gave {made!r}, which is no {protocol.__name__}: it lacks {', '.join(missing)}. See docs/engine.md"
        )
