"""The files of a run directory: their names, and how each is read. The format is described in docs/run-directory.md.

A torn last line is skipped, and a file that is not there yet counts as an empty one, so that a run can be read while it
goes on.
"""

import json
import os
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, TypedDict

from fastslow.config import Config, parse_config
from fastslow.config.yaml_text import read_yaml
from fastslow.errors import ConfigError, ResumeError
from fastslow.text import shown

CONFIG, METRICS, PROMPTS = "config.yaml", "metrics.jsonl", "prompts.jsonl"
REFLECTIONS = "reflections.jsonl"
EXPORT = "fastslow.json"
"""What an exported directory says of itself: `deploy/record.py`."""
POPULATION, LIBRARY, SAMPLES, TRACKER = "population.json", "library.json", "rollouts", "tracker.json"
LOST = "lost"
"""The record of a run that began again because its checkpoints were gone."""
SHOWN = (CONFIG, METRICS, PROMPTS, POPULATION, f"{SAMPLES}/step_*.jsonl")
"""Patterns of the files that a page about a run is made from."""


class CandidateLine(TypedDict):
    """One line of prompts.jsonl: a candidate prompt that a cycle proposed or scored."""

    id: int
    hash: str
    parent: str | None
    cycle: int
    components: dict[str, str]
    accepted: bool
    reason: str
    mean: float | None
    scores: dict[str, float]
    feedback: list[str]


class ReflectionLine(TypedDict):
    """One line of reflections.jsonl: a question to a reflection LM, and what became of its answer."""

    cycle: int
    parent: str
    component: str
    child: str | None
    outcome: str
    reason: str
    request: str
    diagnosis: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None


class MemberRecord(TypedDict):
    """A member of population.json."""

    hash: str
    components: dict[str, str]
    mean: float | None


class TurnLine(TypedDict):
    """A turn in a line of rollouts/step_N.jsonl: what the environment said before it, and what the policy wrote.

    `tokens` were sampled; `forked`: its context is not the turn before, continued.
    """

    messages: list[dict[str, str]]
    text: str
    tokens: int
    forked: bool


class SampleLine(TypedDict, total=False):
    """One line of rollouts/step_N.jsonl; older runs lack some of it.
    What follows `end` is of episodes of several turns.

    `question` are the problem's messages, `reference` the right answer where the task tells one, `components` the
    prompt's texts. `said` are the environment's last words; `text` is the policy's last turn.
    """

    problem: str
    prompt: str
    question: list[dict[str, str]]
    reference: str
    components: dict[str, str]
    text: str
    reward: float | None
    feedback: str
    failure: str | None
    finish_reason: str
    source: str
    policy_version: int
    end: str
    turns: list[TurnLine]
    said: list[dict[str, str]]
    tool_calls: int
    tool_errors: list[str]


REFLECTION_KEYS = tuple(ReflectionLine.__annotations__)
CANDIDATE_KEYS = tuple(key for key in CandidateLine.__annotations__ if key != "id")


def is_run(path: Path) -> bool:
    """Whether a run lies here."""
    return os.path.isfile(path / CONFIG)  # unlike Path.is_file, also for a name that is too long for any file


def read_lines(path: Path, needed: Sequence[str] = ()) -> list[Any]:
    """The records of a file of JSON lines; a torn last line is left out, and a file that is not there has none.

    Raises: ConfigError where a whole line is no JSON, or lacks one of the keys that are `needed`.
    """
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            found = [_DECODER.decode(line.decode("utf-8", "surrogatepass")) for line in _whole_lines(file)]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} is broken: {error}") from error
    for number, line in enumerate(found, start=1):
        _check_keys(line, needed, f"{str(path)!r}, line {number}")
    return found


def count_lines(path: Path) -> int:
    """How many records `read_lines` would read, without reading them."""
    with path.open("rb") as file:
        return sum(1 for _ in _whole_lines(file))


def read_record(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The record of a file of JSON; {} where there is no file. Raises ConfigError as `read_lines` does."""
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} is broken: {error}") from error
    _check_keys(record, needed, repr(str(path)))
    return record


def read_config(run: Path) -> Config:
    """The config that a run was made with. Raises ResumeError where there is none."""
    path = run / CONFIG
    if not is_run(run):
        raise ResumeError(f"{shown(str(run))} holds no run: there is no config.yaml in it")
    tree = read_tree(path)
    tree.pop("versions", None)
    return parse_config(tree, recorded=True)


def read_tree(path: Path) -> dict[str, Any]:
    """The config of a run as it stands in its file. Raises ResumeError where that is broken."""
    try:
        tree = deepcopy(_parsed(path.read_text(encoding="utf-8"), repr(str(path))))
        fault = None if isinstance(tree, dict) else f"it holds {'nothing' if tree is None else type(tree).__name__}"
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        tree, fault = None, str(error)
    if fault is None and isinstance(tree, dict):
        return tree
    raise ResumeError(
        f"{str(path)!r} is broken: {fault}. A run is read and resumed by its config: put it back from a copy of the run"
    )


@lru_cache(maxsize=64)
def _parsed(text: str, where: str) -> Any:
    """What a config's text holds. A live page asks again and again, and YAML takes fifty times as long as a copy."""
    return read_yaml(text, where)


def checkpoint_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, ascending. What has another name (a copy, a checkpoint set aside) is none."""
    return sorted(step_of(path) for path in _numbered(run / "checkpoints", "") if path.is_dir())


def sample_files(run: Path) -> list[Path]:
    """The files in rollouts/, in the order of their steps."""
    return sorted(_numbered(run / SAMPLES, ".jsonl"), key=step_of)


def step_of(path: Path) -> int:
    """The step in a name such as step_12 or step_12.jsonl."""
    return int(path.stem.removeprefix("step_"))


def _numbered(directory: Path, suffix: str) -> list[Path]:
    """What is named after a step as fastslow names it: step_12, and not step_012, step_old or "step_4 copy"."""
    name = re.compile(rf"step_(0|[1-9][0-9]{{0,17}}){re.escape(suffix)}")
    return [path for path in directory.glob(f"step_*{suffix}") if name.fullmatch(path.name)]


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines up to the first that has no end: more of it may be written while the others are read."""
    return (line[:-1].removeprefix(BOM_UTF8) for line in takewhile(lambda line: line.endswith(b"\n"), file))


def _shared_keys(found: dict[str, Any]) -> dict[str, Any]:
    """The same with keys that all lines share: of a long run they take more memory than the values."""
    return {sys.intern(key): value for key, value in found.items()}


_DECODER = json.JSONDecoder(object_hook=_shared_keys)


def _check_keys(record: object, needed: Sequence[str], where: str) -> None:
    missing = [key for key in needed if not isinstance(record, dict) or key not in record]
    if missing:
        raise ConfigError(f"{where}: {missing[0]!r} is missing: this is not the file of a run")
