"""Rows of the user's data: choosing some, putting their options under their questions. `sources.py` reads them."""

import string
from collections.abc import Mapping, Sequence
from typing import Any, overload

from fastslow.errors import TaskError
from fastslow.text import storable

LETTERS = string.ascii_uppercase

Row = tuple[str, dict[str, Any]]
"""Where a row stands, in words, and what it holds."""


class Rows(Sequence[Row]):
    """The rows of one source. Where one stands is put into words when somebody asks: most rows are never spoken of.

    `unit`: what the source counts, a `line` or a `row`; `numbers`: that of each record, from 0 on where it is None.
    """

    def __init__(
        self, source: str, unit: str, records: Sequence[dict[str, Any]], numbers: Sequence[int] | None = None
    ) -> None:
        self.source, self.unit, self.records = source, unit, records
        self.numbers = range(len(records)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return Rows(self.source, self.unit, self.records[index], self.numbers[index])
        return f"{self.source}, {self.unit} {self.numbers[index]}", self.records[index]


def matching(rows: Sequence[Row], where: Mapping[str, object]) -> Sequence[Row]:
    """The rows whose columns have the values of `where`; `details.level` is the field `level` of column `details`.

    Raises: TaskError where no row has such a column, or none is left.
    """
    for column, value in where.items():
        kept, known = list[Row](), False
        for row in rows:
            present, held = _field(row[1], column)
            known = known or present
            if held == value and type(held) is type(value):
                kept.append(row)
        if rows and not known:
            raise TaskError(
                f"task.options.where: no record has {column!r}: the columns are {', '.join(rows[0][1])}, and "
                "'column.field' reaches into one"
            )
        rows = kept
        if not rows:
            raise TaskError(f"task.options.where: no record is left where {column} is {value!r}")
    return rows


def _field(record: Mapping[str, object], column: str) -> tuple[bool, Any]:
    value: Any = record
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value


def check_text(where: str, column: str | None, text: str) -> None:
    """Raises TaskError where a text holds a lone surrogate, which JSON and Python know,
    and files and tokenizers do not.
    """
    if storable(text) != text:
        raise TaskError(f"{where}: column {column!r} holds half of a character, a lone surrogate: write the whole one")


def with_choices(where: str, record: Mapping[str, object], prompt: str, choices: str, answer: str) -> dict[str, Any]:
    """The record with its options under its question, one a line from A on, and with the right letter as its answer.

    The options are a list of texts, or {text, label} as in ARC and SciKnowEval, whose answer is one of the labels. Of a
    chat they stand under the last message, which must be the user's.
    Raises: TaskError where options, labels and answer do not fit together.
    """
    missing = [column for column in (prompt, choices, answer) if column not in record]
    if missing:
        raise TaskError(f"{where}: has no column {missing[0]!r}: the columns are {', '.join(record)}")
    options, given = record[choices], record[answer]
    texts, labels = (options.get("text"), options.get("label")) if isinstance(options, Mapping) else (options, None)
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(LETTERS) or not all(map(_is_text, texts)):
        raise TaskError(f"{where}: column {choices!r} must hold 2 to {len(LETTERS)} texts, not {options!r}")
    if labels is None:
        labels = list(LETTERS[: len(texts)])
        given = labels[given] if type(given) is int and 0 <= given < len(labels) else given
    if not isinstance(labels, list) or not all(map(_is_text, labels)):
        raise TaskError(f"{where}: column {choices!r} must have a list of texts as labels, not {labels!r}")
    if len(labels) != len(texts) or len(set(labels)) < len(labels):
        raise TaskError(f"{where}: column {choices!r} has {len(texts)} texts for the labels {labels}")
    if not isinstance(given, str) or given.strip() not in labels:
        raise TaskError(f"{where}: the answer {given!r} is none of the labels {labels}")
    shown, right = [text.strip() for text in texts], labels.index(given.strip())
    if shown.count(shown[right]) > 1:
        raise TaskError(
            f"{where}: column {choices!r} holds the right option {shown[right]!r} twice: only one can count"
        )
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, shown, strict=False)]
    return {**record, prompt: _extended(where, record[prompt], prompt, "\n".join(lines)), answer: LETTERS[right]}


def _extended(where: str, question: Any, column: str, lines: str) -> Any:
    """The question, a text or a chat, with lines under it."""
    if isinstance(question, str):
        return f"{question}\n\n{lines}"
    *before, last = question
    if last["role"] != "user":
        raise TaskError(
            f"{where}: column {column!r} ends with a message of role {last['role']!r}: options can stand under a "
            "question of the user's alone"
        )
    return [*before, {**last, "content": f"{last['content']}\n\n{lines}"}]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
