"""Weights in the layout that a CPU multiplies fastest, while completions are drawn.

A decoding step multiplies few rows with every weight. A product of ordinary tensors rearranges the weight's matrix for
the processor's caches each time, which is dear for few rows. oneDNN rearranges it once. Its sums have another order, so
log-probabilities differ in their last bits from those of the ordinary product, as they do between batches of two sizes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from fastslow.slow.local.head import replaced

# A model below so many weights computes as ever: little is gained. One above keeps its memory:
# packed weights are a copy.
FEWEST_WEIGHTS, MOST_WEIGHTS = 2**25, 2**30
FEWEST_IN_A_LAYER = 2**16
# Packing takes as long as about two steps of decoding, and one row is a matter of memory traffic alone.
FEWEST_ROWS, FEWEST_TOKENS = 16, 16


@contextmanager
def packed_weights(model: nn.Module, rows: int, tokens: int) -> Iterator[int]:
    """Inside, linear layers of a large model on a CPU compute with packed copies of the weights that they have now.
    Gives the number of packed layers.

    `rows` completions of at most `tokens` tokens will be drawn: few are drawn with the weights as they are.
    """
    layers = _layers(model) if rows >= FEWEST_ROWS and tokens >= FEWEST_TOKENS else []
    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            stack.enter_context(replaced(layer, _product(layer, rows)))
        yield len(layers)


def _layers(model: nn.Module) -> list[nn.Linear]:
    """Those that are packed: all of some size, or none."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return []
    types = _types()
    found = [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype in types
        and layer.weight.numel() >= FEWEST_IN_A_LAYER
    ]
    return found if FEWEST_WEIGHTS <= sum(layer.weight.numel() for layer in found) <= MOST_WEIGHTS else []


def _types() -> tuple[torch.dtype, ...]:
    """Those that oneDNN packs on this CPU: without AVX512 or AVX-NE-CONVERT it refuses bfloat16, and PyTorch's own
    product computes it."""
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if bfloat16 else (torch.float32,)


def _product(layer: nn.Linear, rows: int) -> Any:
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    bias = None if layer.bias is None else layer.bias.detach()
    return partial(_multiply, packed, bias)


def _multiply(packed: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, packed, bias, "none", [], "")
    return product
