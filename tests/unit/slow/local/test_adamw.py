"""AdamW on float32 masters: small updates add up, and a saved state is the state."""

from pathlib import Path

import pytest
import torch

from fastslow.slow.local.adamw import MasterAdamW
from fastslow.slow.settings import SlowConfig

UNCLIPPED = SlowConfig(max_grad_norm=None)


def one_weight(dtype: torch.dtype, value: float = 1.0) -> torch.nn.Module:
    model = torch.nn.Linear(1, 1, bias=False, dtype=dtype)
    torch.nn.init.constant_(model.weight, value)
    return model


def backward(model: torch.nn.Module, gradient: float) -> None:
    (next(model.parameters()) * gradient).sum().backward()


def test_a_float32_step_by_hand() -> None:
    model = one_weight(torch.float32)
    optimiser = MasterAdamW(model, UNCLIPPED)
    backward(model, 3.0)
    assert optimiser.step(0.01) == pytest.approx(3.0)
    # Adam's first step is the learning rate times g / (|g| + eps)
    assert next(model.parameters()).item() == pytest.approx(0.99)
    assert next(model.parameters()).grad is None


def test_updates_far_below_bfloat16_resolution_add_up() -> None:
    model = one_weight(torch.bfloat16)
    optimiser = MasterAdamW(model, UNCLIPPED)
    for _ in range(100):
        backward(model, 1.0)
        optimiser.step(1e-4)  # bfloat16 numbers below 1 are 2**-8 = 0.0039 apart
    assert optimiser.masters["weight"].item() == pytest.approx(0.99, abs=1e-5)
    assert next(model.parameters()).item() == torch.tensor(0.99).bfloat16().item()
    assert next(model.parameters()).item() < 1.0


def test_bfloat16_gradients_are_summed_in_float32() -> None:
    model = one_weight(torch.bfloat16)
    optimiser = MasterAdamW(model, UNCLIPPED)
    for gradient in (1.0, 2.0**-10, 2.0**-10):
        backward(model, gradient)
    assert optimiser.step(1e-3) == 1.0 + 2.0**-9


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_reported() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    optimiser = MasterAdamW(model, SlowConfig(max_grad_norm=1.0))
    (model.weight * torch.tensor([3.0, 4.0])).sum().backward()
    assert optimiser.step(1e-3) == pytest.approx(5.0)
    momentum = optimiser.adam.state[optimiser.masters["weight"]]["exp_avg"]
    assert momentum.flatten().tolist() == pytest.approx([0.06, 0.08])  # (1 - 0.9) * (3, 4) / 5


def test_frozen_parameters_are_not_touched() -> None:
    model = torch.nn.Sequential(one_weight(torch.float32), one_weight(torch.float32))
    model[0].requires_grad_(False)
    optimiser = MasterAdamW(model, UNCLIPPED)
    model(torch.ones(1, 1)).sum().backward()
    optimiser.step(0.1)
    assert [p.item() for p in model.parameters()] == pytest.approx([1.0, 0.9])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_load_restores_what_save_wrote_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    first = one_weight(dtype, 0.3)
    optimiser = MasterAdamW(first, UNCLIPPED)
    for gradient in (1.0, -0.3, 0.7):
        backward(first, gradient)
        optimiser.step(1e-3)
    optimiser.save(tmp_path)
    second = one_weight(dtype, 5.0)
    second.load_state_dict(first.state_dict())
    restored = MasterAdamW(second, UNCLIPPED)
    restored.load(tmp_path)
    for model, which in ((first, optimiser), (second, restored)):
        backward(model, 0.11)
        which.step(1e-3)
    assert torch.equal(optimiser.masters["weight"], restored.masters["weight"])
    assert torch.equal(next(first.parameters()), next(second.parameters()))


def test_loading_a_state_without_moments_forgets_those_that_are_there(tmp_path: Path) -> None:
    model = one_weight(torch.float32)
    optimiser = MasterAdamW(model, UNCLIPPED)
    optimiser.save(tmp_path)
    backward(model, 1.0)
    optimiser.step(1e-3)
    backward(model, 1.0)
    optimiser.load(tmp_path)
    assert not optimiser.adam.state
    assert next(model.parameters()).grad is None
