"""From a task's name in a config to the task."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fastslow.errors import ConfigError
from fastslow.extension import call, load_object
from fastslow.tasks.base import Task
from fastslow.tasks.isolation.task import IsolatedTask
from fastslow.tasks.settings import TaskConfig
from fastslow.text import shown
from fastslow.types import Prompt

REASONING_GYM = "reasoning_gym:"
TEXTARENA = "textarena:"
BUILT_IN: dict[str, str] = {
    "star_graph": "fastslow.tasks.star_graph:StarGraphTask",
    "codeio": "fastslow.tasks.codeio:CodeIOTask",
    "hover": "fastslow.tasks.hover:HoverTask",
    "records": "fastslow.tasks.records:RecordsTask",
    "tool_protocol": "fastslow.tasks.tool_protocol:ToolProtocolTask",
    "guess": "fastslow.tasks.guess:GuessTask",
    "search": "fastslow.tasks.search:SearchTask",
    "environment": "fastslow.tasks.environments.trl:EnvironmentTask",
    "text_environment": "fastslow.tasks.environments.text:TextEnvironmentTask",
    "lab": "fastslow.lab.tasks:LabTask",
    "agent": "fastslow.tasks.agents.task:AgentTask",
    "stream": "fastslow.tasks.stream:StreamTask",
}


def build_task(config: TaskConfig) -> Task:
    """The task of a config. Raises ConfigError for a name or an option that is not known, TaskError for bad data."""
    task = guarded(make_task(config), config)
    if config.seed_prompt is None:
        return task
    seed = config.seed_prompt
    return task.with_seed_prompt(Prompt.of(seed) if isinstance(seed, str) else _seed_prompt(task, seed))


def make_task(config: TaskConfig) -> Task:
    """What the name and the options of a config stand for."""
    return construct_task(find_factory(config.name), config.name, config.options)


def guarded(task: Task, config: TaskConfig) -> Task:
    """The task under the limits of its config: in processes of its own, where the config says so."""
    if config.isolate is not None:
        if config.name == "agent":
            raise ConfigError(
                "task.isolate: 'process' is not for task 'agent': agents run in threads of the run: set it to null"
            )
        spec = {"name": config.name, "options": config.options}
        return IsolatedTask(task, spec, config.timeout_s, config.memory_gib)
    if config.memory_gib is not None:
        raise ConfigError("task.memory_gib: is a limit of processes of their own: set task.isolate to process as well")
    task.limit_scoring(config.timeout_s)
    return task


def _seed_prompt(task: Task, given: Mapping[str, str | None]) -> Prompt:
    """The prompt of some components; null stands for the text that the task has for it."""
    texts = {name: text for name, text in given.items() if text is not None}
    if len(texts) < len(given):
        known = {**task.optional_components, **task.seed_prompt.as_dict()}
        unknown = [name for name in given if name not in texts and name not in known]
        if unknown:
            raise ConfigError(
                f"task.seed_prompt: {shown(unknown[0])} is null, and task {shown(task.name)} has no text of its own "
                f"for it. It has one for {', '.join(sorted(known))}"
            )
        texts |= {name: known[name] for name in given if name not in texts}
    return Prompt.from_dict(texts)


def list_tasks() -> list[tuple[str, str]]:
    """Name and one line of every task that can be named in a config, besides `package.module:Class`."""
    from fastslow.tasks.reasoning_gym import list_generators

    tasks = [(name, _first_line(load_object(path, "task.name"))) for name, path in BUILT_IN.items()]
    tasks.append((f"{TEXTARENA}<game>", "A game of TextArena; its names: docs/episodes.md"))
    try:
        generators = list_generators()
    except ConfigError:
        return [*tasks, (f"{REASONING_GYM}<generator>", "Needs reasoning-gym: pip install 'fastslow[tasks]'")]
    return [*tasks, *((f"{REASONING_GYM}{name}", line) for name, line in generators)]


def find_factory(name: str) -> Any:
    """What makes the task of that name; a given task is itself. Raises ConfigError with names that come close."""
    if name in BUILT_IN:
        return load_object(BUILT_IN[name], "task.name")
    if name.startswith(REASONING_GYM):
        from fastslow.tasks.reasoning_gym import ReasoningGymTask

        return functools.partial(ReasoningGymTask, name.removeprefix(REASONING_GYM))
    if name.startswith(TEXTARENA):
        from fastslow.tasks.environments.textarena import TextArenaTask

        return functools.partial(TextArenaTask, name.removeprefix(TEXTARENA))
    if ":" in name:
        return load_object(name, "task.name")
    known = [task for task, _ in list_tasks()]
    # Many will write a generator without its prefix.
    by_short_name = {task.removeprefix(REASONING_GYM): task for task in known}
    close = [by_short_name[short] for short in difflib.get_close_matches(name, by_short_name, n=3)]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(
        f"task.name: {shown(name)} is unknown. {hint}Known: {', '.join(BUILT_IN)}, {REASONING_GYM}<generator> and "
        f"package.module:Class; `fastslow tasks` lists them"
    )


def construct_task(factory: Callable[..., object] | Task, name: str, options: Mapping[str, object]) -> Task:
    """The task that a factory makes of the options, or the task that was given.
    Raises ConfigError for options that do not fit its signature.
    """
    if isinstance(factory, Task):
        if options:
            raise ConfigError(
                f"task.options: {sorted(options)} are for the constructor of a task that is there: leave them out"
            )
        return factory
    task = call(factory, name, options, "task", key="name")
    if not isinstance(task, Task):
        raise ConfigError(f"task.name: {shown(name)} gave {shown(task)}, which is not a fastslow Task: subclass it")
    return task


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]
