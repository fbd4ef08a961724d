"""Muon for small matrices on a CPU: momentum whose direction is made orthogonal by Newton-Schulz iterations.

Source: Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024), with its coefficients.
Deviation from `torch.optim.Muon`: the iterations run in float32 and over all matrices of one shape at once. PyTorch's
runs them in bfloat16, one matrix after another, which takes many times longer on a CPU that only emulates bfloat16.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (N, R, C), R <= C, with singular values brought near 1."""
    a, b, c = COEFFICIENTS
    x: torch.Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Steps of Nesterov momentum, orthogonalised, scaled by the root of rows over columns where that exceeds 1."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """One update of every parameter, in place. A closure is not called."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[tuple(parameter.shape)].append((parameter, self._direction(parameter, group["momentum"])))
            for (rows, columns), pairs in by_shape.items():
                stacked = torch.stack([direction for _, direction in pairs])
                wide = rows <= columns
                moved = orthogonalise(stacked) if wide else orthogonalise(stacked.mT).mT
                for (parameter, _), update in zip(pairs, moved, strict=True):
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _direction(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        if parameter.grad is None:
            raise ValueError("Muon was given a parameter without a gradient")
        buffer: torch.Tensor = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1.0 - momentum)
        direction: torch.Tensor = parameter.grad.lerp(buffer, momentum)
        return direction
