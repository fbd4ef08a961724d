"""`slow.freeze`: parameters that stay as they are, by patterns of their names."""

import copy
import difflib
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fastslow.errors import ConfigError
from fastslow.slow.local import loading
from fastslow.slow.settings import ModelConfig
from fastslow.text import shown


def empty_model(config: ModelConfig, dtype: torch.dtype | None = None) -> Any:
    """The model's architecture without weights, from its config alone, in `dtype` where one is given.
    Raises ConfigError where there is none.
    """
    found = loading.given_model(config)
    if found is not None:
        return _emptied(found, dtype)
    name, kwargs = loading.source_of(loading.without_adapter(config))
    try:
        settings = AutoConfig.from_pretrained(name, **kwargs)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, **({} if dtype is None else {"dtype": dtype}))  # type: ignore[no-untyped-call]
            model.tie_weights()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.name: no causal language model at {config.name!r}: {error}") from error
    return model


def _emptied(model: Any, dtype: torch.dtype | None) -> Any:
    """The architecture of a loaded model, without weights and without adapters."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.device("meta"):
        empty = type(plain)(copy.deepcopy(plain.config))
        empty.tie_weights()
    return empty if dtype is None else empty.to(dtype)


def freeze(model: Any, patterns: Sequence[str]) -> None:
    """Let the parameters that the patterns name stay as they are. Raises ConfigError as `frozen_parameters` does."""
    for parameter in frozen_parameters(model, patterns):
        parameter.requires_grad_(False)


def frozen_parameters(model: Any, patterns: Sequence[str]) -> list[torch.nn.Parameter]:
    """The parameters that the patterns name, each once.

    Raises: ConfigError for a pattern without a match, for a weight that is tied to one which no pattern names,
    and where nothing would be left to train.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
            raise ConfigError(
                f"slow.freeze: {shown(pattern)} is no name of a parameter, and no pattern of one. Near it: "
                f"{', '.join(close)}"
            )
    aliases: dict[int, list[str]] = defaultdict(list)
    by_id = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases[id(parameter)].append(name)
        by_id[id(parameter)] = parameter
    frozen = []
    for key, known in aliases.items():
        named = [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if named and len(named) < len(known):
            other = next(name for name in known if name not in named)
            raise ConfigError(
                f"slow.freeze: {named[0]} is tied to {other}, so that both would stay: name both of them, or neither"
            )
        frozen += [by_id[key]] if named else []
    if len(frozen) == len(by_id):
        raise ConfigError(f"slow.freeze: {list(patterns)} name every parameter, so that nothing would be trained")
    return frozen
