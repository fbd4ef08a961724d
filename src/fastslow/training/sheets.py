"""What a run tells as tables, for trackers: kept rollouts, the population, every candidate prompt.

Keys do not leave the machine: texts and the config are redacted as they are in a report.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastslow.redact import redact_config, redact_text
from fastslow.text import shortened, storable
from fastslow.types import Prompt

LONGEST_CELL = 8_000
"""Characters of a text in a table."""
Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Sheet:
    """A table under the name that trackers show."""

    name: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]


SAMPLES = (
    "step", "problem", "question", "reference", "prompt", "prompt text", "completion", "reward", "feedback", "ended",
)  # fmt: skip
POPULATION = ("cycle", "rank", "prompt", "mean", "text")
CANDIDATES = ("cycle", "prompt", "parent", "accepted", "why", "mean", "text", "feedback")


def sheets_of(kind: str, payload: Mapping[str, Any]) -> Iterator[Sheet]:
    """The tables in an event of a run; most events have none."""
    if kind == "samples":
        yield Sheet("samples", SAMPLES, [_sample(payload["step"], line) for line in payload["samples"]])
    elif kind == "cycle":
        yield Sheet("prompts/population", POPULATION, list(_population(payload)))
        candidates = payload.get("candidates") or ()
        if candidates:
            yield Sheet("prompts/candidates", CANDIDATES, [_candidate(line) for line in candidates])


def flat_config(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Cell]:
    """A config as dotted keys and plain values, redacted."""
    found: dict[str, Cell] = {}
    for key, value in redact_config(tree).items():
        if isinstance(value, Mapping) and value:
            found |= flat_config(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float) else cell(str(value))
    return found


def cell(text: str) -> str:
    """A text as it may stand in a tracker."""
    return shortened(redact_text(storable(text)), LONGEST_CELL)


def prompt_text(components: Mapping[str, str]) -> str:
    """A prompt's components as one text: the system text alone, or each under its name."""
    if len(components) == 1:
        return cell(next(iter(components.values())))
    return cell("\n\n".join(f"[{name}]\n{text}" for name, text in components.items()))


def _sample(step: int, line: Mapping[str, Any]) -> list[Cell]:
    turns = line.get("turns")
    said = [f"[{each['role']}]\n{each['content']}" for each in line.get("question", ())]
    question = line["question"][0]["content"] if len(said) == 1 else "\n\n".join(said)
    text = line["text"] if turns is None else "\n\n".join(turn["text"] for turn in turns)
    return [
        step,
        line["problem"],
        cell(question),
        cell(line.get("reference") or ""),
        line["prompt"],
        prompt_text(line["components"]) if line.get("components") else "",
        cell(text),
        line["reward"],
        cell(line["failure"] or line["feedback"] or ""),
        line.get("end") or line["finish_reason"],
    ]


def _population(payload: Mapping[str, Any]) -> Iterator[list[Cell]]:
    prompts: Sequence[Prompt] = list(dict.fromkeys(payload["population"]))
    means = payload.get("means") or {}
    for rank, prompt in enumerate(prompts, start=1):
        yield [payload["cycle"], rank, prompt.hash, means.get(prompt.hash), prompt_text(prompt.as_dict())]


def _candidate(line: Mapping[str, Any]) -> list[Cell]:
    feedback = cell("\n".join(line["feedback"]))
    text, why = prompt_text(line["components"]), cell(line["reason"])
    return [line["cycle"], line["hash"], line["parent"], line["accepted"], why, line["mean"], text, feedback]
