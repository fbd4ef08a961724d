"""Python objects in the place of names: a loaded model, a dataset, a function, a task.

A config holds texts alone. Whoever gives an object lends it under a placeholder, `<object: NAME>`. The config and
the run directory hold the placeholder; whoever turns a name into an object looks here first. What was lent is there
as long as `lend` lasts.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fastslow.errors import ConfigError

OPEN, CLOSE = "<object: ", ">"
KEYWORDS = {
    "model.name": "model",
    "model.tokenizer": "tokenizer",
    "task.name": "task",
    "task.options.data": "dataset",
    "task.options.reward_functions": "reward_funcs",
    "task.options.environment": "environment",
    "fast.proposer.kind": "proposer",
    "fast.optimiser": "optimiser",
}
"""The keywords of `fastslow.train` for objects, by the config's keys. Any other is given in its section."""

_LENT: ContextVar[Mapping[str, Any] | None] = ContextVar("fastslow_given", default=None)


def placeholder(name: str) -> str:
    """What a config holds in the place of an object."""
    return f"{OPEN}{name}{CLOSE}"


def is_placeholder(name: object) -> bool:
    """Whether a value of a config stands for an object."""
    return isinstance(name, str) and name.startswith(OPEN) and name.endswith(CLOSE)


@contextmanager
def lend(objects: Mapping[str, Any]) -> Iterator[None]:
    """Inside, names of a config stand for these objects, besides those that are lent already."""
    token = _LENT.set({**(_LENT.get() or {}), **objects})
    try:
        yield
    finally:
        _LENT.reset(token)


def lent() -> Mapping[str, Any]:
    """Everything that is lent now, by name."""
    return _LENT.get() or {}


def is_model(thing: object) -> bool:
    """Whether an object is a loaded model, of transformers or of PEFT."""
    return not isinstance(thing, type) and hasattr(thing, "named_parameters") and hasattr(thing, "config")


@contextmanager
def lend_copies() -> Iterator[None]:
    """Inside, models that are lent are copies of them, so that training leaves the objects as they are."""
    with lend({name: copy.deepcopy(thing) for name, thing in lent().items() if is_model(thing)}):
        yield


def is_lent(name: object) -> bool:
    """Whether a name stands for an object that is lent now."""
    return isinstance(name, str) and name in lent()


def find(name: str, field: str) -> Any:
    """The object that is lent under a name. Raises ConfigError where there is none."""
    if name in lent():
        return lent()[name]
    raise ConfigError(
        f"{field}: {name!r} is a Python object, of which a config holds the name alone: give it again from Python, "
        f"with {_keyword(field, name)}"
    )


def placeholders(tree: object, key: str = "") -> dict[str, list[str]]:
    """The placeholders of a config's tree by their keys; those of a list, or a dict of names, stand under its key."""
    found: dict[str, list[str]] = {}
    if is_placeholder(tree):
        found[key] = [str(tree)]
    elif isinstance(tree, list):
        for item in tree:
            for inner, names in placeholders(item, key).items():
                found.setdefault(inner, []).extend(names)
    elif isinstance(tree, Mapping):
        for name, item in tree.items():
            inside = key if key in KEYWORDS else f"{key}.{name}" if key else str(name)
            for inner, names in placeholders(item, inside).items():
                found.setdefault(inner, []).extend(names)
    return found


def resume_line(tree: Mapping[str, object], run: object) -> str | None:
    """The line of Python that goes on with a run with objects in its config; None where the config says it all."""
    found = placeholders(tree)
    if not found:
        return None
    keywords = [_keyword(key, *names) for key, names in found.items()]
    return f"fastslow.train(resume={str(run)!r}, {', '.join(keywords)})"


def check_lent(tree: Mapping[str, object], run: object) -> None:
    """Raises ConfigError, with the line of Python to type, where a run needs objects that are not lent."""
    missing = [name for names in placeholders(tree).values() for name in names if not is_lent(name)]
    if missing:
        raise ConfigError(
            f"{str(run)!r} was started from Python with {', '.join(missing)}, and its config holds the names alone. Go "
            f"on from Python, with the same objects: {resume_line(tree, run)}"
        )


def _keyword(key: str, *names: str) -> str:
    """How an object is given: `reward_funcs=short`, or `slow={'loss': gspo}`."""
    values = [named(name) for name in names]
    value = values[0] if len(values) == 1 else f"[{', '.join(values)}]"
    if key in KEYWORDS:
        keyword = KEYWORDS[key]
        return f"{keyword}={value if key in _BY_NAME else keyword}"
    section, *rest = key.split(".")
    for name in reversed(rest):
        value = f"{{{name!r}: {value}}}"
    return f"{section}={value}"


_BY_NAME = ("task.options.reward_functions", "task.options.environment")


def named(name: str) -> str:
    """The word of a placeholder that a reader knows: the function's or the class's own name."""
    return name.removeprefix(OPEN).removesuffix(CLOSE).split(" ")[0]
