"""What a CUDA graph does, on a CPU: operations are recorded with their tensors, and replayed on the same addresses.

Like a graph it knows nothing of Python: a number of the host stays what it was when the step was recorded. Like a
capture it refuses to look at a number and to bring anything from the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

REFUSED = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "lift_fresh", "equal")


class Recording(TorchDispatchMode):
    """Does every operation, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in REFUSED:
            raise RuntimeError(f"operation not permitted while recording: {name}")
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, torch.Tensor):
                self.kept.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        """Recording leaves every tensor as it was."""
        for tensor, before in reversed(self.kept):
            tensor.copy_(before)
        self.kept.clear()

    def replay(self) -> None:
        """Every operation again; what it gives goes where it went the first time."""
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            for new, old in zip(tree_flatten(again)[0], tree_flatten(out)[0], strict=True):
                if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


class CpuCapture:
    """A `Capture` for tests. `warmed`, `captured` and `resets` count its calls."""

    def __init__(self) -> None:
        self.warmed = self.captured = self.resets = 0

    def warm_up(self, step: Callable[[], None]) -> None:
        self.warmed += 1
        step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        recording = Recording()
        try:
            with recording:
                step()
        finally:
            recording.undo()
        self.captured += 1
        return recording.replay

    def reset(self) -> None:
        self.resets += 1
