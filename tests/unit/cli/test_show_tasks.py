"""`fastslow tasks`: what it lists and filters, and what it shows of one task."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.cli.main import main

from toy import LettersTask

Said = Callable[..., tuple[int, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs `fastslow tasks` in a wide window; its exit code, and what it printed on both streams."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str]:
        code = main(["tasks", *arguments])
        return code, "".join(capsys.readouterr())

    return call


def test_words_choose_among_the_tasks(said: Said) -> None:
    code, everything = said()
    assert code == 0 and "star_graph" in everything and "reasoning_gym:chain_sum" in everything
    _, found = said("--find", "SUM", "chain")
    assert "reasoning_gym:chain_sum" in found and "star_graph" not in found
    assert re.search(r"^[1-9] of \d+\.", found, re.MULTILINE)
    code, error = said("--find", "nothing-of-the-kind")
    assert code == 2 and "nothing-of-the-kind" in error
    assert said("star_graph", "--find", "x")[0] == 2


def test_the_list_has_the_options_of_each_where_they_are_asked_for(said: Said) -> None:
    assert "world, train, validation, test, seed" not in said("--find", "lab")[1]
    assert "world, train, validation, test, seed" in said("--find", "lab", "--options")[1]


def test_one_task_shows_its_options_a_problem_and_what_is_said_to_a_wrong_answer(said: Said) -> None:
    code, out = said("lab", "--set", "world=hazel", "--split", "test")
    assert code == 0
    assert re.search(r"^world +str +'amber' \(now 'hazel'\) *$", out, re.MULTILINE)
    assert re.search(r"^train +int +2048 *$", out, re.MULTILINE)
    assert len(re.findall(r"^problem lab-hazel-(north|south)-\w+, kind \1$", out, re.MULTILINE)) == 1
    assert re.search(r"^system: \S", out, re.MULTILINE) and re.search(r"^user: (north|south) : ", out, re.MULTILINE)
    assert re.search(r"to the answer 'I do not know\.':\n  reward 0\n  feedback: \S", out)


def test_a_generators_own_parameters_are_options_too(said: Said) -> None:
    _, out = said("reasoning_gym:chain_sum", "--set", "train=4", "--set", "validation=2", "--set", "test=2")
    assert re.search(r"^params\.min_terms +int +2 *$", out, re.MULTILINE)
    assert "params.seed" not in out


def test_what_is_asked_for_beyond_what_is_there_is_said(said: Said) -> None:
    size = len(LettersTask().problems("test"))
    _, out = said("toy:LettersTask", "--show", "50", "--split", "test")
    assert out.count("\nproblem ") == size
    assert f"--show: 50 were asked for, and test has {size}." in out


def test_a_scorer_that_says_nothing_and_one_that_breaks_are_told(said: Said) -> None:
    assert "there is nothing to learn from" in said("toy:LettersTask", "--answer", "abcdefgheioutn")[1]
    broken = said("toy:LettersTask", "--set", "broken_every=1")[1]
    assert "it cannot be scored: RuntimeError: the sandbox timed out" in broken


def test_a_task_that_lacks_an_option_shows_its_options_first(said: Said) -> None:
    code, out = said("records")
    assert code == 2
    assert re.search(r"^data +\S.* +\(needed\) *$", out, re.MULTILINE)
    assert "task.options.data: is missing" in out


def test_a_config_names_its_task(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"n{n}", "a": str(n)} for n in range(9)]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = "{data: d.jsonl, prompt: q, answer: a, scorer: number, splits: {train: rest, validation: 2, test: 2}}"
    Path("my.yaml").write_text(
        f"model: {{name: x}}\ntask:\n  name: records\n  seed_prompt: Count.\n  options: {options}\n", encoding="utf-8"
    )
    code, out = said("my.yaml", "--answer", "-1")
    assert code == 0 and "records: 5 train, 2 validation, 2 test" in out
    assert "system: Count." in out and "reward 0" in out


@pytest.mark.parametrize("task", ["OneByOne", "Batches"])
def test_a_scorer_that_hangs_is_told_of_after_its_time(said: Said, tmp_path: Path, task: str) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(f"model: {{name: x}}\ntask: {{name: hostile:{task}, timeout_s: 0.3}}\n", encoding="utf-8")
    code, out = said(str(config), "--answer", "hang")
    assert code == 0 and "it cannot be scored: it did not answer within task.timeout_s = 0.3 s" in out
