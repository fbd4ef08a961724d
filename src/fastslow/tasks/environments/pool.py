"""Instances of environments: made once, used for one episode after another, since making one may be dear."""

import inspect
import random
import threading
from collections.abc import Callable
from typing import Any

from fastslow.errors import ConfigError
from fastslow.extension import load_object
from fastslow.tasks.environments.dice import rolling, seed_class, seed_module

Factory = Callable[[], Any]
MADE = "environment"
"""What an environment's own constructor draws from, the same for each instance."""


class Pool:
    """Instances of one environment that wait for their next episode. Threads may take and give at the same time.

    `sample` is the first one: it tells what the environment has. Raises: ConfigError where it cannot be made;
    `option` says which option named the factory.
    """

    def __init__(self, factory: Factory, option: str) -> None:
        self.factory = factory
        self._lock = threading.Lock()
        seed_module(getattr(factory, "__module__", ""))
        try:
            self.sample = self._make()
        except Exception as error:  # somebody's own code
            raise ConfigError(f"{option}: the environment cannot be made: {type(error).__name__}: {error}") from error
        self.made: type = type(self.sample)
        seed_class(self.made)
        self._free: list[Any] = [self.sample]

    def take(self) -> Any:
        """An instance that nobody else has."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._make()

    def give(self, instance: Any) -> None:
        """Take an instance back whose episode has ended well."""
        with self._lock:
            self._free.append(instance)

    def _make(self) -> Any:
        with rolling(random.Random(MADE)):
            return self.factory()


def factories_of(environment: Any, option: str) -> dict[str, Factory]:
    """What makes each environment: a name for each of several, "" for one. A text is an import path.

    Raises: ConfigError for what cannot be imported or called.
    """
    given = environment if isinstance(environment, dict) else {"": environment}
    if not given:
        raise ConfigError(f"{option}: names no environment: write package.module:Name")
    found: dict[str, Factory] = {}
    for name, factory in given.items():
        made = load_object(factory, option) if isinstance(factory, str) else factory
        if not callable(made):
            raise ConfigError(
                f"{option}: {factory!r} is {made!r}: name a class, or a function that makes an environment"
            )
        found[name] = made
    return found


def members(made: type) -> dict[str, Any]:
    """The functions of a class by name, as TRL lists them: what it inherits too, no properties."""
    return dict(inspect.getmembers(made, predicate=inspect.isfunction))
