"""The kept rollouts of a run as rows of the page. A long run has more than fit: they are read one step at a time."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.report.clipping import (
    LONGEST_COMPLETION,
    LONGEST_FEEDBACK,
    LONGEST_PROMPT,
    LONGEST_QUESTION,
    LONGEST_TURN,
    clip,
    digits,
)
from fastslow.report.thin import BUDGET
from fastslow.runs.files import SampleLine, count_lines, sample_files, step_of
from fastslow.runs.reader import Run
from fastslow.runs.transcripts import conversation

SAMPLE = (
    "step", "problem", "prompt", "text", "reward", "feedback", "failure", "finish_reason", "source", "end", "said",
    "tool_calls", "question", "reference",
)  # fmt: skip
Row = list[object]


@dataclass
class Samples:
    """`rows`: the kept rollouts, oldest first, each of the fields of SAMPLE;
    `left_out` are those that no page has room for.

    `texts`: by hash, the components of prompts that are not `known`: no search has the seed prompt of RL alone on
    record. `size`: bytes that the rows take in the page, about.
    """

    known: Collection[str]
    rows: list[Row] = field(default_factory=list)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: int = 0
    size: int = 0


def read_samples(run: Run, known: Collection[str], most: int = BUDGET) -> Samples:
    """The rollouts of every step, or of every second, fourth, ... and the last where all are more than `most` bytes.

    `known`: hashes of the prompts whose texts the page has already.
    """
    files = sample_files(run.path)
    found, stride = Samples(known), 1
    kept: dict[int, tuple[list[Row], int]] = {}
    for index, path in enumerate(files):
        if index % stride and index < len(files) - 1:
            found.left_out += count_lines(path)
            continue
        kept[index] = _rows(run, path, found)
        while found.size > most and len(kept) > 1 and stride < len(files):
            stride *= 2
            for other in [each for each in kept if each % stride and each < len(files) - 1]:
                rows, size = kept.pop(other)
                found.left_out, found.size = found.left_out + len(rows), found.size - size
    found.rows = [row for rows, _ in kept.values() for row in rows]
    shown = {row[SAMPLE.index("prompt")] for row in found.rows}
    found.texts = {hash_: texts for hash_, texts in found.texts.items() if hash_ in shown}
    return found


def _rows(run: Run, path: Path, found: Samples) -> tuple[list[Row], int]:
    """The rows of one step, and their size, which `found` gets as well, beside the texts of their prompts."""
    lines = run.samples_of(path)
    for line in lines:
        if line.get("components") and line.get("prompt") and line["prompt"] not in found.known:
            found.texts[line["prompt"]] = {
                name: clip(text, LONGEST_PROMPT) for name, text in line["components"].items()
            }
    rows = [_row(step_of(path), line) for line in lines]
    size = len(json.dumps(rows, ensure_ascii=False))
    found.size += size
    return rows, size


def _row(step: int, line: SampleLine) -> Row:
    row = {
        **line,
        "step": step,
        "text": clip(line["text"], LONGEST_COMPLETION),
        "reward": digits(line.get("reward")),
        "feedback": clip(line.get("feedback") or "", LONGEST_FEEDBACK),
        "said": _said(line),
        "question": _question(line),
        "reference": clip(line.get("reference") or "", LONGEST_FEEDBACK) or None,
    }
    return [row.get(name) for name in SAMPLE]


def _question(line: SampleLine) -> list[list[str]]:
    """The problem's messages, each a row of speaker and text; [] where an older run did not keep them."""
    return [[each["role"], clip(each["content"], LONGEST_QUESTION)] for each in line.get("question") or ()]


def _said(line: SampleLine) -> list[list[object]] | None:
    """What was said in an episode of several turns, each a row of speaker, text, calls and mark."""
    if line.get("turns") is None:
        return None
    return [[one.speaker, clip(one.text, LONGEST_TURN), list(one.calls), one.mark] for one in conversation(line)]
