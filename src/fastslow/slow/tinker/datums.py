"""From our datums to those of a server that speaks the Tinker API, and from its answer to the step's metrics.

What the loss adds to a token is `ratio * advantage * log pi`, so whatever else weighs a token stands in its advantage:
the aggregation over problems, how the server itself reduces, and the KL penalty.

Deviations from the local engine: the penalty's gradient is taken at the sampler's log-probabilities instead of the
learner's. They are equal on fresh rollouts; on reused ones the server's importance ratio weighs the penalty as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastslow.errors import ConfigError
from fastslow.slow.engine import NAN, Datum, LossSettings, TokenSequence, UpdateMetrics

Reduction = Literal["tokens", "sequences"]


@dataclass(frozen=True)
class Dialect:
    """How a kind of server takes a policy loss.

    `reduction`: it sums over `tokens`, or takes the mean over `sequences` of each sequence's token mean. `thresholds`:
    whether a request may carry the clip thresholds of CISPO; where not, the server's own configuration has them.
    """

    reduction: Reduction
    thresholds: bool


DIALECTS: dict[str, Dialect] = {
    "hosted": Dialect("tokens", thresholds=True),
    "jax": Dialect("sequences", thresholds=True),
    "fsdp": Dialect("tokens", thresholds=False),
    "megatron": Dialect("tokens", thresholds=False),
}


@dataclass(frozen=True)
class ServerDatum:
    """Inputs and targets of one sequence, shifted by one. All have one length; context positions have advantage 0."""

    input_tokens: tuple[int, ...]
    target_tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantages: tuple[float, ...]


SERVER_LOSSES: dict[str, str] = {"cispo": "cispo", "importance_sampling": "importance_sampling"}
"""Our losses, each with its name at a server. One that is not here has no server's name: it runs on the local engine alone."""


def server_loss(name: str) -> str:
    """What a server calls a loss. Raises ConfigError where it has none like it."""
    if name not in SERVER_LOSSES:
        raise ConfigError(
            f"slow.loss: {name!r} is not a loss of the Tinker API: take one of {', '.join(SERVER_LOSSES)}, or engine: local"
        )
    return SERVER_LOSSES[name]


def loss_config(dialect: Dialect, loss: LossSettings) -> dict[str, float] | None:
    """The thresholds that go with a request, absolute: the ratio is clamped to [0, tau]."""
    if loss.name != "cispo" or not dialect.thresholds:
        return None
    return {"clip_low_threshold": 0.0, "clip_high_threshold": loss.tau}


def server_datums(
    datums: Sequence[Datum],
    loss: LossSettings,
    base_logprobs: Sequence[Sequence[float]] | None,
    reduction: Reduction,
) -> list[ServerDatum]:
    """Datums whose loss, reduced by the server, is `sum(token_weight * (policy loss + kl_coefficient * penalty))`.

    `base_logprobs`: one row a datum, one value a completion token; None without a penalty.
    Source: arXiv 2605.12484 section 3.2. d(exp(d) - d - 1) = (1 - exp(d)) d(log pi), so the penalty adds
    `kl_coefficient * (exp(d) - 1)` to an advantage, `d = log pi_base - log pi`.
    """
    rows: Sequence[Sequence[float] | None] = base_logprobs if base_logprobs is not None else [None] * len(datums)
    made = []
    for datum, base in zip(datums, rows, strict=True):
        tokens = (*datum.context_tokens, *datum.completion_tokens)
        padding = (0.0,) * (len(datum.context_tokens) - 1)
        advantages = np.full(len(datum.completion_tokens), datum.advantage)
        if base is not None:
            advantages += loss.kl_coefficient * np.expm1(np.asarray(base) - np.asarray(datum.sampler_logprobs))
        scale = datum.token_weight
        if reduction == "sequences":
            scale *= (len(tokens) - 1) * len(datums)
        made.append(
            ServerDatum(
                tokens[:-1],
                tokens[1:],
                (*padding, *datum.sampler_logprobs),
                (*padding, *(float(value) for value in scale * advantages)),
            )
        )
    return made


def scoring_datum(sequence: TokenSequence) -> ServerDatum:
    """A datum that is only to be scored."""
    tokens = (*sequence.context_tokens, *sequence.completion_tokens)
    nothing = (0.0,) * (len(tokens) - 1)
    return ServerDatum(tokens[:-1], tokens[1:], nothing, nothing)


def kl_estimates(current: Sequence[float], base: Sequence[float]) -> list[float]:
    """Monte-Carlo estimate of KL(current || base) at each sampled token: `exp(d) - d - 1`, never negative.

    Unbiased where the tokens were sampled from `current` at temperature 1. Source: arXiv 2402.03300 eq. 4.
    """
    return [math.expm1(b - c) - (b - c) for c, b in zip(current, base, strict=True)]


def update_metrics(
    datums: Sequence[Datum],
    learner_logprobs: Sequence[Sequence[float]],
    base_logprobs: Sequence[Sequence[float]] | None,
    loss: LossSettings,
    grad_norm: float,
) -> UpdateMetrics:
    """The metrics of an update from the learner's log-probabilities before it, as the local engine defines them.

    The entropy over the vocabulary is not known here: NaN.
    """
    learner = _flat(learner_logprobs)
    sampler = _flat([datum.sampler_logprobs for datum in datums])
    advantages = _flat([[datum.advantage] * len(datum.completion_tokens) for datum in datums])
    weights = _flat([[datum.token_weight] * len(datum.completion_tokens) for datum in datums])
    ratio = np.exp(learner - sampler)
    per_token = -_weighed(loss, ratio, learner) * advantages
    penalty = np.zeros_like(learner)
    if base_logprobs is not None:
        penalty = np.asarray(kl_estimates(learner.tolist(), _flat(base_logprobs).tolist()))
    computed = sum(len(datum.context_tokens) + len(datum.completion_tokens) for datum in datums)
    return UpdateMetrics(
        loss=float((weights * (per_token + loss.kl_coefficient * penalty)).sum()),
        grad_norm=grad_norm,
        ratio_mean=float(ratio.mean()),
        ratio_max=float(ratio.max()),
        clip_fraction=float((ratio > loss.tau).mean()),
        entropy=NAN,
        kl_penalty=float(penalty.mean()),
        tokens=len(learner),
        computed_tokens=computed * (1 if base_logprobs is None else 2),
    )


def _weighed(loss: LossSettings, ratio: np.ndarray, learner: np.ndarray) -> np.ndarray:
    """What multiplies -A in each loss of `SERVER_LOSSES`, token by token."""
    if loss.name == "cispo":
        return np.asarray(np.minimum(ratio, loss.tau) * learner)
    if loss.name == "importance_sampling":
        return ratio
    raise ConfigError(f"slow.loss: {loss.name!r} is not a loss of the Tinker API: its value is not known here")


def _flat(rows: Sequence[Sequence[float]]) -> np.ndarray:
    return np.asarray([value for row in rows for value in row], dtype=float)
