"""The user's data as it lies: files of every kind, saved datasets, slices of splits, and what is wrong with them."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from fastslow.errors import FastslowError
from fastslow.given import lend, placeholder
from fastslow.tasks.sources import default_splits, read_dataset, read_file, read_source

ROWS = [{"question": f"What is {number}, doubled?", "answer": str(2 * number)} for number in range(10)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = "question,answer\r\n" + "".join(f'"{row["question"]}",{row["answer"]}\r\n' for row in ROWS)


def save_parquet(path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(path)


def save_gz(text: str) -> Any:
    return lambda path: path.write_bytes(gzip.compress(text.encode()))


FILES = {
    "a.jsonl": lambda path: path.write_text(LINES),
    "a.jsonl.gz": save_gz(LINES),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda path: path.write_text(LINES),
    "a.json.gz": save_gz(json.dumps(ROWS)),
    "a.csv": lambda path: path.write_text("\ufeff" + TABLE),
    "semicolons.csv": lambda path: path.write_text(
        "question;answer\n" + "".join(f"{r['question']};{r['answer']}\n" for r in ROWS)
    ),
    "a.csv.gz": save_gz(TABLE),
    "a.tsv": lambda path: path.write_text(
        TABLE.replace(",doubled", " doubled").replace('",', '"\t').replace("n,a", "n\ta")
    ),
    "a.parquet": save_parquet,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_by_its_ending(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    found = read_file(str(tmp_path / name))
    assert [row for _, row in found] == ROWS
    assert all(where.startswith(f"{tmp_path / name}, ") for where, _ in found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", "line 3: has 1 cells for 2 columns"),
        ("a.csv", b"a,a\n1,2\n", "must name every column once"),
        ("a.csv", b'a,b\n1,"2\n', "is no row of a table"),
        ("a.csv", b"a,b\n", "holds no records"),
        ("a.json", b"[1, 2]", "record 0: holds int"),
        ("a.json", b"[{]", "is not JSON"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.jsonl.gz", b"no gzip", "is no whole .gz file"),
        ("a.data", b"\xff\xfe\x00", r"is not UTF-8 text: .*Files are read by their ending: \.jsonl"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FastslowError, match=message):
        read_file(str(tmp_path / name))


def test_where_a_row_stands_is_told_with_blank_lines_counted_and_of_a_part_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n{"a": 3}\n')
    found = read_file(str(tmp_path / "a.jsonl"))
    assert [where for where, _ in found] == [f"{tmp_path / 'a.jsonl'}, line {number}" for number in (1, 3, 4)]
    assert list(found[1:]) == list(found)[1:] and len(found) == 3
    first, second, _ = (row for _, row in found)
    assert next(iter(first)) is next(iter(second)), (
        "each record has names of its own: of many that is most of the memory"
    )


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [("train", range(10)), ("train[:30%]", range(3)), ("train[8:]", range(8, 10)), ("train[-1:]", [9]), ("test", [0])],
)
@pytest.mark.parametrize("saved", [True, False], ids=["saved", "given"])
def test_a_split_or_a_slice_of_one(asked: str, numbers: Any, saved: bool, tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(ROWS)
    both = datasets.DatasetDict({"train": whole, "test": whole.select([0])})
    name = str(tmp_path / "saved") if saved else placeholder("DatasetDict")
    if saved:
        both.save_to_disk(name)
    with lend({placeholder("DatasetDict"): both}):
        assert [row for _, row in read_dataset(name, asked)] == [ROWS[number] for number in numbers]
        with pytest.raises(FastslowError, match=r"has no split 'nope': it has train, test"):
            read_dataset(name, "nope")


def test_each_split_may_be_another_kind_of_source(tmp_path: Path) -> None:
    FILES["a.csv"](tmp_path / "a.csv")
    given = placeholder("list of 2 rows")
    with lend({given: ROWS[:2]}):
        found = read_source({"train": str(tmp_path / "a.csv"), "validation": given}, None, "train", None)
    assert isinstance(found, dict)
    assert [row for _, row in found["train"]] == ROWS and [row for _, row in found["validation"]] == ROWS[:2]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"train": 50}, {"train": "rest", "validation": 5}),
        ({"train": 9000}, {"train": "rest", "validation": 200}),
        ({"data": 3}, {"train": "rest", "validation": 1}),
        ({"train": 50, "dev": 9}, {"train": "train", "validation": "dev"}),
        ({"train": 50, "test": 9}, {"train": "train[:45]", "validation": "train[45:]", "test": "test"}),
        ({"train": 9, "val": 3, "test": 2}, {"train": "train", "validation": "val", "test": "test"}),
    ],
)
def test_how_data_is_divided_where_nobody_says_it(sizes: dict[str, int], expected: dict[str, Any]) -> None:
    assert default_splits(sizes) == expected
