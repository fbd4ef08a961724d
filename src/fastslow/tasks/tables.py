"""Reading the user's data: JSONL files with their line numbers, and Hugging Face datasets; choosing and shaping rows."""

import json
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.base import SPLITS, Split
from fastslow.tasks.formats import unique_keys

REST = "rest"
CUT_EXAMPLE = "for example splits: {train: rest, validation: 200, test: 200}"
FILE_ENDINGS = (".jsonl", ".json", ".ndjson")
LETTERS = string.ascii_uppercase

Row = tuple[str, dict[str, Any]]


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not blank. Raises TaskError that names the line, repeated keys included."""
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=unique_keys)
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{path}, line {number}: is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise TaskError(f"{path}, line {number}: holds {type(record).__name__}: one object a line is needed")
            yield number, record


def is_file_name(source: str) -> bool:
    """Whether a source means a JSONL file, rather than a Hugging Face dataset."""
    return source.endswith(FILE_ENDINGS) or Path(source).is_file()


def read_file(source: str) -> list[Row]:
    """Rows of a JSONL file, each with where it stands. Raises TaskError for a file that is missing, broken or empty."""
    path = Path(source)
    if not path.is_file():
        raise TaskError(f"task.options.data: file {source!r} does not exist")
    try:
        rows = [(f"{source}, line {number}", record) for number, record in read_jsonl(path)]
    except UnicodeDecodeError as error:
        raise TaskError(f"task.options.data: {source!r} is not UTF-8 text: {error}") from error
    if not rows:
        raise TaskError(f"task.options.data: {source!r} holds no records")
    return rows


def read_dataset(source: str, split: str, subset: str | None = None, revision: str | None = None) -> list[Row]:
    """Rows of one split of a Hugging Face dataset: a hub id, a local dataset, or what `save_to_disk` wrote.

    `split` may be a slice, as in `train[:90%]`, except for what `save_to_disk` wrote; `revision` is a branch, tag or
    commit of a hub dataset.
    """
    datasets = _import_datasets()
    try:
        if _is_saved(Path(source)):
            loaded = datasets.load_from_disk(source)
            splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        else:
            splits = {split: datasets.load_dataset(source, subset, split=split, revision=revision)}
    except Exception as error:  # the hub, the network, the loader: each raises errors of its own
        raise TaskError(f"task.options.data: dataset {source!r}, split {split!r}, cannot be loaded: {error}") from error
    if split not in splits:
        raise TaskError(f"task.options.splits: {source!r} has no split {split!r}: it has {', '.join(splits)}")
    if not len(splits[split]):
        raise TaskError(f"task.options.data: {source!r}, split {split!r}, holds no records")
    return [(f"{source} [{split}], row {index}", dict(row)) for index, row in enumerate(splits[split])]


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("task.options.data: datasets is not installed: pip install 'fastslow[tasks]'") from error
    return datasets


def read_source(
    data: str | dict[str, str],
    splits: Mapping[str, str | int] | None,
    cut_from: str,
    subset: str | None,
    revision: str | None = None,
) -> list[Row] | dict[Split, list[Row]]:
    """Rows by split, or one list to be cut: a file for each split, named splits of a dataset, or one source.

    Raises ConfigError where `data` and `splits` do not go together.
    """
    if isinstance(data, dict):
        if splits is not None:
            raise ConfigError("task.options.splits: data already names a file for each split: remove splits")
        _check_names("data", data)
        return {split: read_file(data[split]) for split in SPLITS if split in data}
    if not splits:
        raise ConfigError(f"task.options.splits: is missing. Cut them from the data, {CUT_EXAMPLE}, or name them")
    _check_names("splits", splits)
    for split, size in splits.items():
        if isinstance(size, bool):
            raise ConfigError(f"task.options.splits: {split} = {size}: a size is a number from 0 on, or rest")
    if all(isinstance(size, int) or size == REST for size in splits.values()):
        _check_sizes(splits)
        return read_file(data) if is_file_name(data) else read_dataset(data, cut_from, subset, revision)
    if not all(isinstance(name, str) for name in splits.values()):
        raise ConfigError(f"task.options.splits: {dict(splits)} mixes sizes with names of splits: {CUT_EXAMPLE}")
    if is_file_name(data):
        raise ConfigError(f"task.options.splits: {data!r} is one file, which has no named splits: {CUT_EXAMPLE}")
    return {split: read_dataset(data, str(splits[split]), subset, revision) for split in SPLITS if split in splits}


def matching(rows: list[Row], where: Mapping[str, object]) -> list[Row]:
    """The rows whose columns have the values of `where`; `details.level` is the field `level` of column `details`.

    Raises: TaskError where no row has such a column, or none is left.
    """
    for column, value in where.items():
        found = [(row, *_field(row[1], column)) for row in rows]
        if rows and not any(present for _, present, _ in found):
            raise TaskError(
                f"task.options.where: no record has {column!r}: the columns are {', '.join(rows[0][1])}, and "
                "'column.field' reaches into one"
            )
        rows = [row for row, _, held in found if held == value and type(held) is type(value)]
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


def with_choices(where: str, record: Mapping[str, object], prompt: str, choices: str, answer: str) -> dict[str, Any]:
    """The record with its options under its question, one a line from A on, and with the right letter as its answer.

    The options are a list of texts, or {text, label} as in ARC and SciKnowEval, whose answer is one of the labels. Of a chat
    they stand under the last message, which must be the user's.
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
            f"{where}: column {column!r} ends with a message of role {last['role']!r}: options can stand under a question of "
            "the user's alone"
        )
    return [*before, {**last, "content": f"{last['content']}\n\n{lines}"}]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_names(option: str, given: Mapping[str, object]) -> None:
    for name in given:
        if name not in SPLITS:
            raise ConfigError(f"task.options.{option}: {name!r} is not a split: take {', '.join(SPLITS)}")


def _check_sizes(splits: Mapping[str, str | int]) -> None:
    if list(splits.values()).count(REST) > 1:
        raise ConfigError(f"task.options.splits: only one split can take the rest: {CUT_EXAMPLE}")
    for split, size in splits.items():
        if isinstance(size, int) and size < 0:
            raise ConfigError(f"task.options.splits: {split} = {size}: a size is a number from 0 on, or rest")
