"""From a method's name in a config to the method. A new one is a file here and a line in `settings.METHODS`."""

from fastslow.errors import ConfigError
from fastslow.extension import load_object
from fastslow.methods.base import Method
from fastslow.methods.settings import METHODS


def find_method(name: str) -> Method:
    """The method that a config names. Raises ConfigError for one that is unknown."""
    if name not in METHODS:
        raise ConfigError(f"method: {name!r} is unknown: take one of {', '.join(METHODS)}")
    method: Method = load_object(METHODS[name], "method")()
    return method


def titles() -> dict[str, str]:
    """What tables and charts call each built-in method, in their order."""
    return {name: find_method(name).title for name in METHODS}


def colours() -> dict[str, int]:
    """The place of each built-in method in the palette of charts."""
    return {name: find_method(name).colour for name in METHODS}


def title(name: str) -> str:
    """What tables and charts call a method; the name itself where it is of another version."""
    return titles().get(name, name)
