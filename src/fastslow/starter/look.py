"""What a dataset looks like: which column is the question, which the answer, and which scorer its answers ask for.

It is a guess, by the names of columns and the looks of answers.
The config that is written from it says what was guessed.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.formats import read_json
from fastslow.tasks.numbers import last_number
from fastslow.tasks.sources import (
    MOST_HELD_OUT,
    REST,
    default_splits,
    is_file_name,
    open_splits,
    read_file,
    read_hub,
)

QUESTIONS = ("prompt", "question", "problem", "query", "instruction", "input", "messages", "text", "task")
ANSWERS = (
    "answer", "final_answer", "label", "target", "gold", "ground_truth", "expected", "answerkey", "solution", "output",
    "response", "completion", "reference", "result",
)  # fmt: skip
CHOICES = ("choices", "options")
LOOKED_AT = 20_000
SHORT, LONGEST_NUMBER = 60, 40
"""Characters of an answer that can be compared as it stands, and of one that is a number with a unit or a currency."""
MOSTLY = 0.8
"""Share of the records that must have a question for a column to be the one with questions."""
_LATEX = re.compile(r"\\(?:boxed|frac|sqrt|pi|text|left|cdot)|[_^]\{")
_LETTER = re.compile(r"\(?[A-Ja-j][).]?")


@dataclass(frozen=True)
class Look:
    """What was found. `sizes` are those of the dataset's own splits, `rows` those that were looked at.

    `scorer` is a built-in's name, None where a function must be written; `why` says in words what the guess goes by.
    `repeated` questions stand more than once, in one split or in two; `broken` rows lack a question or an answer.
    """

    source: str
    sizes: Mapping[str, int]
    columns: tuple[str, ...]
    prompt: str
    answer: str | None
    choices: str | None
    scorer: str | None
    why: str
    rows: int
    repeated: int
    broken: int
    example: Mapping[str, Any]

    @property
    def splits(self) -> dict[str, str | int]:
        """How the data is divided: as the dataset itself is, or a tenth each to validate and to test on."""
        if len(self.sizes) > 1:
            return default_splits(self.sizes)
        held_out = min(MOST_HELD_OUT, max(1, (self.rows - self.repeated - self.broken) // 10))
        return {"train": REST, "validation": held_out, "test": held_out}


def look(source: str, subset: str | None = None, *, prompt: str | None = None, answer: str | None = None) -> Look:
    """Look at a file or a dataset; `prompt` and `answer` name the columns where the guess would be another.

    Raises: TaskError where it cannot be read, ConfigError where no column can be the question.
    """
    sizes, rows, others = _read(source, subset)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    for option, name in (("--prompt", prompt), ("--answer", answer)):
        if name is not None and name not in columns:
            raise ConfigError(f"{option}: {name!r} is no column of {source!r}: it has {', '.join(columns)}")
    question = prompt or _question(rows, columns)
    if question is None:
        raise ConfigError(
            f"--prompt: no column of {source!r} looks like a question: name one of {', '.join(columns)}. It holds a "
            "text, or a list of chat messages that ends with the user's"
        )
    choices = next((name for name in columns if name.lower() in CHOICES and _are_options(rows, name)), None)
    rest = [name for name in columns if name not in (question, choices)]
    found = answer or _named(rest, ANSWERS) or (rest[0] if len(rest) == 1 and not prompt else None)
    values = [row.get(found) for row in rows] if found is not None else []
    whole = [value for value in values if not _is_empty(value)]
    scorer, why = ("choice", "there are options to choose from") if choices and whole else guess_scorer(whole)
    questions = [repr(row.get(question)) for row in (*rows, *others) if not _is_empty(row.get(question))]
    needed = [question] if found is None or scorer is None else [question, found]
    empty = sum(any(_is_empty(row.get(name)) for name in needed) for row in rows)
    return Look(
        source, sizes, columns, question, found, choices if whole else None, scorer, why,
        len(rows), len(questions) - len(set(questions)), empty, rows[0],
    )  # fmt: skip


def guess_scorer(answers: Sequence[Any]) -> tuple[str | None, str]:
    """A built-in scorer for these answers and what says so; None where only a function of one's own can judge them."""
    if not answers:
        return None, "there is no column with answers"
    texts = [answer if isinstance(answer, str) else repr(answer) for answer in answers]

    def all_are(rule: Callable[[str], object], share: float = 1.0) -> bool:
        return sum(bool(rule(text.strip())) for text in texts) >= share * len(texts)

    if all(isinstance(answer, dict | list) for answer in answers) or all_are(_is_json):
        return "json", "the answers are JSON"
    if all_are(_LETTER.fullmatch):
        return "choice", "the answers are letters"
    if all(isinstance(answer, int | float) for answer in answers) or all_are(_is_number):
        return "number", "the answers are numbers"
    if all_are(lambda text: "####" in text and last_number(text.rpartition("####")[2]) is not None):
        return "number", "the answers end with #### and a number"
    if all_are(_LATEX.search, 0.2) and all_are(lambda text: _LATEX.search(text) or len(text) <= SHORT):
        if find_spec("math_verify") is None:
            return None, "the answers are mathematics: pip install 'fastslow[math]', then scorer: math"
        return "math", "the answers are mathematics"
    if all_are(lambda text: len(text) <= SHORT and "\n" not in text):
        return "exact", "the answers are short texts"
    return None, "the answers are long texts, which no rule compares"


# -- inside ------------------------------------------------------------------------------------------------------------


def _read(source: str, subset: str | None) -> tuple[dict[str, int], list[dict[str, Any]], list[dict[str, Any]]]:
    """Sizes of the splits, rows of the one to train on, and rows of the others."""
    if is_file_name(source):
        rows = [row for _, row in read_file(source)]
        return {"train": len(rows)}, rows[:LOOKED_AT], []
    splits = open_splits(source) or read_hub(source, subset)
    sizes = {name: len(part) for name, part in splits.items()}
    train = "train" if "train" in splits else next(iter(splits))
    if not sizes[train]:
        raise TaskError(f"--data: {source!r} holds no records")
    looked = {name: [dict(part[i]) for i in range(min(sizes[name], LOOKED_AT))] for name, part in splits.items()}
    return sizes, looked.pop(train), [row for rows in looked.values() for row in rows]


def _question(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    """By its name, or else the column of texts that says most and repeats least."""
    some = rows[:100]
    fitting = [name for name in columns if sum(_is_question(row.get(name)) for row in some) >= MOSTLY * len(some)]
    named = _named(fitting, QUESTIONS)
    if named is not None:
        return named
    rest = [name for name in fitting if name.lower() not in ANSWERS]
    texts = {name: [str(row.get(name)) for row in some] for name in rest}
    return max(rest, key=lambda name: (len(set(texts[name])), sum(map(len, texts[name]))), default=None)


def _named(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column whose name stands first among the names; capitals do not matter."""
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)


def _is_question(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if not isinstance(value, list) or not value:
        return False
    chat = all(isinstance(message, Mapping) and isinstance(message.get("content"), str) for message in value)
    return chat and value[-1].get("role") == "user"


def _are_options(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    values = [row.get(column) for row in rows[:100]]
    return all(isinstance(value, list) or (isinstance(value, Mapping) and "text" in value) for value in values)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value) or value != value


def _is_number(text: str) -> bool:
    return len(text) <= LONGEST_NUMBER and last_number(text) is not None and not re.search(r"[A-Za-z]{4,}", text)


def _is_json(text: str) -> bool:
    if text[:1] not in ("{", "["):
        return False
    try:
        return isinstance(read_json(text), dict | list)
    except ValueError:
        return False
