"""What a config names: a built-in by its short name, or an object of anybody's as `package.module:Name`.

Built-ins are found the same way: each room has a table from short names to import paths, and a new one is one new file.
"""

import difflib
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from fastslow.errors import ConfigError


def resolve(name: str, built_in: Mapping[str, str], field: str) -> Any:
    """The object that a name stands for. Raises ConfigError, naming `field`, with the names that come close."""
    if name in built_in:
        return load_object(built_in[name], field)
    if ":" in name:
        return load_object(name, field)
    close = difflib.get_close_matches(name, built_in, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"{field}: {name!r} is unknown. {hint}Known: {', '.join(built_in)}, and package.module:Name")


def load_object(path: str, field: str) -> Any:
    """The object that `package.module:name` stands for; modules in the current directory are found as well."""
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # a module may raise whatever it likes while it is imported
        told = f"it ends the program (sys.exit({error}))" if isinstance(error, SystemExit) else error
        raise ConfigError(f"{field}: {path!r} cannot be imported: {told}. Write it as package.module:name") from error
    finally:
        if added:
            sys.path.remove(here)


def construct(
    path: str, options: Mapping[str, Any], field: str, *, key: str, given: Mapping[str, Any] | None = None
) -> Any:
    """What the callable behind an import path makes of the options of a config's section `field`, whose `key` names it.

    `given` are values that fastslow has; those that the callable has a parameter for are passed. One that is itself a
    function without parameters is called first, so that what nobody asks for is never made.
    Raises: ConfigError for what cannot be called, and for options that do not fit its signature.
    """
    factory = load_object(path, f"{field}.{key}")
    if not callable(factory):
        raise ConfigError(f"{field}.{key}: {path!r} is {factory!r}, which cannot be called")
    wanted = {name: value for name, value in (given or {}).items() if name in inspect.signature(factory).parameters}
    values = {name: value() if inspect.isfunction(value) else value for name, value in wanted.items()}
    return call(factory, path, options, field, key=key, given=values)


def call(
    factory: Callable[..., Any],
    name: str,
    options: Mapping[str, Any],
    field: str,
    *,
    key: str,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """What a factory makes of options, checked against its signature and its annotations. Raises ConfigError."""
    if not callable(factory):
        raise ConfigError(f"{field}.{key}: {name!r} is {factory!r}, which cannot be called: name a class")
    given = given or {}
    parameters = inspect.signature(factory).parameters
    known = [parameter for parameter in parameters if parameter not in given]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in known and not takes_any:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"{field}.options.{option}: unknown for {name!r}. {hint}Known: {', '.join(known)}")
    for option, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and option not in options and option not in given:
            raise ConfigError(f"{field}.options.{option}: is missing: {field} {name!r} needs it")
    _check_types(factory, options, field)
    return factory(**given, **options)


def _check_types(factory: Callable[..., Any], options: Mapping[str, Any], field: str) -> None:
    """Raises ConfigError for an option whose value does not have the annotated type."""
    function = factory.func if isinstance(factory, functools.partial) else factory
    try:
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):  # annotations of a user's class that only a type checker can read
        return
    for option, value in options.items():
        if option not in hints:
            continue
        try:
            adapter = TypeAdapter(hints[option], config=ConfigDict(strict=True, arbitrary_types_allowed=True))
        except PydanticUserError:  # a model or dataclass brings a config of its own
            continue
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{field}.options.{option}: {error.errors()[0]['msg']}, got {value!r}") from None
