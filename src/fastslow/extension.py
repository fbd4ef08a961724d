"""What a config names: a built-in by its short name,
or an object of anybody's as `package.module:Name` or `file.py:Name`.

From Python the object itself may be given (`given.py`). Built-ins are found the same way: each room has a table from
short names to import paths, and a new one is one new file.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from fastslow import given as objects
from fastslow.errors import ConfigError, in_words, let_stop
from fastslow.text import shortened, shown

PREFIXES = ("package", "reasoning_gym", "textarena")
"""Of names that are no import paths, whatever modules of these names there are."""
LONGEST_TOLD = 1000
"""Characters of what somebody's module says while it is imported."""


def resolve(name: str, built_in: Mapping[str, str], field: str) -> Any:
    """The object that a name stands for. Raises ConfigError, naming `field`, with the names that come close."""
    if name in built_in:
        return load_object(built_in[name], field)
    if ":" in name:
        return load_object(name, field)
    close = difflib.get_close_matches(name, built_in, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"{field}: {shown(name)} is unknown. {hint}Known: {', '.join(built_in)}, and package.module:Name")


def is_import_path(text: str) -> bool:
    """Whether `load_object` could import something for this text. What tells code from other texts asks here, so that
    nothing is imported which it did not see.
    """
    module, colon, name = text.rpartition(":")
    dotted = module not in PREFIXES and all(part.isidentifier() for part in module.split("."))
    return bool(colon) and name.isidentifier() and (dotted or module.endswith(".py"))


def load_object(path: str, field: str) -> Any:
    """The object that `package.module:name` or `path/to/file.py:name` stands for, or that was given under this name;
    modules in the current directory are found as well.
    """
    if objects.is_lent(path) or objects.is_placeholder(path):
        return objects.find(path, field)
    if not is_import_path(path):
        raise ConfigError(f"{field}: {shown(path)} is no import path: write it as package.module:name or file.py:name")
    module_name, _, attribute = path.rpartition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = _load_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
        return getattr(module, attribute)
    except BaseException as error:  # a module may raise whatever it likes while it is imported
        let_stop(error)
        told = f"it ends the program (sys.exit({error}))" if isinstance(error, SystemExit) else in_words(error)
        raise ConfigError(
            f"{field}: {shown(path)} cannot be imported: {shortened(told, LONGEST_TOLD)}. Write it as "
            "package.module:name"
        ) from error
    finally:
        if added:
            sys.path.remove(here)


def _load_file(name: str) -> ModuleType:
    """The module in a file, loaded once."""
    path = Path(name).resolve()
    known = f"fastslow_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(f"there is no file {shown(str(path))}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[known]
            raise
    return sys.modules[known]


def construct(
    path: str, options: Mapping[str, Any], field: str, *, key: str, given: Mapping[str, Any] | None = None
) -> Any:
    """What the callable behind an import path makes of the options of a config's section `field`, whose `key` names it.
    An object that was given, and is neither a class nor a function, is what would have been made.

    `given` are values that fastslow has; those that the callable has a parameter for are passed. One that is itself a
    function without parameters is called first, so that what nobody asks for is never made.
    Raises: ConfigError for what cannot be called, and for options that do not fit its signature.
    """
    factory = load_object(path, f"{field}.{key}")
    if is_made(path, factory):
        if options:
            raise ConfigError(
                f"{field}.options: {shown(sorted(options))} are for the constructor of {shown(path)}, which was given "
                "as an object: leave them out"
            )
        return factory
    if not callable(factory):
        raise ConfigError(f"{field}.{key}: {shown(path)} is {shown(factory)}, which cannot be called")
    wanted = {name: value for name, value in (given or {}).items() if name in inspect.signature(factory).parameters}
    values = {name: value() if inspect.isfunction(value) else value for name, value in wanted.items()}
    return call(factory, path, options, field, key=key, given=values)


def is_made(path: str, found: object) -> bool:
    """Whether what a name stands for was given as an object that is there already, and not as what makes one."""
    makes = inspect.isclass(found) or inspect.isroutine(found) or isinstance(found, functools.partial)
    return objects.is_lent(path) and not makes


def can_make(path: str, field: str) -> bool:
    """Whether `construct` gets something from a name: it is callable, or there already. Raises as `load_object`."""
    found = load_object(path, field)
    return callable(found) or is_made(path, found)


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
        raise ConfigError(f"{field}.{key}: {shown(name)} is {shown(factory)}, which cannot be called: name a class")
    given = given or {}
    parameters = inspect.signature(factory).parameters
    known = [parameter for parameter in parameters if parameter not in given]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in known and not takes_any:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            where = f"{field}.options.{shortened(str(option), 200)}"
            raise ConfigError(f"{where}: unknown for {shown(name)}. {hint}Known: {', '.join(known)}")
    for option, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and option not in options and option not in given:
            raise ConfigError(f"{field}.options.{option}: is missing: {field} {shown(name)} needs it")
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
            raise ConfigError(f"{field}.options.{option}: {error.errors()[0]['msg']}, got {shown(value)}") from None
