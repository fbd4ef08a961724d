"""Run directories of somebody else: looking runs none of their code, and what runs it says so and wants a flag."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastslow
from fastslow.cli.main import main
from fastslow.errors import ConfigError
from fastslow.export import export
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.runs.files import read_config
from fastslow.runs.owner import is_own, named_code

from runs import small_config

MODULE = """
import pathlib
pathlib.Path({place!r}).touch()
from toy import LettersTask
class Task(LettersTask): pass
"""


@pytest.fixture(scope="module")
def made(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled run of this user's."""
    run = tmp_path_factory.mktemp("made") / "run"
    train(small_config(tiny_model_dir, run, steps=1, method="distill", distill={"prompt": "write many letters"}))
    return run


@pytest.fixture
def foreign(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run, sent by somebody who has put code of his own into its config."""
    run = tmp_path / "foreign"
    shutil.copytree(made, run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attack.py").write_text(MODULE.format(place=str(tmp_path / "it-ran")))
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["task"]["name"] = "attack:Task"
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    return run


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "resume": lambda run: ["train", "--resume", str(run), "--set", "steps=2"],
    "dry run": lambda run: ["train", "--resume", str(run), "--dry-run"],
    "evaluate": lambda run: ["evaluate", str(run), "--problems", "1", "--k", "1"],
    "export": lambda run: ["export", str(run), str(run.parent / "out")],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_code_of_another_users_run_wants_a_flag_and_is_named(
    command: str, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMANDS[command](foreign)) == 2
    said = capsys.readouterr().err
    assert "was not made by this user on this machine" in said
    assert "task.name: 'attack:Task'" in said and "--trust-code" in said
    assert not (foreign.parent / "it-ran").exists()
    assert not (foreign.parent / "out").exists()


PYTHON: dict[str, Callable[[Path], object]] = {
    "train": lambda run: fastslow.train(resume=run, steps=2),
    "train with a config": lambda run: fastslow.train(read_config(run), resume=str(run)),
    "describe": lambda run: fastslow.describe(resume=run),
    "evaluate": lambda run: fastslow.evaluate(str(run), problems=1, k=1),
    "export": lambda run: fastslow.export(run, str(run.parent / "out")),
}


@pytest.mark.parametrize("call", PYTHON)
def test_python_wants_the_same_word(call: str, foreign: Path) -> None:
    with pytest.raises(ConfigError, match=r"was not made by this user .* add --trust-code"):
        PYTHON[call](foreign)
    assert not (foreign.parent / "it-ran").exists()


@pytest.mark.parametrize("name", ["./attack.py:Task", "package:attack.py:Task", "reasoning_gym:../attack.py:Task"])
def test_a_name_that_is_a_file_is_code(name: str, foreign: Path) -> None:
    tree = yaml.safe_load((foreign / "config.yaml").read_text())
    tree["tracker"] = name
    (foreign / "config.yaml").write_text(yaml.safe_dump(tree))
    assert f"tracker: {name!r}" in named_code(read_config(foreign))


NO_MODULES = (
    "attack-x:Task",
    "1attack:Task",
    "a b:Task",
    "mod:sub:Task",
    " attack:Task",
    "package:Task",
    "attack:Task ",
)


@pytest.mark.parametrize("name", NO_MODULES)
def test_what_is_no_import_path_is_never_imported(name: str, foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = name.rpartition(":")[0]
    (foreign.parent / f"{module}.py").write_text(MODULE.format(place=str(foreign.parent / "it-ran")))
    for key in ("task", "tracker"):
        tree = yaml.safe_load((foreign / "config.yaml").read_text())
        tree["task"], tree["tracker"] = {"name": "toy:LettersTask"}, "none"
        tree[key] = name if key == "tracker" else {"name": name}
        (foreign / "config.yaml").write_text(yaml.safe_dump(tree))
        assert main(["train", "--resume", str(foreign), "--dry-run", "--trust-code"]) == 2
        assert "import path" in capsys.readouterr().err
    assert not (foreign.parent / "it-ran").exists()


def test_a_foreign_run_sends_no_key_to_a_server_of_its_own(
    foreign: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_OTHER_KEY", "of-the-user")
    tree = yaml.safe_load((foreign / "config.yaml").read_text())
    tree["task"] = {"name": "star_graph"}
    url = "http://127.0.0.1:9/v1"
    tree["fast"]["proposer"] = {"kind": "openai", "model": "x", "base_url": url, "api_key_env": "SOME_OTHER_KEY"}
    (foreign / "config.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", "--resume", str(foreign), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert f"fast.proposer.base_url: '{url}'" in said and "fast.proposer.api_key_env: 'SOME_OTHER_KEY'" in said


def test_with_the_flag_it_runs_and_is_said(foreign: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert main([*COMMANDS["export"](foreign), "--trust-code"]) == 0
    assert "is not this user's run, and what it names is used now: task.name: 'attack:Task'" in caplog.text
    assert (foreign.parent / "it-ran").exists()


@pytest.mark.parametrize("command", ["report", "prompts"])
def test_looking_runs_nothing(command: str, foreign: Path) -> None:
    more = ["--output", str(foreign.parent / "page.html")] if command == "report" else []
    assert main([command, str(foreign), *more]) == 0
    assert not (foreign.parent / "it-ran").exists()


def test_a_function_that_is_no_task_is_not_called_either(foreign: Path) -> None:
    tree = yaml.safe_load((foreign / "config.yaml").read_text())
    tree["task"] = {"name": "subprocess:check_output", "options": {"args": ["touch", str(foreign.parent / "it-ran")]}}
    (foreign / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="subprocess:check_output"):
        evaluate(foreign)
    assert not (foreign.parent / "it-ran").exists()


def test_the_code_of_a_foreign_runs_model_is_not_run_either(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run)
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["task"] = {"name": "star_graph"}
    tree["model"]["trust_remote_code"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"model\.trust_remote_code: the code that comes with"):
        evaluate(run)
    tree["model"]["trust_remote_code"] = False
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    assert named_code(read_config(run)) == []


def test_ones_own_runs_need_no_flag_wherever_they_lie(
    made: Path, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(made, run)
    assert main(["train", "--resume", str(run), "--set", "steps=2", "--quiet"]) == 0
    assert is_own(run)  # its config was written anew, by its owner
    export(run, tmp_path / "out")
    secret = Path(os.environ["XDG_STATE_HOME"]) / "fastslow" / "secret"
    assert secret.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    assert not is_own(run)
    with pytest.raises(ConfigError, match="was not made by this user"):
        export(run, tmp_path / "again")


def test_a_user_without_a_place_for_a_secret_trains_all_the_same(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    train(small_config(tiny_model_dir, tmp_path / "run", steps=1, method="rl", evaluation={"every": 0}))
    assert not is_own(tmp_path / "run")


# -- what export writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/../../X", "..", "a/b", "", "a\0b", "\x1b[31m"])
def test_a_component_does_not_lead_out_of_the_export(name: str, made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run)
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["method"] = "rl"
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    member = {"hash": "x", "components": {"system": "a", name: "b"}, "mean": None}
    (run / "population.json").write_text(json.dumps({"population": [member]}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="cannot be the name of a file") as caught:
        export(run, tmp_path / "out" / "deep")
    assert "\x1b" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["checkpoints/step_1/notes.txt", "checkpoints/step_1/more", "checkpoints/step_1"])
def test_a_link_brings_nothing_from_elsewhere(place: str, made: Path, tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(made, run)
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("x")
    if (run / place).exists():
        shutil.rmtree(run / place)
    (run / place).symlink_to(elsewhere / "secret" if place.endswith(".txt") else elsewhere)
    with pytest.raises(ConfigError, match="is a symbolic link: only plain files are exported"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- files of other types ----------------------------------------------------------------------------------------------

LINES: dict[str, list[Any]] = {
    "metrics.jsonl": [
        {"step": "one"},
        {"step": 1.5},
        {"step": 1, "reward/mean": "high"},
        {"step": 1, "reward/mean": [1]},
        {"step": 1, "fast/error": 5},
        {"step": None},
        7,
        None,
    ],
    "prompts.jsonl": [
        {"id": 0, "hash": 5},
        {"parent": 3},
        {"components": ["a"]},
        {"components": {"system": 5}},
        {"scores": {"p": "x"}},
        {"feedback": "text"},
        {"reason": None},
        {"cycle": "x"},
        {"mean": "x"},
    ],
    "population.json": [
        {"population": 5},
        {"population": [5]},
        {"population": [{"hash": 1, "components": {}, "mean": None}]},
        {"population": [{"hash": "a", "components": "x", "mean": None}]},
        {"population": [], "by_kind": [1]},
    ],
    "rollouts/step_1.jsonl": [
        {"text": 5},
        {"text": "a", "feedback": 7},
        {"text": "a", "reward": "x"},
        {"text": None},
        5,
    ],
    "config.yaml": [
        {"task": {"name": 5, "options": 7}},
        {"task": {"name": ["a"], "options": None}, "model": {"name": {}}},
        {"evaluation": {"problems": "many"}},
        {"method": ["rl"], "seed": {}},
    ],
}
CANDIDATE = {
    "id": 0, "hash": "a", "parent": None, "cycle": 1, "components": {"system": "a"}, "accepted": True, "reason": "",
    "mean": None, "scores": {}, "feedback": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in LINES.items() for value in values], ids=str
)
def test_files_of_other_types_give_a_page_or_one_clear_error(
    name: str, value: Any, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run, ignore=shutil.ignore_patterns("checkpoints"))
    (run / "rollouts").mkdir(exist_ok=True)
    if name == "prompts.jsonl":
        value = {**CANDIDATE, **value}
    (run / name).write_text(json.dumps(value) + "\n")
    status = main(["report", str(run), "--output", str(tmp_path / "page.html")])
    said = capsys.readouterr().err
    assert status == 2 or name == "config.yaml"
    assert status == 0 or (
        "file of a run" in said or "files that are not those of a run" in said or "is missing" in said
    )
    if name != "config.yaml":
        assert name in said
    assert main(["prompts", str(run)]) in (0, 2)


# -- what reaches the terminal -----------------------------------------------------------------------------------------

STEERS = "\x1b]0;owned\x07 [/bad] \x9b31m [bold red]"


def test_no_word_of_a_foreign_run_steers_the_terminal_or_is_markup(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run)
    first = {**CANDIDATE, "hash": f"a{STEERS}", "components": {f"system{STEERS}": f"b{STEERS}"}}
    second = {
        **first, "hash": f"c{STEERS}", "parent": first["hash"], "accepted": False, "reason": STEERS,
        "feedback": [STEERS],
    }  # fmt: skip
    (run / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, second)))
    member = {"hash": "x", "components": first["components"], "mean": None}
    (run / "population.json").write_text(json.dumps({"population": [member], "by_kind": {STEERS: "x"}}))
    for arguments in ([], ["--all"], ["--tree"], ["--id", "a"], ["--id", "c"], ["--id", f"nobody{STEERS}"]):
        status = main(["prompts", str(run), *arguments])
        found = capsys.readouterr()
        assert status == (2 if "nobody" in str(arguments) else 0)
        assert "[/bad]" in found.out + found.err or "[/ba" in found.out
        assert not {"\x1b", "\x07", "\x9b"} & set(found.out + found.err)
