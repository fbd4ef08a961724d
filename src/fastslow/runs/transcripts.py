"""Kept rollouts as conversations that people read: who said what, which tools were called, and where it was cut off."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fastslow.runs.files import SampleLine
from fastslow.tasks.tool_calls import Call, read_calls
from fastslow.types import CUT_OFF

POLICY = "policy"
Mark = Literal["", "forked", "error", "cut"]


@dataclass(frozen=True)
class Said:
    """One thing that was said after the question.

    `speaker` is `policy`, or the role of an environment's message. `calls` are the tools that a turn calls, in words.
    `mark`: the turn has a context of its own (`forked`), a tool answered a failed call with this (`error`), or it was
    cut off within the turn (`cut`).
    """

    speaker: str
    text: str
    calls: tuple[str, ...] = ()
    mark: Mark = ""


def conversation(line: SampleLine) -> list[Said]:
    """What was said in a kept rollout of several turns, in order; nothing for one of a task of one turn."""
    said: list[Said] = []
    errors = set(line.get("tool_errors") or ())
    turns = line.get("turns") or []
    for index, turn in enumerate(turns):
        said += _answers(turn.get("messages") or [], errors)
        cut = line.get("end") == "turn_tokens" and index == len(turns) - 1
        mark: Mark = "cut" if cut else "forked" if turn.get("forked") else ""
        calls = tuple(_words(call) for call in read_calls(turn["text"])) if line.get("tool_calls") else ()
        said.append(Said(POLICY, turn["text"], calls, mark))
    return [*said, *_answers(line.get("said") or [], errors)]


def end_of(line: SampleLine) -> str:
    """Why a rollout ended: as `types.EndReason`. Of a task of one turn it is known whether it was cut off."""
    return line.get("end") or ("turn_tokens" if line.get("finish_reason") == "length" else "done")


def cut_off(line: SampleLine) -> bool:
    """Whether it ended at a limit."""
    return end_of(line) in CUT_OFF


def _answers(messages: list[dict[str, str]], errors: set[str]) -> Iterator[Said]:
    for message in messages:
        failed = message["content"] in errors
        yield Said(message["role"], message["content"], mark="error" if failed else "")


def _words(call: object) -> str:
    if not isinstance(call, Call):
        return "a call that cannot be read"
    return f"{call.name}({_arguments(call.arguments)})"


def _arguments(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
