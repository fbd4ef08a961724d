"""The small operations of a decoding step as few fused kernels, by torch.compile.

A layer of a decoding step is about ten matrix products and ninety operations on a few thousand numbers. On a GPU each
of them takes microseconds however small it is, so that they are most of the step. What is compiled is what is the same
in every layer: norms, rotary factors, the gated MLP, the two parts of attention with their merging. So a compilation
takes seconds, not minutes, and serves all layers. Where it fails, the step goes on as it is, with the reason said once.
"""

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from fastslow.slow.local.cascade import attend_parts
from fastslow.slow.local.head import replaced

logger = logging.getLogger(__name__)

Function = Callable[..., Any]
ROTARY = "apply_rotary_pos_emb"
# Rounded where the model's own operations round, so that log-probabilities stay near the learner's.
OPTIONS: dict[str, Any] = {"emulate_precision_casts": True}
# Rows, pools and groups come in buckets, and each number of groups is a compilation: more than torch allows by itself.
MOST_COMPILATIONS = 64


def can_fuse(device: torch.device) -> bool:
    """Whether torch.compile has what it needs for this device."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


class Fusion:
    """Compiled stand-ins for a model's small operations. `compile` makes one from a function.

    `reason` says why nothing is fused any more; None where it works.
    """

    def __init__(self, compile: Callable[[Function], Function] | None = None) -> None:
        self.compile = compile or partial(torch.compile, fullgraph=True, options=OPTIONS)
        self.reason: str | None = None
        self._compiled: dict[Function, Function] = {}

    def of(self, function: Function) -> Function:
        """The compiled function; each is compiled once."""
        if function not in self._compiled:
            self._compiled[function] = self.compile(function)
        return self._compiled[function]

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[Function]:
        """Inside, the model's forward passes use fused operations. Gives the attention that a `Cascade` is to use."""
        with ExitStack() as stack:
            stack.enter_context(torch._dynamo.config.patch(recompile_limit=MOST_COMPILATIONS))
            modeling = set()
            for module in model.modules():
                if is_norm(module) or is_gated_mlp(module):
                    stack.enter_context(replaced(module, partial(self.of(type(module).forward), module)))
                modeling.add(type(module).__module__)
            for name in sorted(modeling):
                stack.enter_context(self._rotary(name))
            yield self.of(attend_parts)

    def give_up(self, error: Exception) -> None:
        """From now on nothing is fused; said once."""
        self.reason = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
        logger.warning("the decoding step is not compiled, so sampling is slower: %s", self.reason)

    @contextmanager
    def _rotary(self, name: str) -> Iterator[None]:
        """Inside, a module of models computes its rotary factors fused; the function is the same for all its models."""
        module = sys.modules[name]
        function = vars(module).get(ROTARY)
        if function is None:
            yield
            return
        setattr(module, ROTARY, self.of(function))
        try:
            yield
        finally:
            setattr(module, ROTARY, function)


def is_norm(module: nn.Module) -> bool:
    """One of the norms that transformers writes out in single operations."""
    return type(module).__name__.endswith("RMSNorm") and type(module) is not nn.RMSNorm and _has_own_forward(module)


def is_gated_mlp(module: nn.Module) -> bool:
    """A gated MLP of plain linear layers: adapters have forward passes of their own."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    return all(type(part) is nn.Linear and _has_own_forward(part) for part in parts) and _has_own_forward(module)


def _has_own_forward(module: Any) -> bool:
    """Whether nothing has been put in the place of its forward pass."""
    return "forward" not in vars(module)
