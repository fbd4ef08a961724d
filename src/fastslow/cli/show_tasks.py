"""What `fastslow tasks` prints: the tasks that a config can name, and of one its options and what its scorer says."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastslow.config import apply_override, load_config
from fastslow.errors import ConfigError
from fastslow.tasks.base import SPLITS, ScoringFailure, Split, Task, check_splits
from fastslow.tasks.registry import REASONING_GYM, build_task, find_factory, list_tasks
from fastslow.tasks.settings import TaskConfig
from fastslow.text import printable
from fastslow.types import Problem

WRONG = "I do not know."
"""What is answered where nobody says what: it is wrong nearly everywhere."""
NEEDED = "(needed)"
PREVIEW = 60


def tasks(words: Sequence[str], *, with_options: bool) -> None:
    """The tasks whose name or description has every one of the words. Raises ConfigError where none has."""
    every = [*list_tasks(), ("package.module:ClassName", "A task of your own; see docs/tasks.md")]
    found = [each for each in every if all(word.lower() in " ".join(each).lower() for word in words)]
    if not found:
        raise ConfigError(f"--find: none of {len(every)} tasks has {' and '.join(words)!r} in its name or description")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, description in found:
        table.add_row(_text(name), _text(description))
        if with_options and "<" not in name and "package." not in name:
            table.add_row("", _text(", ".join(option for option, *_ in options_of(name)), style="dim"))
    console = Console()
    console.print(table)
    console.print(
        _text(
            f"{len(found)} of {len(every)}. fastslow tasks NAME: its options, a problem, and what is said "
            "to a wrong answer."
        )
    )


def task(name: str, overrides: Sequence[str], count: int, answer: str | None, split: Split = "train") -> None:
    """Options, sizes, seed prompt and problems of a task, with score and feedback for an answer:
    a wrong one by default.

    `name` is a task's, or a YAML file, which names its task.
    """
    given = load_config(name).task if name.endswith((".yaml", ".yml")) else TaskConfig(name=name)
    tree = dict(given.options)
    for option in overrides:
        apply_override(tree, option)
    console = Console()
    _print_options(console, given.name, tree)
    built = build_task(given.model_copy(update={"options": tree}))
    sizes = check_splits(built)
    console.print(_text(f"\n{built.name}: " + ", ".join(f"{sizes[each]} {each}" for each in SPLITS), style="bold"))
    console.print(_text("seed prompt"))
    for component, text in built.seed_prompt.as_dict().items():
        console.print(_text(f"  {component}:"))
        for line in text.splitlines() or [""]:
            console.print(_text(f"    {line}"))
    problems = built.problems(split)
    for problem in problems[:count]:
        _print_problem(console, built, problem, WRONG if answer is None else answer)
    if count > len(problems):
        console.print(_text(f"\n--show: {count} were asked for, and {split} has {len(problems)}."))


def options_of(name: str) -> list[tuple[str, str, str]]:
    """Name, type and default of each option of a task, as `task.options` takes them."""
    factory = find_factory(name)
    found = [
        (parameter.name, _kind(parameter.annotation), _default(parameter.default, parameter.empty))
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return [*found, *_generator_options(name, factory)]


def _generator_options(name: str, factory: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """What `params` may hold: the fields of the generator's own config."""
    if not name.startswith(REASONING_GYM) or not isinstance(factory, functools.partial):
        return
    from fastslow.tasks.reasoning_gym import import_reasoning_gym

    known = import_reasoning_gym().factory.DATASETS
    generator = name.removeprefix(REASONING_GYM)
    for field in dataclasses.fields(known[generator][1]) if generator in known else ():
        if field.name not in ("seed", "size"):
            made = field.default_factory
            default = field.default if made is dataclasses.MISSING else made()
            yield f"params.{field.name}", _kind(field.type), _default(default, dataclasses.MISSING)


def _print_options(console: Console, name: str, given: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", title=None)
    for column in ("option", "type", "default"):
        table.add_column(column, overflow="fold")
    for option, kind, default in options_of(name):
        value = f"{default} (now {given[option]!r})" if option in given else default
        table.add_row(_text(option), _text(kind), _text(value))
    console.print(_text(f"{name}: options, each as --set OPTION=VALUE here, task.options in a config", style="bold"))
    console.print(table)


def _print_problem(console: Console, built: Task, problem: Problem, answer: str) -> None:
    kind = f", kind {problem.kind}" if problem.kind else ""
    console.print(_text(f"\nproblem {problem.id}{kind}", style="bold"))
    try:
        messages = built.messages(problem, built.seed_prompt)
    except KeyError:  # an environment that opens its episodes by itself
        messages = problem.messages
    for message in messages:
        console.print(_text(f"{message['role']}: {message['content']}"))
    (score,) = built.verdicts([problem], [answer])
    console.print(_text(f"to the answer {answer!r}:", style="bold"))
    if isinstance(score, ScoringFailure):
        console.print(_text(f"  it cannot be scored: {score.reason}"))
        return
    console.print(_text(f"  reward {score.reward:g}"))
    for line in score.feedback.splitlines() or ["(the scorer says nothing: there is nothing to learn from)"]:
        console.print(_text(f"  feedback: {line}"))


def _kind(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: object, missing: object) -> str:
    if value is missing:
        return NEEDED
    shown = repr(value)
    return shown if len(shown) <= PREVIEW else f"{shown[: PREVIEW - 3]}..."


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
