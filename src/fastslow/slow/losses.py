"""Policy losses, token by token. A new loss is one function in `LOSSES`.

Every function works on flat token arrays of shape (N,): the tokens of all completions of a micro-batch, one after the
other. Aggregation is the caller's: `sum(token_weight * loss)`.
"""

from collections.abc import Callable

import torch

from fastslow.errors import ConfigError


def importance_ratio(learner_logprobs: torch.Tensor, sampler_logprobs: torch.Tensor) -> torch.Tensor:
    """pi_theta / pi_behaviour of each token, shape (N,), without gradient."""
    _same_shape(learner_logprobs, sampler_logprobs)
    return torch.exp(learner_logprobs.detach() - sampler_logprobs)


def cispo(
    learner_logprobs: torch.Tensor, sampler_logprobs: torch.Tensor, advantages: torch.Tensor, tau: float
) -> torch.Tensor:
    """CISPO, to minimise: `-stop_grad(min(ratio, tau)) * A * log pi_theta`.

    Shapes: all (N,), returns (N,) in nats. The gradient flows through log pi_theta alone,
    also where the ratio is clipped.
    Raises: ValueError on a shape mismatch.
    Source: arXiv 2605.12484 section 3.2; arXiv 2506.13585. Deviations: none.
    """
    _same_shape(learner_logprobs, advantages)
    weight = importance_ratio(learner_logprobs, sampler_logprobs).clamp(max=tau)
    return -weight * advantages * learner_logprobs


def importance_sampling(
    learner_logprobs: torch.Tensor, sampler_logprobs: torch.Tensor, advantages: torch.Tensor, tau: float
) -> torch.Tensor:
    """Plain importance-weighted policy gradient, `-ratio * A` with the gradient through the ratio. `tau` is not used.

    Shapes: all (N,), returns (N,). Its gradient equals CISPO's wherever the ratio stays below `tau`.
    """
    _same_shape(learner_logprobs, sampler_logprobs)
    _same_shape(learner_logprobs, advantages)
    return -torch.exp(learner_logprobs - sampler_logprobs) * advantages


def kl_penalty(learner_logprobs: torch.Tensor, base_logprobs: torch.Tensor) -> torch.Tensor:
    """GRPO's low-variance estimate of KL(pi_theta || pi_base): `exp(d) - d - 1` with `d = log pi_base - log pi_theta`.

    Shapes: both (N,), returns (N,) in nats, never negative. Source: arXiv 2402.03300 eq. 4.
    """
    _same_shape(learner_logprobs, base_logprobs)
    difference = base_logprobs - learner_logprobs
    return torch.exp(difference) - difference - 1.0


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
LOSSES: dict[str, Loss] = {"cispo": cispo, "importance_sampling": importance_sampling}


def check_loss(name: str) -> None:
    """Raises ConfigError where no loss has this name."""
    if name not in LOSSES:
        raise ConfigError(f"slow.loss: {name!r} is unknown: take one of {', '.join(LOSSES)}")


def _same_shape(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
