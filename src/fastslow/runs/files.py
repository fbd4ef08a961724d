"""The files of a run directory: their names, and how each is read. The format is described in docs/run-directory.md.

A torn last line is skipped, and a file that is not there yet counts as an empty one, so that a run can be read while it
goes on.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import yaml

from fastslow.config import Config, parse_config
from fastslow.errors import ConfigError, ResumeError

CONFIG, METRICS, PROMPTS = "config.yaml", "metrics.jsonl", "prompts.jsonl"
POPULATION, LIBRARY, SAMPLES = "population.json", "library.json", "rollouts"
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
    """One line of rollouts/step_N.jsonl; older runs lack some of it. What follows `end` is of episodes of several turns.

    `said` are the environment's last words; `text` is the policy's last turn.
    """

    problem: str
    prompt: str
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


CANDIDATE_KEYS = tuple(key for key in CandidateLine.__annotations__ if key != "id")


def is_run(path: Path) -> bool:
    """Whether a run lies here."""
    return (path / CONFIG).is_file()


def read_lines(path: Path, needed: Sequence[str] = ()) -> list[Any]:
    """The records of a file of JSON lines; a torn last line is left out, and a file that is not there has none.

    Raises: ConfigError where a whole line is no JSON, or lacks one of the keys that are `needed`.
    """
    if not path.is_file():
        return []
    *complete, _torn = path.read_bytes().split(b"\n")
    try:
        found = [json.loads(line) for line in complete]
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is broken: {error}") from error
    for number, line in enumerate(found, start=1):
        _check_keys(line, needed, f"{str(path)!r}, line {number}")
    return found


def read_record(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The record of a file of JSON; {} where there is no file. Raises ConfigError as `read_lines` does."""
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is broken: {error}") from error
    _check_keys(record, needed, repr(str(path)))
    return record


def read_config(run: Path) -> Config:
    """The config that a run was made with. Raises ResumeError where there is none."""
    path = run / CONFIG
    if not path.is_file():
        raise ResumeError(f"{str(run)!r} holds no run: there is no config.yaml in it")
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree.pop("versions", None)
    return parse_config(tree, recorded=True)


def checkpoint_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, ascending."""
    return sorted(step_of(path) for path in (run / "checkpoints").glob("step_*"))


def sample_files(run: Path) -> list[Path]:
    """The files in rollouts/, in the order of their steps."""
    return sorted((run / SAMPLES).glob("step_*.jsonl"), key=step_of)


def step_of(path: Path) -> int:
    """The step in a name such as step_12 or step_12.jsonl."""
    return int(path.stem.removeprefix("step_"))


def _check_keys(record: object, needed: Sequence[str], where: str) -> None:
    missing = [key for key in needed if not isinstance(record, dict) or key not in record]
    if missing:
        raise ConfigError(f"{where}: {missing[0]!r} is missing: this is not the file of a run")
