"""From our datums to those of a server that speaks the Tinker API, and from its answer to the step's metrics.

What the loss adds to a token is `ratio * advantage * log pi`, so whatever else weighs a token stands in its advantage:
the aggregation over problems, how the server itself reduces, and the KL penalty.

Deviations from the local engine: the penalty's gradient is taken at the sampler's log-probabilities instead of the
learner's. They are equal on fresh rollouts; on reused ones the server's importance ratio weighs the penalty as well,
and the clip of `ppo` is that of advantage and penalty together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fastslow.errors import ConfigError
from fastslow.slow.engine import NAN, Datum, LossSettings, TokenSequence, UpdateMetrics
from fastslow.slow.losses import LOSSES, LossInputs, find_loss, importance_ratio
from fastslow.slow.mismatch import Mismatch

Reduction = Literal["tokens", "sequences"]


@dataclass(frozen=True)
class Dialect:
    """How a kind of server takes a policy loss.

    `reduction`: it sums over `tokens`, or takes the mean over `sequences` of each sequence's token mean. `thresholds`:
    the losses whose request may carry clip thresholds; those of others are in the server's own configuration.
    """

    reduction: Reduction
    thresholds: tuple[str, ...]


DIALECTS: dict[str, Dialect] = {
    "hosted": Dialect("tokens", thresholds=("cispo", "ppo")),
    "jax": Dialect("sequences", thresholds=("cispo", "ppo")),
    "fsdp": Dialect("tokens", thresholds=("ppo",)),
    "megatron": Dialect("tokens", thresholds=("ppo",)),
}


@dataclass(frozen=True)
class ServerDatum:
    """Inputs and targets of one sequence, shifted by one. All have one length; context positions have advantage 0."""

    input_tokens: tuple[int, ...]
    target_tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantages: tuple[float, ...]


SERVER_LOSSES = ("cispo", "importance_sampling", "ppo")
"""The losses of the Tinker API whose gradient is `ratio * advantage * d(log pi)`, clipped or not, as `server_datums`
needs it. One that is not here runs on the local engine alone.
"""


def server_loss(name: str) -> str:
    """What a server calls a loss. Raises ConfigError where it has none like it."""
    called = find_loss(name).server if name in LOSSES or ":" in name else None
    if called not in SERVER_LOSSES:
        taken = [known for known in LOSSES if find_loss(known).server in SERVER_LOSSES]
        raise ConfigError(
            f"slow.loss: {name!r} is not a loss of the Tinker API: take one of {', '.join(taken)}, or engine: local"
        )
    return called


def loss_config(dialect: Dialect, loss: LossSettings) -> dict[str, float] | None:
    """The thresholds that go with a request, absolute: what the ratio is clamped to. CISPO has no floor."""
    called = server_loss(loss.name)
    if called not in dialect.thresholds:
        return None
    return {"clip_low_threshold": loss.floor if called == "ppo" else 0.0, "clip_high_threshold": loss.tau}


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
    server_loss(loss.name)
    inputs = LossInputs(
        _flat(learner_logprobs),
        _flat([datum.sampler_logprobs for datum in datums]),
        _flat([[datum.advantage] * len(datum.completion_tokens) for datum in datums]),
        _flat([[datum.token_weight] * len(datum.completion_tokens) for datum in datums]),
        torch.tensor([len(datum.completion_tokens) for datum in datums]),
        loss,
    )
    output = find_loss(loss.name)(inputs)
    learner, ratio = inputs.learner_logprobs_N, importance_ratio(inputs.learner_logprobs_N, inputs.sampler_logprobs_N)
    penalty = torch.zeros_like(learner)
    if base_logprobs is not None:
        penalty = _flat([kl_estimates(c, b) for c, b in zip(learner_logprobs, base_logprobs, strict=True)])
    mismatch = Mismatch()
    fresh = torch.tensor([datum.fresh for datum in datums])
    mismatch.add((learner - inputs.sampler_logprobs_N)[inputs.to_tokens(fresh)])
    own = {name: float(values.double().mean()) for name, values in output.metrics.items()}
    computed = sum(len(datum.context_tokens) + len(datum.completion_tokens) for datum in datums)
    return UpdateMetrics(
        loss=float((inputs.token_weights_N * (output.loss + loss.kl_coefficient * penalty)).sum()),
        grad_norm=grad_norm,
        ratio_mean=float(ratio.mean()),
        ratio_max=float(ratio.max()),
        clip_fraction=own.pop("clip_fraction", NAN),
        entropy=NAN,
        kl_penalty=float(penalty.mean()),
        tokens=len(learner),
        computed_tokens=computed * (1 if base_logprobs is None else 2),
        loss_metrics=own,
        mismatch_kl=mismatch.kl,
        mismatch_max=mismatch.max,
    )


def _flat(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.float64)
