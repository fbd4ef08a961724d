"""`fastslow init`: what it sees in a dataset, and that what it writes works."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from fastslow.cli.main import main
from fastslow.config import load_config
from fastslow.extension import load_object
from fastslow.starter.look import guess_scorer, look
from fastslow.starter.write import write_starter
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig

NUMBERS = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "level": n % 3} for n in range(30)]
WORDS = [{"messages": [{"role": "user", "content": f"say {n}"}], "reply": "yes" if n % 2 else "no"} for n in range(12)]
LONG = [{"id": n, "instruction": f"Tell me of {n}.", "output": "A long story. " * 20} for n in range(12)]
OPTIONS = [{"question": f"Pick {n}", "choices": ["one", "two"], "answer": n % 2} for n in range(12)]
BROKEN = [*NUMBERS[:20], NUMBERS[0], {"question": "", "answer": "3", "level": 1}]


@pytest.mark.parametrize(
    ("rows", "prompt", "answer", "scorer"),
    [
        (NUMBERS, "question", "answer", "number"),
        (WORDS, "messages", "reply", "exact"),
        (LONG, "instruction", "output", None),
        (OPTIONS, "question", "answer", "choice"),
        ([{"text": f"think of {n}"} for n in range(9)], "text", None, None),
    ],
    ids=["numbers", "words", "long", "options", "no answer"],
)
def test_columns_and_scorer_are_guessed(
    rows: list[Any], prompt: str, answer: str | None, scorer: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    found = look(str(path))
    assert (found.prompt, found.answer, found.scorer) == (prompt, answer, scorer)


@pytest.mark.parametrize(
    ("answers", "scorer"),
    [
        (["1,234", "$5", "3.5"], "number"),
        (["So 3 + 4.\n#### 7", "Two.\n#### 2"], "number"),
        (["A", "b", "(C)"], "choice"),
        (['{"a": 1}', "[2]"], "json"),
        ([{"a": 1}], "json"),
        ([r"\frac{1}{2}", "3", r"\boxed{x}"], "math"),
        (["Paris", "the 3 bears"], "exact"),
        ([3, 4.5], "number"),
        ([], None),
    ],
)
def test_a_scorer_is_guessed_by_the_looks_of_answers(answers: list[Any], scorer: str | None) -> None:
    assert guess_scorer(answers)[0] == scorer


@pytest.mark.parametrize("rows", [NUMBERS, WORDS, LONG, BROKEN], ids=["numbers", "words", "long", "broken"])
def test_what_is_written_is_a_run_at_once(
    rows: list[Any], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["init", "mine", "--data", "a.jsonl", "--model", str(tiny_model_dir)]) == 0
    assert "fastslow train mine/config.yaml --dry-run" in capsys.readouterr().out
    assert main(["train", "mine/config.yaml", "--dry-run"]) == 0
    monkeypatch.chdir(tmp_path / "mine")  # from wherever it is started
    assert main(["train", "config.yaml", "--dry-run"]) == 0
    written = yaml.safe_load(Path("config.yaml").read_text())
    task = build_task(TaskConfig.model_validate(written["task"]))
    assert len(task.problems("train")) >= 9 and task.problems("test")
    assert written["evaluation"]["problems"] == len(task.problems("validation")), "no more than there are"


def test_a_saved_dataset_keeps_its_splits_and_what_stands_in_two_is_dropped(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = datasets.Dataset.from_list(NUMBERS)
    datasets.DatasetDict({"train": whole, "test": whole.select(range(3))}).save_to_disk("saved")
    assert main(["init", "mine", "--data", "saved", "--model", str(tiny_model_dir)]) == 0
    options = yaml.safe_load(Path("mine/config.yaml").read_text())["task"]["options"]
    assert options["splits"] == {"train": "train[:27]", "validation": "train[27:]", "test": "test"}
    assert options["drop_duplicates"] is True
    assert yaml.safe_load(Path("mine/config.yaml").read_text())["evaluation"]["problems"] == 3
    assert main(["train", "mine/config.yaml", "--dry-run"]) == 0


@pytest.mark.parametrize(("rows", "a_step"), [(218, 8), (260, 32)])
def test_steps_are_smaller_where_few_problems_are_left_to_train_on(rows: int, a_step: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {n} + 1?", "answer": n + 1}) + "\n" for n in range(rows)))
    assert main(["init", str(tmp_path / "mine"), "--data", str(path)]) == 0
    written = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    assert written["loop"]["problems_per_step"] == a_step, "a tenth each is held out to validate and to test on"


@pytest.mark.parametrize(
    "odd",
    ["\x9b", "\x85", "\u2028", "\ufeff", "\x7f", '"', '"""', "\\", "\\N{x", "#", ": ", "\N{GRINNING FACE}\x9b", "\t"],
    ids=ascii,
)
def test_columns_of_any_name_are_written_so_that_they_are_read_back(odd: str, tmp_path: Path) -> None:
    path, made = tmp_path / "a.csv", tmp_path / "new"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([[f"question{odd}s", f"answer{odd}s"], *([f"What is {n} + 1?", n + 1] for n in range(30))])
    found = look(str(path), prompt=f"question{odd}s", answer=f"answer{odd}s")
    write_starter(made, found, model="package:fastslow.lab/model")
    options = load_config(made / "config.yaml").task.options
    assert (options["prompt"], options["answer"]) == (f"question{odd}s", f"answer{odd}s")
    assert load_object(f"{made / 'scorer.py'}:score", "scorer")("3", {f"answer{odd}s": 3})[0] == 1.0


def test_the_scorer_that_is_written_says_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in NUMBERS))
    assert main(["init", "mine", "--data", "a.jsonl", "--model", "nowhere"]) == 0
    score = load_object(f"{tmp_path}/mine/scorer.py:score", "scorer")
    reward, words = score("nothing", NUMBERS[0])
    assert reward == 0.0 and "Give the answer" in words and score("It is 1.", NUMBERS[0])[0] == 1.0
    assert main(["init", "mine", "--data", "a.jsonl"]) == 2  # what is there stays


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "none.csv"], "file 'none.csv' does not exist"),
        (["--data", "a.jsonl", "--prompt", "q"], "--prompt: 'q' is no column of 'a.jsonl': it has a"),
        (["--data", "a.jsonl"], "--prompt: no column of 'a.jsonl' looks like a question: name one of a"),
    ],
)
def test_what_cannot_be_seen_is_said(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    assert main(["init", "mine", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("mine").exists()
