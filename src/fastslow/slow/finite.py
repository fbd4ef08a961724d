"""NaN and infinity: where they come in, and what is said of them.

Source: ours; the paper is silent. An update whose loss or gradient is not finite is left out (`local/learner.py`),
completions are never drawn from such logits (`samplers/drawing.py`), such weights are never loaded and never saved.
"""

import math
from collections.abc import Iterable, Mapping

import torch

from fastslow.errors import ConfigError, DivergedError


def non_finite_tensor(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or an infinity; None where all are finite."""
    floats = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    # One pass without a copy: NaN is passed on to minimum and maximum.
    for name, tensor in floats.items():
        if not all(math.isfinite(float(edge)) for edge in tensor.aminmax()):
            return name
    return None


def check_finite(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Raises ConfigError, which begins with `what`, where a tensor holds NaN or an infinity; it names the tensor."""
    name = non_finite_tensor(tensors)
    if name is not None:
        bad, values = int((~torch.isfinite(tensors[name])).sum()), tensors[name].numel()
        raise ConfigError(
            f"{what} are not finite: {bad} of the {values} values of tensor {name!r} are NaN or infinite. Take an "
            "earlier checkpoint"
        )


def check_logprobs(rows: Iterable[Iterable[float]], what: str) -> None:
    """Raises DivergedError where one of the numbers is NaN or infinite; `what` says whose they are."""
    # The sum of a row is finite where its numbers are: one check a row instead of one a number.
    if not all(math.isfinite(sum(row)) for row in rows):
        raise DivergedError(f"{what} are not finite (NaN or infinity): the weights have diverged")
