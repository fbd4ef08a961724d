"""What the lines and records of a run directory must look like before they are used: they may be anybody's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict as CheckedDict  # pydantic asks for this one below Python 3.12

from fastslow.errors import ConfigError
from fastslow.runs import metrics as m
from fastslow.runs.files import read_lines
from fastslow.text import shown

Number = float | None
Scores = dict[str, Number]


class _Candidate(CheckedDict, total=False):
    id: int
    hash: str
    parent: str | None
    cycle: int
    components: dict[str, str]
    accepted: bool
    reason: str
    mean: Number
    scores: Scores
    feedback: list[str]


class _Reflection(CheckedDict, total=False):
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
    usd: Number


class _Member(CheckedDict):
    hash: str
    components: dict[str, str]
    mean: Number


class _Population(CheckedDict, total=False):
    population: list[_Member]
    by_kind: dict[str, str]


class _Turn(CheckedDict, total=False):
    messages: list[dict[str, str]]
    text: str


class _Sample(CheckedDict, total=False):
    problem: str
    prompt: str
    question: list[dict[str, str]]
    reference: str | None
    components: dict[str, str]
    text: str
    reward: Number
    feedback: str | None
    failure: str | None
    finish_reason: str | None
    source: str | None
    policy_version: int
    end: str
    turns: list[_Turn]
    said: list[dict[str, str]]
    tool_calls: int
    tool_errors: list[str]


CANDIDATE: TypeAdapter[Any] = TypeAdapter(_Candidate)
REFLECTION: TypeAdapter[Any] = TypeAdapter(_Reflection)
POPULATION: TypeAdapter[Any] = TypeAdapter(_Population)
SAMPLE: TypeAdapter[Any] = TypeAdapter(_Sample)


def check_shape(shape: TypeAdapter[Any], record: object, where: str) -> None:
    """Raises ConfigError where a record has a member of another type than fastslow writes."""
    try:
        shape.validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{where}: {place}: {first['msg']}, got {shown(first['input'])}: this is not the file of a run"
        ) from None


def checked_lines(path: Path, needed: Sequence[str], shape: TypeAdapter[Any]) -> list[Any]:
    """The records of a file of JSON lines, each of the shape that fastslow writes."""
    lines = read_lines(path, needed)
    for number, line in enumerate(lines, start=1):
        check_shape(shape, line, f"{str(path)!r}, line {number}")
    return lines


def check_metrics(line: dict[str, Any], where: str) -> None:
    """Raises ConfigError where a line of metrics has something else than a number where one belongs."""
    if not isinstance(line[m.STEP.name], int):
        raise ConfigError(
            f"{where}: step is {shown(line[m.STEP.name])} and not a whole number: this is not the file of a run"
        )
    for key, value in line.items():
        found = m.find(key)
        if found is None or value is None:
            continue
        wanted, fits = ("a text", str) if found.metric is m.ERROR else ("a number", int | float)
        if not isinstance(value, fits):
            raise ConfigError(f"{where}: {key} is {shown(value)} and not {wanted}: this is not the file of a run")
