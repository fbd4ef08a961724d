"""What a config calls a Python object: its import path where it has one, otherwise a placeholder that says what it is.

The placeholder of a model or a dataset ends with a digest of what is in it, so that a run is resumed with the same one.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fastslow.given import is_model, placeholder

DIGEST = 8
PER_TENSOR = 1024
ROWS = 1000
FEW_ROWS = 10_000
"""Datasets up to this size are digested as a whole, of larger ones `ROWS` rows, spread evenly."""


def name_of(thing: Any, taken: Sequence[str] = ()) -> str:
    """The name of an object, another one than those that are `taken`."""
    path = import_path(thing)
    if path is not None:
        return path
    words = _words(thing)
    names = (placeholder(words if number == 1 else f"{words} {number}") for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def import_path(thing: Any) -> str | None:
    """`package.module:name` of a function or a class that is found there again; None for what only this program has."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not name or module in ("__main__", "builtins") or not str(name).isidentifier():
        return None
    found = sys.modules.get(module)
    here = getattr(found, name, None) is thing and getattr(found, "__spec__", None) is not None
    return f"{module}:{name}" if here else None


def weights_digest(model: Any) -> str:
    """Of the names, shapes and some values of every parameter: other weights have another one. An adapter that has
    learnt nothing yet does not count: it computes the same whatever its random half holds.
    """
    import torch

    found = hashlib.sha256()
    fresh = not any(bool(parameter.any()) for name, parameter in model.named_parameters() if ".lora_B." in name)
    for name, parameter in model.named_parameters():
        if fresh and ".lora_" in name:
            continue
        flat = parameter.detach().flatten()
        some = flat[:: max(1, flat.numel() // PER_TENSOR)]
        values = some.float() if some.is_floating_point() else some.to(torch.float64)
        found.update(f"{name.replace('base_model.model.', '')} {tuple(parameter.shape)}".encode())
        found.update(values.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:DIGEST]


def rows_digest(rows: Any) -> str:
    """Of the number of rows and of what is in them."""
    size = len(rows)
    step = 1 if size <= FEW_ROWS else size // ROWS
    found = hashlib.sha256(str(size).encode())
    for index in range(0, size, step):
        found.update(json.dumps(rows[index], sort_keys=True, default=str).encode())
    return found.hexdigest()[:DIGEST]


def _words(thing: Any) -> str:
    if is_model(thing):
        return f"{type(thing).__name__} {weights_digest(thing)}"
    if isinstance(thing, type) or hasattr(thing, "__qualname__"):
        return "".join(c for c in str(thing.__qualname__).rpartition(".")[2] if c.isidentifier()) or "function"
    if _is_table(thing):
        rows = thing.to_dict("records") if hasattr(thing, "iterrows") else thing
        if len(rows) and isinstance(rows[0], Mapping):
            return f"{type(thing).__name__} of {len(rows)} rows, {rows_digest(rows)}"
    return type(thing).__name__


def _is_table(thing: Any) -> bool:
    if isinstance(thing, list):
        return True
    return hasattr(thing, "iterrows") or (hasattr(thing, "column_names") and hasattr(thing, "__len__"))
