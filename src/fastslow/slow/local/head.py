"""The head of a model in slices along tokens, so that the logits of a long completion never exist at once.

Any architecture's head is right here: scales, soft caps and whatever else a model does behind its output embeddings
(Gemma 2, Cohere, Granite) is done by the model's own forward method. It gets the hidden states of a slice where its
body would have computed them. Each pass compares some rows of the two ways, so a model that this does not fit is never
computed wrongly: it keeps whole logits, and a warning says so.

Few logits are left whole, as nothing is saved there. More are computed twice in an update, the second time for the
gradient: a third more work in the head.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

# Logits up to so many are computed whole, more in slices of so many: 0.5 GiB in float32.
HEAD_ELEMENTS = 2**27
COMPARED_ROWS = 2
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Outputs:
    """What a pass over a micro-batch left: whole logits (rows, vocabulary), or hidden states (rows, hidden size) and
    the head that turns rows of them into logits.
    """

    logits: torch.Tensor | None
    hidden: torch.Tensor | None = None
    head: "Head | None" = None

    def slices(self) -> Iterator[slice]:
        """The rows in runs whose logits may exist at once: one run where the logits are whole."""
        if self.logits is not None:
            return iter([slice(0, len(self.logits))])
        assert self.hidden is not None and self.head is not None
        return self.head.slices(len(self.hidden))

    def rows(self, index: slice | torch.Tensor) -> torch.Tensor:
        """The logits of some rows."""
        if self.logits is not None:
            return self.logits[index]
        assert self.hidden is not None and self.head is not None
        return self.head(self.hidden[index])


class Head:
    """From hidden states, as the output embeddings get them, to logits, with the network's weights at that time."""

    def __init__(self, network: Any, body: nn.Module, output: type, width: int) -> None:
        self.network, self.body, self.output, self.width = network, body, output, width

    def slices(self, rows: int) -> Iterator[slice]:
        """Runs of rows whose logits are at most `HEAD_ELEMENTS`."""
        size = max(1, HEAD_ELEMENTS // self.width)
        return (slice(start, min(start + size, rows)) for start in range(0, rows, size))

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Shapes: hidden (rows, hidden size); returns (rows, vocabulary)."""
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        with replaced(self.body, lambda *_, **__: self.output(last_hidden_state=hidden[None])):
            logits: torch.Tensor = self.network(input_ids=ids, use_cache=False).logits[0]
        return logits


@contextmanager
def gradient_in_place(network: Any) -> Iterator[None]:
    """Inside, a linear head adds its weight's gradient to what is there, without a copy of its size for each slice.

    Only where the weight is its own master: gradients of narrower weights are summed in float32 by hooks.
    """
    layer = network.get_output_embeddings()
    if type(layer) is not nn.Linear or not layer.weight.requires_grad or layer.weight.dtype != torch.float32:
        yield
        return
    apply: Callable[..., torch.Tensor] = _Linear.apply
    with replaced(layer, lambda hidden: apply(hidden, layer.weight, layer.bias)):
        yield


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: nn.Parameter, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.weight = weight
        ctx.save_for_backward(hidden)
        return nn.functional.linear(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor | None]:
        (hidden,) = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        if ctx.weight.grad is None:
            ctx.weight.grad = torch.zeros_like(ctx.weight)
        ctx.weight.grad.addmm_(rows.T, hidden.flatten(0, -2))
        return gradients[0] @ ctx.weight, None, rows.sum(0) if ctx.needs_input_grad[2] else None


def outputs(model: Any, forward: Callable[[Any], torch.Tensor]) -> Outputs:
    """One pass: whole logits where they are few, otherwise hidden states and the head.

    `forward` gives the logits of a model, which may be wrapped by PEFT; shape (rows, vocabulary).
    """
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    layer = network.get_output_embeddings()
    if layer is None or getattr(network, "_fastslow_whole_logits", False):
        return Outputs(forward(model))
    seen = _Seen()
    hooks = [module.register_forward_hook(seen.body) for module in _bodies(network)]
    hooks.append(layer.register_forward_pre_hook(seen.head))
    try:
        logits = forward(model)
    finally:
        for hook in hooks:
            hook.remove()
    if seen.hidden is None:
        return Outputs(logits)
    head = _fitting_head(network, seen, logits)
    if head is None:
        network._fastslow_whole_logits = True
        logger.warning(
            "%s: its logits cannot be computed in slices, so long completions need more memory", type(network).__name__
        )
        return Outputs(forward(model))
    hidden = seen.hidden
    if torch.is_grad_enabled() and not hidden.requires_grad:
        hidden = hidden.detach().requires_grad_()  # all before the head is frozen: the head's own gradient starts here
    return Outputs(None, hidden, head)


class _Seen:
    """What hooks saw of one pass. The head gets only the rows to compare where there are more logits than it should."""

    def __init__(self) -> None:
        self.hidden: torch.Tensor | None = None
        self.bodies: list[tuple[nn.Module, type]] = []

    def body(self, module: nn.Module, _: Any, output: Any) -> None:
        if hasattr(output, "last_hidden_state"):
            self.bodies.append((module, type(output)))

    def head(self, layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        rows = arguments[0].flatten(0, -2)
        if len(rows) * _width(layer) <= HEAD_ELEMENTS:
            return None
        self.hidden = rows
        return (rows[None, :COMPARED_ROWS].detach(),)


def _fitting_head(network: Any, seen: _Seen, logits: torch.Tensor) -> Head | None:
    """The head that gives the model's own logits of the compared rows; None where none does."""
    assert seen.hidden is not None
    for body, output in reversed(seen.bodies):  # the outermost returns last
        head = Head(network, body, output, logits.shape[-1])
        try:
            with torch.no_grad():
                found = head(seen.hidden[:COMPARED_ROWS].detach())
        except Exception as error:  # whatever a foreign architecture raises: it is not its head
            logger.debug("%s is not all before the head: %s", type(body).__name__, error)
            continue
        expected = logits.detach()
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            return head
    return None


def _bodies(network: Any) -> list[nn.Module]:
    """Modules that may be all of the model before its head."""
    found = [network.base_model, network.get_decoder(), getattr(network.base_model, "decoder", None)]
    return list({id(m): m for m in found if isinstance(m, nn.Module) and m is not network}.values())


def _width(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or layer.weight.shape[0])  # type: ignore[union-attr, index]


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, a module computes something else."""
    kept = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if kept is None:
            del module.forward
        else:
            module.forward = kept
