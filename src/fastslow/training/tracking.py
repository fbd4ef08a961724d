"""Which tracker a run has: TensorBoard, wandb, trackio (`trackers.py`), or an observer of somebody's own.

None is a dependency; one key of the config names it: a short name of `TRACKERS`, or `package.module:Class`.
"""

import inspect
from collections.abc import Mapping
from importlib.util import find_spec

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.extension import resolve
from fastslow.training.observer import Observer, SilentObserver
from fastslow.training.settings import NO_TRACKER, TRACKERS

FIELD = "tracker"


def check_tracker(name: str) -> None:
    """Raises ConfigError where the package that a tracker needs is missing, or a class of your own cannot be made."""
    if name in TRACKERS and find_spec(name) is None:
        raise ConfigError(f"tracker: {name!r} is not installed: pip install 'fastslow[{name}]', or set tracker to none")
    if name != NO_TRACKER:
        _parameters(name, resolve(name, TRACKERS, FIELD))


def make_tracker(config: Config) -> Observer:
    """The observer that the config names; one that keeps silent where it names none.

    A class of your own gets `config` where its constructor has a parameter of that name. Raises: ConfigError.
    """
    name = config.tracker
    if name == NO_TRACKER:
        return SilentObserver()
    check_tracker(name)
    factory = resolve(name, TRACKERS, FIELD)
    try:
        made = factory(config=config) if "config" in _parameters(name, factory) else factory()
    except Exception as error:  # a class of somebody's own may raise whatever it likes
        raise ConfigError(f"{FIELD}: {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not callable(getattr(made, "on_event", None)):
        raise ConfigError(
            f"{FIELD}: {name!r} gave {made!r}, which has no method `on_event(kind, payload)`: see docs/tracking.md"
        )
    observer: Observer = made
    return observer


def _parameters(name: str, factory: object) -> Mapping[str, inspect.Parameter]:
    """What the constructor of a tracker takes. Raises ConfigError where it wants more than the config."""
    if not callable(factory):
        raise ConfigError(f"{FIELD}: {name!r} is {factory!r}, which cannot be called: name a class with `on_event`")
    parameters = inspect.signature(factory).parameters
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in parameters.values():
        if parameter.name != "config" and parameter.default is parameter.empty and parameter.kind not in optional:
            raise ConfigError(
                f"{FIELD}: the constructor of {name!r} wants {parameter.name!r}: give it a default. "
                "It can have `config`"
            )
    return parameters
