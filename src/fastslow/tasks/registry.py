"""From a task's name in a config to the task."""

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

from fastslow.config import TaskConfig
from fastslow.errors import ConfigError
from fastslow.tasks.base import Task
from fastslow.types import SYSTEM, Prompt

REASONING_GYM = "reasoning_gym:"
BUILT_IN: dict[str, str] = {
    "star_graph": "fastslow.tasks.star_graph:StarGraphTask",
    "codeio": "fastslow.tasks.codeio:CodeIOTask",
    "hover": "fastslow.tasks.hover:HoverTask",
    "records": "fastslow.tasks.records:RecordsTask",
    "lab": "fastslow.lab.tasks:LabTask",
    "stream": "fastslow.tasks.stream:StreamTask",
}


def build_task(config: TaskConfig) -> Task:
    """The task of a config. Raises ConfigError for a name or an option that is not known, TaskError for bad data."""
    task = construct(find_factory(config.name), config.name, config.options)
    if config.seed_prompt is None:
        return task
    seed = config.seed_prompt
    return task.with_seed_prompt(Prompt.from_dict({SYSTEM: seed} if isinstance(seed, str) else seed))


def list_tasks() -> list[tuple[str, str]]:
    """Name and one line of every task that can be named in a config, besides `package.module:Class`."""
    from fastslow.tasks.reasoning_gym import list_generators

    tasks = [(name, _first_line(load_object(path, "task.name"))) for name, path in BUILT_IN.items()]
    try:
        generators = list_generators()
    except ConfigError:
        return [*tasks, (f"{REASONING_GYM}<generator>", "Needs reasoning-gym: pip install 'fastslow[tasks]'")]
    return [*tasks, *((f"{REASONING_GYM}{name}", line) for name, line in generators)]


def find_factory(name: str) -> Callable[..., Any]:
    """What makes the task of that name. Raises ConfigError with the names that come close."""
    if name in BUILT_IN:
        factory: Callable[..., Any] = load_object(BUILT_IN[name], "task.name")
        return factory
    if name.startswith(REASONING_GYM):
        from fastslow.tasks.reasoning_gym import ReasoningGymTask

        return functools.partial(ReasoningGymTask, name.removeprefix(REASONING_GYM))
    if ":" in name:
        found: Callable[..., Any] = load_object(name, "task.name")
        return found
    known = [task for task, _ in list_tasks()]
    # Many will write a generator without its prefix.
    by_short_name = {task.removeprefix(REASONING_GYM): task for task in known}
    close = [by_short_name[short] for short in difflib.get_close_matches(name, by_short_name, n=3)]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(
        f"task.name: {name!r} is unknown. {hint}Known: {', '.join(BUILT_IN)}, {REASONING_GYM}<generator> and "
        f"package.module:Class; `fastslow tasks` lists them"
    )


def construct(factory: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Task:
    """The task that a factory makes of the options. Raises ConfigError for options that do not fit its signature."""
    if not callable(factory):
        raise ConfigError(f"task.name: {name!r} is {factory!r}, which cannot be called: name a Task class")
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in parameters and not takes_any:
            close = difflib.get_close_matches(option, parameters, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"task.options.{option}: unknown for {name!r}. {hint}Known: {', '.join(parameters)}")
    for option, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and option not in options:
            raise ConfigError(f"task.options.{option}: is missing: task {name!r} needs it")
    _check_types(factory, options)
    task = factory(**options)
    if not isinstance(task, Task):
        raise ConfigError(f"task.name: {name!r} gave {task!r}, which is not a fastslow Task: subclass it")
    return task


def load_object(path: str, field: str) -> Any:
    """The object that `package.module:name` stands for; modules in the current directory are found as well."""
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a module may raise whatever it likes while it is imported
        raise ConfigError(f"{field}: {path!r} cannot be imported: {error}. Write it as package.module:name") from error
    finally:
        if added:
            sys.path.remove(here)


def _check_types(factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
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
            raise ConfigError(f"task.options.{option}: {error.errors()[0]['msg']}, got {value!r}") from None


def _first_line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]
