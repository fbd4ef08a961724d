"""What an episode of several turns was, in words, for reflection."""

import json
from collections.abc import Mapping
from typing import Any

from fastslow.types import EndReason, Problem, Rollout

MAX_ERROR_CHARS = 300
ENDS: dict[EndReason, str] = {
    "done": "the environment ended it",
    "turn_tokens": "cut off: the last answer was too long",
    "max_turns": "cut off: too many turns",
    "max_tokens": "cut off: all answers together were too long",
    "context": "cut off: the model's context was full",
    "failed": "the environment failed",
    "timed_out": "the environment did not answer in time",
}
"""Why an episode ended, in words."""
ANSWERS = ("gold", "answer", "solution", "output", "target", "reference", "path", "number")
"""Under which names tasks keep the right answer in a problem's data, the first that is there."""
ROWS = ("record", "row", "entry")
"""Under which names they keep a whole row of a data set, in which it may stand."""


def turns_of(rollout: Rollout) -> tuple[tuple[str, str], ...]:
    """(speaker, text) of all after the question, and at last why it ended; () for a rollout of a task of one turn."""
    trace = rollout.trace
    if trace is None:
        return ()
    said: list[tuple[str, str]] = []
    for turn in rollout.turns:
        said += [(message["role"], message["content"]) for message in turn.messages]
        said.append(("assistant", turn.text))
    said += [(message["role"], message["content"]) for message in trace.said]
    return (*said, ("end", f"{ENDS[trace.end]}, after {len(rollout.turns)} turns"))


def feedback_of(rollout: Rollout) -> str:
    """The verifier's words, and what tools answered to calls that failed, each once: those are lessons as well."""
    if rollout.trace is None:
        return rollout.feedback
    known = rollout.feedback.splitlines()
    errors = [" ".join(error.split())[:MAX_ERROR_CHARS] for error in rollout.trace.tool_errors]
    return "\n".join(dict.fromkeys([*known, *errors]))


def reference_of(problem: Problem) -> str:
    """The right answer to a problem, where its data name one; "" otherwise."""
    rows: list[Mapping[str, Any]] = [problem.data]
    rows += [problem.data[name] for name in ROWS if isinstance(problem.data.get(name), Mapping)]
    found = next((row[name] for row in rows for name in ANSWERS if row.get(name) is not None), "")
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)
