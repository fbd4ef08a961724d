"""Any data file: problems are made of it, or one error names the record."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.errors import FastslowError
from fastslow.tasks.base import SPLITS, check_splits
from fastslow.tasks.records import RecordsTask

from fuzz_values import FUZZ, VALUES, changed_bytes

ROWS = [{"question": f"What is {n} plus {n}?", "answer": 2 * n, "kind": "sums"} for n in range(12)]
FILES = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "json": json.dumps(ROWS).encode(),
    "csv": ("question,answer,kind\n" + "".join(f"{r['question']},{r['answer']},{r['kind']}\n" for r in ROWS)).encode(),
}
SCORERS = ("exact", "number", "choice", "json")


def make(path: Any, scorer: str, **options: Any) -> None:
    """Make a task; what it has can be trained on."""
    splits: dict[str, str | int] = {"train": "rest", "validation": 2}
    try:
        task = RecordsTask(str(path), splits, prompt="question", answer="answer", scorer=scorer, **options)
        check_splits(task)
    except FastslowError as error:
        assert str(error)
        return
    for split in SPLITS:
        for problem in task.problems(split)[:3]:
            assert all(isinstance(message["content"], str) for message in problem.messages)
            task.verdicts([problem], ["4"])


@pytest.mark.parametrize("kind", FILES)
@FUZZ
@given(data=st.data())
def test_a_file_that_was_changed(tmp_path_factory: Any, kind: str, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / f"data.{kind}"
    path.write_bytes(data.draw(changed_bytes(FILES[kind])))
    make(path, data.draw(st.sampled_from(SCORERS)), skip_broken=data.draw(st.booleans()))


@FUZZ
@given(
    st.lists(st.one_of(VALUES, st.fixed_dictionaries({"question": VALUES, "answer": VALUES})), max_size=6),
    st.sampled_from(SCORERS),
    st.booleans(),
)
def test_records_of_any_values(tmp_path_factory: Any, rows: list[Any], scorer: str, skip: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "values.jsonl"
    lines = [json.dumps(row) for row in [*rows, *(ROWS if skip else [])]]
    path.write_text("\n".join(lines), encoding="utf-8")
    make(path, scorer, skip_broken=skip, drop_duplicates=skip)
