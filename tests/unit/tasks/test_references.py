"""The reference answer of a task is a right answer: its own scorer says so."""

import json
from pathlib import Path

import pytest

from fastslow.lab.tasks import LabTask
from fastslow.tasks.base import Task
from fastslow.tasks.codeio import CodeIOTask
from fastslow.tasks.guess import GuessTask
from fastslow.tasks.records import RecordsTask
from fastslow.tasks.star_graph import StarGraphTask
from fastslow.tasks.stream import StreamTask

SIZES = {"train": 6, "validation": 2, "test": 2}


def records(folder: Path, **options: object) -> RecordsTask:
    lines = [{"prompt": f"{number} + 1?", "answer": number + 1} for number in range(10)]
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    splits: dict[str, str | int] = {"train": "rest", "validation": 2, "test": 2}
    return RecordsTask(str(path), splits=splits, **options)  # type: ignore[arg-type]


def codeio(folder: Path) -> CodeIOTask:
    pairs = [
        {"task_description": "Double it.", "input_output_spec": "n", "code_sample": f"def f(n): return 2 * n + {n}",
         "input": {"n": n}, "output": {"é": [n, None]}}
        for n in range(10)
    ]  # fmt: skip
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return CodeIOTask(str(path), train=6, validation=2, test=2)


def stream() -> StreamTask:
    worlds = [{"name": "lab", "options": {"world": world, **SIZES}} for world in ("amber", "hazel")]
    return StreamTask(worlds, steps=2)


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda folder: LabTask("hazel", **SIZES), "{}"),
        (lambda folder: stream(), "{}"),
        (lambda folder: StarGraphTask(d=2, p=3, n=30, **SIZES), "\\boxed{{{}}}"),
        (lambda folder: records(folder, answer="answer", scorer="exact"), "{}"),
        (codeio, "{}"),
        (lambda folder: GuessTask(numbers=8, tries=1, **SIZES), "{}"),
    ],
    ids=["lab", "stream", "star_graph", "records", "codeio", "guess"],
)
def test_a_reference_answer_is_right(tmp_path: Path, make: object, form: str) -> None:
    task: Task = make(tmp_path)  # type: ignore[operator]
    for problem in task.problems("train"):
        reference = task.reference(problem)
        assert reference is not None
        assert task.score(problem, form.format(reference)).reward == 1.0, (reference, problem)


def test_records_without_answers_have_no_reference(tmp_path: Path) -> None:
    (tmp_path / "length.py").write_text(
        "def score(completion, record):\n    return len(completion) > 3\n", encoding="utf-8"
    )
    task = records(tmp_path, scorer=f"{tmp_path}/length.py:score")
    assert task.reference(task.problems("train")[0]) is None
