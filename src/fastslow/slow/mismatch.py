"""Sampler and learner may differ: by how much they do, and what an update does about it.

Both have the same weights. Other kernels, another precision or a stale copy give other log-probabilities all
the same. With `mu` what the sampler reports, `pi` the learner's probability and `pi_old` that before the
update, the ratio of a loss is

    pi / mu = (pi / pi_old) * (pi_old / mu)

staleness times mismatch. An update is one optimiser step, so `pi_old` of a fresh rollout is the learner as it
stands, and its `d = log pi_old - log mu` is mismatch alone. Of a reused rollout nobody has kept `pi_old`: its
ratio counts as staleness.

Sources: truncation: Yao et al. 2025, https://fengyao.notion.site/off-policy-rl; masks: Liu et al. 2025,
https://richardli.xyz/rl-collapse. Deviations: docs/engine.md. This module loads without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.engine import Correction, LossSettings
from fastslow.slow.losses import LossInputs
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.settings import SlowConfig

if TYPE_CHECKING:
    import torch

MISMATCH_BAR = 1e-2
"""Nats a token from which on a mismatch is warned of. Source: the bar that prime-rl's tests hold."""
TRUNCATED = ("cispo",)
"""Losses whose gradient has the truncated ratio as its weight already."""


class Mismatch:
    """How far sampler and learner are apart on the tokens that were added; NaN where there are none."""

    def __init__(self) -> None:
        self.tokens = 0
        self._kl = self._size = self._max = 0.0

    def add(self, gaps_N: torch.Tensor) -> None:
        """Count tokens; gaps_N (N,) is `d = log pi_learner - log pi_sampler`, without gradient."""
        if not len(gaps_N):
            return
        gaps = gaps_N.double()
        self.tokens += len(gaps)
        self._kl += float((gaps.expm1() - gaps).sum())
        self._size += float(gaps.abs().sum())
        largest = float(gaps.abs().max())
        self._max = largest if math.isnan(largest) else max(self._max, largest)

    @property
    def kl(self) -> float:
        """The k3 estimate of KL(sampler, learner): the mean of `exp(d) - d - 1`, in nats a token, never negative.

        Source: arXiv 2402.03300 eq. 4, with the sampler as the policy and the learner as the reference.
        """
        return self._kl / self.tokens if self.tokens else math.nan

    @property
    def mean(self) -> float:
        """The mean of |d|, nats."""
        return self._size / self.tokens if self.tokens else math.nan

    @property
    def max(self) -> float:
        """The largest |d|, nats."""
        return self._max if self.tokens else math.nan


@dataclass(frozen=True)
class Corrected:
    """What a loss sees, the factor of each token's loss, (N,) without gradient,
    and the number of completions left out.
    """

    inputs: LossInputs
    factor_N: torch.Tensor
    masked: int = 0


def correct(inputs: LossInputs, fresh_S: torch.Tensor) -> Corrected:
    """Make the correction of the loss's settings. Shapes: fresh_S (S,) bool; reused completions stay as they are.

    `truncate`: the loss of a fresh token has the factor `min(exp(d), high)`, and sees the learner's own log-probability
    from before the update as the behaviour policy's, so that its ratio and its clip speak of staleness alone.
    `mask`: a fresh completion with `exp(sum of d)` outside `[low, high]` has weight 0, its KL penalty too; others stay.
    """
    settings = inputs.settings.correction
    learner_N, fresh_N = inputs.learner_logprobs_N.detach(), inputs.to_tokens(fresh_S)
    ones_N = learner_N.new_ones(len(learner_N))
    if settings.kind == "none":
        return Corrected(inputs, ones_N)
    gaps_N = (learner_N - inputs.sampler_logprobs_N).masked_fill(~fresh_N, 0.0)
    if settings.kind == "truncate":
        behaviour_N = inputs.sampler_logprobs_N.where(~fresh_N, learner_N)
        return Corrected(replace(inputs, sampler_logprobs_N=behaviour_N), gaps_N.exp().clamp(max=settings.high))
    ratio_S = inputs.sequence_sums(gaps_N).exp()
    kept_S = (ratio_S >= settings.low) & (ratio_S <= settings.high)
    kept_N = inputs.to_tokens(kept_S)
    # A ratio that overflows would make NaN of a weight of 0.
    behaviour_N = inputs.sampler_logprobs_N.where(kept_N, learner_N)
    weights_N = inputs.token_weights_N.masked_fill(~kept_N, 0.0)
    kept = replace(inputs, sampler_logprobs_N=behaviour_N, token_weights_N=weights_N)
    return Corrected(kept, ones_N, int((~kept_S).sum()))


# -- the options -------------------------------------------------------------------------------------------------------


def check_correction(slow: SlowConfig, method: str, *, reinforces: bool) -> None:
    """Raises ConfigError for a correction that would mean nothing. `reinforces`: the method has a policy loss."""
    kind, (low, high) = slow.mismatch_correction, slow.mismatch_bounds
    bounds = f"slow.mismatch_bounds: {[low, high]}"
    if kind == "none":
        if slow.mismatch_bounds != SlowConfig().mismatch_bounds:
            raise ConfigError(
                f"{bounds} is for a correction, and slow.mismatch_correction is none: take truncate or "
                "mask, or leave it out"
            )
        return
    if not reinforces:
        raise ConfigError(
            f"slow.mismatch_correction: {kind!r} corrects the policy loss, and method {method!r} has none: leave it out"
        )
    if not 0.0 <= low < 1.0 < high:
        raise ConfigError(
            f"{bounds} must be two numbers with 0 <= lower < 1 < upper: 1 is the ratio where sampler and learner agree"
        )
    if kind == "truncate" and low:
        raise ConfigError(f"{bounds}: truncate cuts weights from above alone: set the lower bound to 0, or take mask")
    if kind == "truncate" and slow.loss in TRUNCATED:
        raise ConfigError(
            f"slow.mismatch_correction: 'truncate' would do twice what {slow.loss} does: its weight is min(ratio, 1 + "
            f"slow.clip_high) = min(ratio, {slow.tau:g}) already. Leave it out and lower slow.clip_high to "
            f"{high - 1:g}, or take mask, or another loss"
        )


def describe_correction(slow: SlowConfig) -> list[str]:
    """What the correction does, in a line; none where there is none."""
    low, high = slow.mismatch_bounds
    if slow.mismatch_correction == "truncate":
        return [f"sampler against learner: each token's loss times min(learner / sampler, {high:g})"]
    if slow.mismatch_correction == "mask":
        return [f"sampler against learner: completions with learner / sampler outside [{low:g}, {high:g}] are left out"]
    return []


def loss_settings(slow: SlowConfig, temperature: float) -> LossSettings:
    """The loss of a config's updates, at the temperature of its rollouts, with its correction."""
    correction = Correction(slow.mismatch_correction, *slow.mismatch_bounds)
    return LossSettings(
        slow.loss, slow.tau, slow.kl_coefficient, temperature, 1.0 - slow.clip_low, correction, slow.entropy_coefficient
    )


def ways_out(config: Config) -> str:
    """What a user can do about a mismatch, in words."""
    slow, ways = config.slow, []
    if config.engine == "tinker":
        return "let the server sample and train in one precision, float32 if it can, or take engine: local"
    if config.engine != "local":
        return f"mend the engine {config.engine}: check_engine of fastslow.testing says what is wrong"
    if not isinstance(slow.sampler, ForestConfig):
        ways.append("slow.sampler: {kind: forest}, which draws from the learner's own network")
    if config.model.dtype != "float32":
        ways.append("model.dtype: float32")
        ways += ["slow.prefix_sharing: false"] if slow.prefix_sharing else []
    if slow.mismatch_correction == "none":
        ways.append("slow.mismatch_correction: mask" + ("" if slow.loss in TRUNCATED else " or truncate"))
    return ", or ".join(ways) or "take another model"
