"""Reading the user's data: files of JSON, CSV or Parquet, Hugging Face datasets, and objects given from Python."""

import csv
import gzip
import json
import re
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fastslow import given
from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.base import SPLITS, Split
from fastslow.tasks.formats import unique_keys
from fastslow.tasks.tables import Rows
from fastslow.text import shown

REST = "rest"
CUT_EXAMPLE = "for example splits: {train: rest, validation: 200, test: 200}"
FIELD = "task.options.data"
JSON_LINES = (".jsonl", ".json", ".ndjson")
DELIMITED = (".csv", ".tsv")
PARQUET = ".parquet"
GZ = ".gz"
LONGEST_CELL = 2**31 - 1
VALIDATION_NAMES = ("validation", "valid", "val", "dev", "eval")
MOST_HELD_OUT = 200
_SLICE = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def read_source(
    data: str | Mapping[str, str],
    splits: Mapping[str, str | int] | None,
    cut_from: str,
    subset: str | None,
    revision: str | None = None,
) -> Rows | dict[Split, Rows]:
    """Rows by split, or one list to be cut: a file for each split, named splits of a dataset, or one source.

    Raises ConfigError where `data` and `splits` do not go together.
    """
    if isinstance(data, Mapping):
        if splits is not None:
            raise ConfigError("task.options.splits: data already names a file for each split: remove splits")
        _check_names("data", data)
        return {split: _read_all(data[split]) for split in SPLITS if split in data}
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


# -- files -------------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of every line that is not blank. Raises TaskError that names the line, repeats included."""
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=_shared_keys)
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{path}, line {number}: is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise TaskError(f"{path}, line {number}: holds {type(record).__name__}: one object a line is needed")
            yield number, record


def _shared_keys(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """As `unique_keys`, with keys that all records share: of many small ones they take more memory than the values."""
    found = {sys.intern(name): value for name, value in pairs}
    return found if len(found) == len(pairs) else unique_keys(pairs)


def is_file_name(source: str) -> bool:
    """Whether a source means a file, rather than a Hugging Face dataset or an object that was given."""
    if given.is_lent(source) or given.is_placeholder(source):
        return False
    name = source.removesuffix(GZ)
    return name.endswith((*JSON_LINES, *DELIMITED, PARQUET)) or Path(source).is_file()


def read_file(source: str) -> Rows:
    """Rows of a file, each with where it stands; of a .csv or .tsv every cell is a text.

    Raises TaskError for a file that is missing, broken or empty.
    """
    path = Path(source)
    if not path.is_file():
        raise TaskError(f"{FIELD}: file {source!r} does not exist")
    try:
        rows = _reader(path)(path)
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{FIELD}: {source!r} is not UTF-8 text: {error}. Files are read by their ending: "
            f"{', '.join((*JSON_LINES, *DELIMITED, PARQUET))}, all but the last with {GZ} too"
        ) from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise TaskError(f"{FIELD}: {source!r} is no whole {GZ} file: {error}") from error
    if not rows:
        raise TaskError(f"{FIELD}: {source!r} holds no records")
    return rows


def _reader(path: Path) -> Callable[[Path], Rows]:
    kind = Path(path.name.removesuffix(GZ)).suffix
    if kind == PARQUET:
        return _read_parquet
    if kind in DELIMITED:
        return _read_delimited
    return _read_json if kind == ".json" else _read_lines


def _open(path: Path) -> IO[str]:
    if path.suffix == GZ:
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _read_lines(path: Path) -> Rows:
    numbers, records = array("q"), list[dict[str, Any]]()
    for number, record in read_jsonl(path):
        numbers.append(number)
        records.append(record)
    return Rows(str(path), "line", records, numbers)


def _read_json(path: Path) -> Rows:
    """A list of objects, or an object a line."""
    with _open(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):
        return _read_lines(path)
    try:
        records = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}: is not JSON: {error}") from error
    return _as_rows(records, str(path), "record")


def _read_delimited(path: Path) -> Rows:
    csv.field_size_limit(LONGEST_CELL)
    numbers, records = array("q"), list[dict[str, Any]]()
    with _open(path) as file:
        first = file.readline()
        file.seek(0)
        delimiter = "\t" if ".tsv" in path.suffixes else ";" if ";" in first and "," not in first else ","
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            repeated = next((name for name in header if header.count(name) > 1), None)
            if repeated is not None or not all(name.strip() for name in header):
                raise TaskError(f"{path}: its first line must name every column once, it has {shown(header)}")
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise TaskError(
                        f"{path}, line {reader.line_num}: has {len(cells)} cells for {len(header)} columns: quote "
                        f"cells that hold {delimiter!r}"
                    )
                if cells:
                    numbers.append(reader.line_num)
                    records.append(dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            raise TaskError(f"{path}, line {reader.line_num}: is no row of a table: {error}") from error
    return Rows(str(path), "line", records, numbers)


def _read_parquet(path: Path) -> Rows:
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(f"{FIELD}: {str(path)!r} cannot be read as Parquet: {error}") from error
    return _as_rows(records, str(path), "row")


def _as_rows(records: Any, source: str, what: str) -> Rows:
    rows = []
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise TaskError(f"{source}, {what} {index}: holds {type(record).__name__}: an object is needed")
        rows.append(dict(record))
    return Rows(source, what, rows)


def _read_all(source: Any) -> Rows:
    """All rows of what stands for one split: a file, a dataset, or an object that was given."""
    return read_file(source) if is_file_name(source) else read_dataset(source, "train")


# -- datasets ----------------------------------------------------------------------------------------------------------


def read_dataset(source: str, split: str, subset: str | None = None, revision: str | None = None) -> Rows:
    """Rows of one split of a Hugging Face dataset: a hub id, a local dataset, what `save_to_disk` wrote, or an object.

    `split` may be a slice, as in `train[:90%]`; `revision` is a branch, tag or commit of a hub dataset.
    """
    try:
        splits = open_splits(source)
        if splits is None:
            rows: Any = _datasets().load_dataset(source, subset, split=split, revision=revision)
        else:
            rows = _part(source, splits, split)
    except (ConfigError, TaskError):
        raise
    except Exception as error:  # the hub, the network, the loader: each raises errors of its own
        raise TaskError(f"{FIELD}: dataset {source!r}, split {split!r}, cannot be loaded: {error}") from error
    if not len(rows):
        raise TaskError(f"{FIELD}: {source!r}, split {split!r}, holds no records")
    return _as_rows(rows, f"{source} [{split}]", "row")


def read_hub(source: str, subset: str | None = None) -> Mapping[str, Any]:
    """Every split of a dataset that the library finds. Raises TaskError where there is none."""
    try:
        found: Mapping[str, Any] = _datasets().load_dataset(source, subset)
    except Exception as error:  # the hub, the network, the loader: each raises errors of its own
        raise TaskError(f"{FIELD}: dataset {source!r} cannot be loaded: {error}") from error
    return found


def open_splits(source: str) -> Mapping[str, Any] | None:
    """The splits of what `save_to_disk` wrote, or of an object that was given; one without splits is `train`.
    None where it is neither.
    """
    if given.is_lent(source) or given.is_placeholder(source):
        found = given.find(source, FIELD)
        return {
            name: as_table(part) for name, part in (found if isinstance(found, Mapping) else {"train": found}).items()
        }
    if _is_saved(Path(source)):
        loaded = _datasets().load_from_disk(source)
        return loaded if isinstance(loaded, Mapping) else {"train": loaded}
    return None


def default_splits(sizes: Mapping[str, int]) -> dict[str, str | int]:
    """What a dataset is divided into where nobody says it; `sizes` are those of its own splits.

    One with a split for validation is taken as it is. Otherwise a tenth of the training rows is held out,
    1 to 200 of them.
    """
    train = "train" if "train" in sizes else next(iter(sizes))
    held_out = min(MOST_HELD_OUT, max(1, sizes[train] // 10))
    test = {"test": "test"} if "test" in sizes and train != "test" else {}
    validation = next((name for name in VALIDATION_NAMES if name in sizes and name != train), None)
    if validation is not None:
        return {"train": train, "validation": validation, **test}
    if not test:
        return {"train": REST, "validation": held_out}
    kept = sizes[train] - held_out
    return {"train": f"{train}[:{kept}]", "validation": f"{train}[{kept}:]", **test}


def _part(source: str, splits: Mapping[str, Any], asked: str) -> Any:
    """A split, or a slice of one: `train[:90%]`, `train[100:]`."""
    found = _SLICE.fullmatch(asked)
    if found is None or found["name"] not in splits:
        raise TaskError(f"task.options.splits: {source!r} has no split {asked!r}: it has {', '.join(splits)}")
    rows = splits[found["name"]]
    if "[" not in asked:
        return rows
    start, stop, _ = slice(*(_position(found[end], len(rows)) for end in ("start", "stop"))).indices(len(rows))
    return rows.select(range(start, max(start, stop))) if hasattr(rows, "select") else rows[start:stop]


def _position(text: str | None, size: int) -> int | None:
    if text is None:
        return None
    return round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)


def as_table(part: Any) -> Any:
    """An object's rows, with a length: a `datasets.Dataset`, a list of dicts or a DataFrame. Raises ConfigError."""
    if hasattr(part, "to_dict") and hasattr(part, "iterrows"):
        return part.to_dict("records")
    if isinstance(part, str | bytes) or not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
        raise ConfigError(
            f"dataset: {shown(part)} has no rows that can be counted: give a datasets.Dataset, a DatasetDict, a list "
            "of dicts or a pandas DataFrame; of a stream, datasets.Dataset.from_list(list(stream.take(1000)))"
        )
    return part


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _datasets() -> Any:
    """The library, imported when it is needed: it takes a second."""
    import datasets

    return datasets


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_names(option: str, named: Mapping[str, object]) -> None:
    for name in named:
        if name not in SPLITS:
            raise ConfigError(f"task.options.{option}: {name!r} is not a split: take {', '.join(SPLITS)}")


def _check_sizes(splits: Mapping[str, str | int]) -> None:
    if list(splits.values()).count(REST) > 1:
        raise ConfigError(f"task.options.splits: only one split can take the rest: {CUT_EXAMPLE}")
    for split, size in splits.items():
        if isinstance(size, int) and size < 0:
            raise ConfigError(f"task.options.splits: {split} = {size}: a size is a number from 0 on, or rest")
