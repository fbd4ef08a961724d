"""What models call their key-value cache: transformers 5.24 renamed `past_key_values`, and 5.40 has no old name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

NEW, OLD = "cache", "past_key_values"


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """The keyword that hands a model its cache."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {_argument(type(base).forward): cache}


def cache_in(output: Any) -> Any:
    """The cache in what a model's forward pass gave; None where it keeps none."""
    found = getattr(output, NEW, None)
    return getattr(output, OLD, None) if found is None else found


@functools.cache
def _argument(forward: Callable[..., Any]) -> str:
    # A decorator that takes the old name as well hides nothing: the signature is that of the function below.
    return NEW if NEW in inspect.signature(forward).parameters else OLD
