"""Answer formats: how a completion must write its answer, and the rule that the feedback names where it does not.

The rules are constant text, one line each, phrased so that they could stand in a system prompt.
A new format is one entry in `FORMATS`.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from fastslow.errors import TaskError

THINK_END = "</think>"
_JSON_BLOCK = re.compile(r"```[ \t]*json\b[ \t]*\r?\n?(.*?)```", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character, not a brace


@dataclass(frozen=True)
class AnswerFormat:
    """`extract` gives the answer as text, or None where the completion does not keep to the format."""

    extract: Callable[[str], str | None]
    rule: str


def answer_part(completion: str) -> str:
    """What follows the last closing think tag: the part that is judged."""
    return completion.rpartition(THINK_END)[2]


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} or \\fbox{...}, braces balanced; None where there is none."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    begin, depth = boxes[-1].end(), 1
    for brace in _BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[begin : brace.start()].strip()
    return None


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for anything else: NaN, repeated keys, bottomless nesting."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where a key stands twice: which of the values counts is anybody's guess."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def json_value_text(completion: str) -> str | None:
    """The last ```json block of the answer part, or the whole of it; None where there is nothing."""
    part = answer_part(completion)
    try:
        read_json(part)  # a string in it may hold a block, which is not the answer then
    except ValueError:
        blocks = _JSON_BLOCK.findall(part)
    else:
        blocks = []
    return (blocks[-1] if blocks else part).strip() or None


def same_json(one: object, other: object) -> bool:
    """Whether JSON values are equal: 1 equals 1.0, true does not equal 1, a fraction may be off by a relative 1e-9."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or _close(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    return bool(type(one) is type(other) and one == other)


def shorten(text: str, limit: int = 200) -> str:
    """The text, cut to `limit` characters, for feedback that must stay readable."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def _close(one: float, other: float) -> bool:
    try:
        return math.isclose(one, other, rel_tol=1e-9)
    except OverflowError:  # an integer that no float can hold
        return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _plain(text: str) -> str | None:
    return answer_part(text).strip() or None


def _bare_json(text: str) -> str | None:
    try:
        value = read_json(answer_part(text))
        if not isinstance(value, dict) or set(value) != {"answer"}:
            return None
        answer = value["answer"]
        return answer.strip() if isinstance(answer, str) else json.dumps(answer)
    except (ValueError, RecursionError):
        return None


def _tags(text: str) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", answer_part(text), re.DOTALL)
    return found[-1].strip() if found else None


def _brackets(text: str) -> str | None:
    found = re.findall(r"\[\[(.*?)\]\]", answer_part(text), re.DOTALL)
    return found[-1].strip() if found else None


FORMATS: dict[str, AnswerFormat] = {
    "plain": AnswerFormat(_plain, "Reply with the answer alone."),
    "json": AnswerFormat(_bare_json, 'Reply with only a JSON object of the form {"answer": ...} and nothing else.'),
    "tags": AnswerFormat(_tags, "Write the final answer between <answer> and </answer>."),
    "boxed": AnswerFormat(lambda text: last_boxed(answer_part(text)), "Put the final answer in \\boxed{}."),
    "brackets": AnswerFormat(_brackets, "Write the final answer in [[double square brackets]]."),
}


def get_format(name: str) -> AnswerFormat:
    """Raises TaskError for a name that is not known."""
    if name not in FORMATS:
        raise TaskError(f"task.options.answer_format: {name!r} is unknown: take one of {', '.join(FORMATS)}")
    return FORMATS[name]
