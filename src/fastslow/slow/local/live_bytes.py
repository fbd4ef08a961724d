"""How much memory the tensors of a computation take at most, counted as they are made and freed."""

import weakref
from collections.abc import Collection
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, `now` is what tensors made inside hold at the moment, in bytes, and `peak` the most that they held.

    Tensors with one of the shapes in `apart` do not count: gradients of weights, whose size no number of tokens
    changes. Memory that an operation takes and frees within itself is not seen. Any device, and fake tensors, too.
    """

    def __init__(self, apart: Collection[tuple[int, ...]] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.apart = frozenset(apart)
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the memory that it made."""
        given = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and _address(tensor) not in given:
                self._count(tensor)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self._counted or tuple(tensor.shape) in self.apart:
            return
        self._counted.add(address)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self._counted.discard(address)
        self.now -= size


def _address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
