"""From a task's name in a config to the task."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.config import TaskConfig
from fastslow.errors import ConfigError
from fastslow.tasks.base import Task
from fastslow.types import SYSTEM, Prompt

REASONING_GYM = "reasoning_gym:"


def _reasoning_gym(**options: Any) -> Task:
    from fastslow.tasks.reasoning_gym import ReasoningGymTask

    return ReasoningGymTask(**options)


BUILT_IN: dict[str, Callable[..., Task]] = {}


def build_task(config: TaskConfig) -> Task:
    """The task of a config. Raises ConfigError for a name or an option that is not known, TaskError for bad data."""
    task = _construct(config)
    if config.seed_prompt is not None:
        return _with_seed_prompt(task, config.seed_prompt)
    return task


def _construct(config: TaskConfig) -> Task:
    name, options = config.name, dict(config.options)
    if name.startswith(REASONING_GYM):
        from fastslow.tasks.reasoning_gym import ReasoningGymTask

        return _call(ReasoningGymTask, name, {**options, "generator": name.removeprefix(REASONING_GYM)})
    if ":" in name:
        return _call(load_object(name, "task.name"), name, options)
    raise ConfigError(f"task.name: {name!r} is unknown")


def _call(factory: Callable[..., Any], name: str, options: dict[str, Any]) -> Task:
    parameters = inspect.signature(factory).parameters
    for option in options:
        if option not in parameters:
            close = difflib.get_close_matches(option, parameters, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"task.options.{option}: unknown for {name!r}. {hint}Known: {', '.join(parameters)}")
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
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{field}: {path!r} cannot be imported: {error}. Write it as package.module:name") from error
    finally:
        if added:
            sys.path.remove(here)


@dataclass
class _Seeded:
    task: Task


def _with_seed_prompt(task: Task, seed: str | dict[str, str]) -> Task:
    prompt = Prompt.from_dict({SYSTEM: seed} if isinstance(seed, str) else seed)
    if set(prompt.as_dict()) != set(task.seed_prompt.as_dict()):
        raise ConfigError(
            f"task.seed_prompt: has the components {sorted(prompt.as_dict())}, the task's are "
            f"{sorted(task.seed_prompt.as_dict())}"
        )
    task.__class__ = type(task.__class__.__name__, (task.__class__,), {"seed_prompt": property(lambda self: prompt)})
    return task
