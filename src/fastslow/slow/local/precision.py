"""A model's own numbers without arithmetic's noise: float32 for the moment of a comparison, whatever it computes in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes in float32. Afterwards every weight is what it was, to the last bit.

    Products are real ones of float32, even where a GPU may round their factors to TF32. Layers are widened one at a
    time, while they compute, so that a model which fills half of a GPU can be compared there.
    """
    layers = decoder_layers(model)
    inside = {id(tensor) for layer in layers for tensor in _tensors([layer])}
    outside = [tensor for tensor in _tensors([model]) if id(tensor) not in inside]
    kept = _widen(outside)
    open_layers: dict[nn.Module, list[tuple[torch.Tensor, torch.dtype]]] = {}

    def enter(layer: nn.Module, *_: Any) -> None:
        open_layers[layer] = _widen(_tensors([layer]))

    def leave(layer: nn.Module, *_: Any) -> None:
        _narrow(open_layers.pop(layer, []))

    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    hooks = [layer.register_forward_pre_hook(enter) for layer in layers]
    hooks += [layer.register_forward_hook(leave) for layer in layers]
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        for hook in hooks:
            hook.remove()
        for layer in list(open_layers):  # a pass that raised left them wide
            leave(layer)
        _narrow(kept)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The members of the longest list of modules: a decoder's layers."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    longest = max(lists, key=lambda found: sum(p.numel() for p in found.parameters()), default=None)
    return list(longest) if longest is not None else []


def _tensors(modules: Sequence[nn.Module]) -> list[torch.Tensor]:
    found = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return list({id(tensor): tensor for tensor in found}.values())


def _widen(tensors: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.dtype]]:
    narrow = [(tensor, tensor.dtype) for tensor in tensors if tensor.dtype in (torch.bfloat16, torch.float16)]
    for tensor, _ in narrow:
        tensor.data = tensor.data.float()
    return narrow


def _narrow(widened: Sequence[tuple[torch.Tensor, torch.dtype]]) -> None:
    for tensor, dtype in widened:
        tensor.data = tensor.data.to(dtype)
