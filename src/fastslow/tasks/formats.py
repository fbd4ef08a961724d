"""Answer formats: how a completion must write its answer, and the rule that the feedback names where it does not.

The rules are constant text, one line each, phrased so that they could stand in a system prompt. A new format is one entry
in `FORMATS`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from fastslow.errors import TaskError

THINK_END = "</think>"


@dataclass(frozen=True)
class AnswerFormat:
    """`extract` gives the answer as text, or None where the completion does not keep to the format."""

    extract: Callable[[str], str | None]
    rule: str


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{...}, braces balanced; None where there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin = start + len("\\boxed{")
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def answer_part(completion: str) -> str:
    """What follows the last closing think tag: the part that is judged."""
    return completion.rpartition(THINK_END)[2]


def _plain(text: str) -> str | None:
    return answer_part(text).strip() or None


def _bare_json(text: str) -> str | None:
    try:
        value = json.loads(answer_part(text))
    except ValueError:
        return None
    if not isinstance(value, dict) or set(value) != {"answer"}:
        return None
    answer = value["answer"]
    return answer.strip() if isinstance(answer, str) else json.dumps(answer)


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
        raise TaskError(f"answer_format: {name!r} is unknown: take one of {', '.join(FORMATS)}")
    return FORMATS[name]
