"""The losses against values worked out by hand."""

import math

import pytest
import torch

from fastslow.errors import ConfigError
from fastslow.slow.losses import LOSSES, Loss, check_loss, cispo, importance_ratio, importance_sampling, kl_penalty

# Ratios 5, 0.5 and 1; with tau = 4 the first is clipped.
LEARNER = [0.5, 0.3, 0.2]
SAMPLER = [0.1, 0.6, 0.2]
ADVANTAGES = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)


def logs(probs: list[float], requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor([math.log(p) for p in probs], dtype=torch.float64, requires_grad=requires_grad)


def test_importance_ratio_has_no_gradient() -> None:
    ratio = importance_ratio(logs(LEARNER, requires_grad=True), logs(SAMPLER))
    assert ratio.tolist() == pytest.approx([5.0, 0.5, 1.0])
    assert not ratio.requires_grad


def test_cispo_value_and_gradient_where_the_ratio_is_clipped_and_where_not() -> None:
    learner = logs(LEARNER, requires_grad=True)
    loss = cispo(learner, logs(SAMPLER), ADVANTAGES, tau=4.0)
    # -min(5, 4) * 2 * log 0.5 = 8 log 2; -0.5 * -1 * log 0.3
    assert loss.tolist() == pytest.approx([8 * math.log(2), 0.5 * math.log(0.3), 0.0])
    loss.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-8.0, 0.5, 0.0])


def test_importance_sampling_value_and_gradient_ignore_tau() -> None:
    learner = logs(LEARNER, requires_grad=True)
    loss = importance_sampling(learner, logs(SAMPLER), ADVANTAGES, tau=4.0)
    assert loss.tolist() == pytest.approx([-10.0, 0.5, 0.0])
    loss.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-10.0, 0.5, 0.0])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_loss_has_the_policy_gradient_below_tau(loss: Loss) -> None:
    learner = logs(LEARNER, requires_grad=True)
    loss(learner, logs(SAMPLER), ADVANTAGES, 100.0).sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-10.0, 0.5, 0.0])  # -ratio * advantage


def test_kl_penalty_value_and_gradient() -> None:
    learner = logs([0.4, 0.2, 0.2], requires_grad=True)
    penalty = kl_penalty(learner, logs([0.2, 0.4, 0.2]))
    # d = log 0.5: 0.5 + log 2 - 1; d = log 2: 2 - log 2 - 1; d = 0
    assert penalty.tolist() == pytest.approx([math.log(2) - 0.5, 1 - math.log(2), 0.0])
    penalty.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([0.5, -1.0, 0.0])  # 1 - exp(d)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("shape", [(2,), (1,), (3, 1), ()])
def test_a_shape_mismatch_is_an_error_also_where_torch_would_broadcast(
    loss: Loss, wrong: int, shape: tuple[int, ...]
) -> None:
    tensors = [torch.zeros(3), torch.zeros(3), torch.zeros(3)]
    tensors[wrong] = torch.zeros(shape)
    with pytest.raises(ValueError, match="shapes differ"):
        loss(*tensors, 4.0)


def test_kl_penalty_refuses_a_shape_mismatch() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 1\)"):
        kl_penalty(torch.zeros(3), torch.zeros(3, 1))


def test_an_unknown_loss_names_the_known_ones() -> None:
    check_loss("cispo")
    with pytest.raises(ConfigError, match=r"slow.loss: 'ppo' is unknown: take one of cispo, importance_sampling"):
        check_loss("ppo")
