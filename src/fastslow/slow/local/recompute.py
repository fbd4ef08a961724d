"""Activation checkpointing: a layer keeps its input alone and computes everything else again in the backward pass.

Transformers' own switch works in training mode only, which would turn dropout on, and sampler and learner
would disagree. So each layer is wrapped here, in evaluation mode, around the same
`torch.utils.checkpoint` without re-entrance.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from fastslow.slow.local.attention import ACTIVE_BLOCKS
from fastslow.slow.local.precision import decoder_layers


def checkpoint_layers(model: torch.nn.Module) -> None:
    """Make each of a model's layers keep only its input, wherever gradients are computed."""
    for layer in decoder_layers(model):
        layer.forward = _checkpointed(layer.forward)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., object]) -> Callable[..., Any]:
    @wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        blocks = ACTIVE_BLOCKS.get()

        def attending_again(*args: Any, **kwargs: Any) -> Any:
            # The second time is in the backward pass: outside the block that set the attention,
            # maybe on another thread.
            token = ACTIVE_BLOCKS.set(blocks)
            try:
                return forward(*args, **kwargs)
            finally:
                ACTIVE_BLOCKS.reset(token)

        return checkpoint(attending_again, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return wrapped
