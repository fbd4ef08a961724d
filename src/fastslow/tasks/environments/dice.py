"""`random` of somebody's module, seeded for each episode: games draw from it, and episodes run side by side.

The module `random` has one state for the whole process. Two games at the same time would draw from each other,
and a resumed run would see other games. So the name `random` in a game's own module stands for a generator of
the episode that runs in this thread. Where none runs it is the real one. Other sources of chance (numpy, the
clock, a server) are not seeded.
"""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_HERE = threading.local()


class _Dice:
    """Stands for the module `random`: the functions of the thread's own generator, everything else as it is."""

    def __getattr__(self, name: str) -> Any:
        own = getattr(_HERE, "generator", None)
        return getattr(random if own is None or not hasattr(own, name) else own, name)


DICE = _Dice()


@contextmanager
def rolling(generator: random.Random) -> Iterator[None]:
    """Within it, the seeded modules draw from this generator in this thread."""
    before = getattr(_HERE, "generator", None)
    _HERE.generator = generator
    try:
        yield
    finally:
        _HERE.generator = before


def seed_module(name: str) -> None:
    """From now on `random`, and what was imported from it, is the episode's in this module;
    not in Python's own or ours.
    """
    if name.partition(".")[0] in {*sys.stdlib_module_names, "fastslow"}:
        return
    shared = random.random.__self__  # type: ignore[attr-defined]
    module = sys.modules.get(name)
    for key, value in list(vars(module).items()) if module is not None else ():
        if value is random:
            setattr(module, key, DICE)
        elif getattr(value, "__self__", None) is shared:
            setattr(module, key, _drawn(value.__name__))


def seed_class(made: type) -> None:
    """`seed_module` for the modules that a class and the classes it inherits from stand in."""
    for base in made.__mro__:
        seed_module(base.__module__)


def _drawn(name: str) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        return getattr(DICE, name)(*args, **kwargs)

    return draw
