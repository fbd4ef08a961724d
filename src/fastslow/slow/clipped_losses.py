"""Losses with PPO's pessimistic clip: the smaller of the plain and the clipped objective,
so that a clip only ever takes gradient away.

Their papers differ in how they divide as well. That is no part of these functions: the engine's aggregation
(`slow.aggregation`) and the advantages (`loop.divide_by_std`) do it, and `LOSS_DEFAULTS` has what each paper does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastslow.slow.losses import LossInputs, LossOutput, policy_loss

if TYPE_CHECKING:
    import torch

CLIPS = ("clip_low", "clip_high")


@policy_loss(uses=CLIPS, server="ppo")
def ppo(inputs: LossInputs) -> LossOutput:
    """The loss of PPO and GRPO, `-min(ratio A, clamp(ratio, 1 - clip_low, 1 + clip_high) A)` of each token.

    Shapes: returns (N,). Source: arXiv 1707.06347 eq. 7; arXiv 2402.03300 eq. 3. Deviations: one optimiser step a
    batch, so the ratio speaks of reused rollouts; the KL penalty is the engine's.
    """
    return _clipped(inputs, inputs.learner_logprobs_N - inputs.sampler_logprobs_N, inputs.advantages_N)


@policy_loss(uses=CLIPS, server="ppo")
def dapo(inputs: LossInputs) -> LossOutput:
    """PPO's clip with a higher ceiling than floor; a problem's tokens weigh the same (`slow.aggregation: problem`).

    Shapes: returns (N,). Source: arXiv 2503.14476 eq. 8 and 10. Deviations: dynamic sampling and overlong shaping are
    not part of a loss; groups without a signal are left out, and not sampled again.
    """
    return _clipped(inputs, inputs.learner_logprobs_N - inputs.sampler_logprobs_N, inputs.advantages_N)


@policy_loss(uses=CLIPS, server="ppo")
def dr_grpo(inputs: LossInputs) -> LossOutput:
    """PPO's clip on rewards minus their mean: neither lengths nor deviations divide (`slow.aggregation: constant`).

    Shapes: returns (N,). Source: arXiv 2503.20783 section 3.2. Deviations: the constant is `sampling.max_tokens`,
    as in the authors' code.
    """
    return _clipped(inputs, inputs.learner_logprobs_N - inputs.sampler_logprobs_N, inputs.advantages_N)


@policy_loss(uses=CLIPS)
def gspo(inputs: LossInputs) -> LossOutput:
    """PPO's clip on one ratio a completion, `(pi(y) / pi_behaviour(y)) ** (1 / |y|)`,
    the geometric mean of its tokens' ratios.

    Shapes: returns (S,). Source: arXiv 2507.18071 eq. 5 to 7. Deviations: none.
    """
    log_ratio_S = inputs.sequence_means(inputs.learner_logprobs_N - inputs.sampler_logprobs_N)
    return _clipped(inputs, log_ratio_S, inputs.sequence_means(inputs.advantages_N))


def _clipped(inputs: LossInputs, log_ratio: torch.Tensor, advantages: torch.Tensor) -> LossOutput:
    """The loss, and where the clip takes the gradient away; shapes: all (N,) or all (S,)."""
    ratio = log_ratio.exp()
    plain = ratio * advantages
    clipped = ratio.clamp(inputs.settings.floor, inputs.settings.tau) * advantages
    return LossOutput(-plain.minimum(clipped), {"clip_fraction": (clipped < plain).detach()})
