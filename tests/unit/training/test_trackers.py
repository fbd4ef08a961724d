"""What the real clients keep of a run, offline: its name and id, its tables, its gaps."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastslow.config import Config
from fastslow.runs.metrics import gaps
from fastslow.testing.observers import PROMPT, Event, cycle, line, samples, start
from fastslow.training.sheets import Sheet, flat_config, sheets_of
from fastslow.training.trackers import TensorBoardObserver, WandbObserver, markdown

from runs import small_config

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


def events(output: Path, step: int = 0) -> list[Event]:
    """One search, one step with it and one without, from `step` on."""
    kind, payload = start(step)
    searched = {"time/evolve_s": 2.0, "fast/metric_calls": 24}
    alone = {"time/evolve_s": 0.0, "fast/metric_calls": 0, "time/evaluate_s": 0.0, "val/mean@4": None}
    return [
        (kind, {**payload, "output": str(output)}),
        cycle(),
        samples(step + 1),
        line(step + 1, **searched),
        line(step + 2, **alone),
        ("end", {"result": None}),
    ]


def tell(observer: Any, told: list[Event]) -> None:
    for kind, payload in told:
        observer.on_event(kind, payload)


def config_of(output: Path, **more: Any) -> Config:
    output.mkdir(parents=True, exist_ok=True)
    return small_config(Path("no-model"), output, **more)


# -- wandb -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    yield


BLOCK, HEAD = 32_768, 7


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format, blocks of 32 KiB, behind seven bytes that say what it is."""
    assert data.startswith(b":W&B")
    at, parts = HEAD, b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def stored(output: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    """What the offline files of wandb hold: the runs that were opened, and the lines of their history."""
    from wandb.proto import wandb_internal_pb2

    runs, lines = [], []
    for path in sorted((output / "wandb").glob("offline-run-*/*.wandb")):
        for data in records_of(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                runs.append(record.run)
            elif record.WhichOneof("record_type") == "history":
                items = record.history.item
                lines.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    return runs, lines


def test_wandb_has_the_runs_own_id_names_tables_and_gaps(
    offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "a-run"
    monkeypatch.setenv("WANDB_PROJECT", "from-the-environment")
    monkeypatch.setenv("WANDB_TAGS", "one, two")
    config = config_of(output, tracker="wandb", tracking={"group": "a group"})
    tell(WandbObserver(config), events(output))
    kept = json.loads((output / "tracker.json").read_text(encoding="utf-8"))
    monkeypatch.delenv("WANDB_PROJECT")
    time.sleep(1.1)  # wandb names its folders by the second
    tell(WandbObserver(config), events(output, step=2))  # resumed
    deadline = time.monotonic() + 30
    while len(stored(output)[1]) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)  # a process of wandb's own writes the file
    runs, lines = stored(output)
    named = {(run.run_id, run.project, run.run_group, run.display_name) for run in runs}
    assert named == {(kept["id"], "from-the-environment", "a group", "a-run")}
    assert list(runs[0].tags) == ["one", "two"]
    assert [each["_step"] for each in lines] == [1, 2, 3, 4]
    first, second = lines[:2]
    assert first["fast/metric_calls"] == 24 and "fast/metric_calls" not in second
    assert "time/evaluate_s" not in second and second["reward/mean"] == 0.25
    tables = {key.removesuffix("/_type") for key, value in first.items() if value == "table-file"}
    assert tables == {"samples", "prompts/population", "prompts/candidates"}
    (path,) = (output / "wandb").glob(f"offline-run-*/files/{first['samples/path']}")
    table = json.loads(path.read_text(encoding="utf-8"))
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (row["reference"], row["reward"], row["prompt text"][:14]) == ("4", 1.0, PROMPT.system[:14])
    assert row["question"].startswith("How many?")


def test_two_runs_in_directories_of_one_name_have_two_ids(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", tracker="wandb", tracking={"project": "p", "tags": ["a"], "name": "mine"})
    found = [WandbObserver(config).settings(Path("runs/run"), {}) for _ in range(2)]
    assert found[0]["id"] != found[1]["id"]
    assert [found[0][name] for name in ("project", "name", "tags")] == ["p", "mine", ["a"]]


# -- trackio -----------------------------------------------------------------------------------------------------------

TRACKIO = """
import json, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from fastslow.training.trackers import TrackioObserver
from test_trackers import config_of, events, tell
output = Path({output!r})
config = config_of(output, tracker="trackio", tracking={{"project": "mine", "group": "g", "tags": ["t"]}})
for step in (0, 2):
    tell(TrackioObserver(config), events(output, step))
from trackio.sqlite_storage import SQLiteStorage
runs = SQLiteStorage.get_runs("mine")
logs = SQLiteStorage.get_logs("mine", runs[0])
config = SQLiteStorage.get_run_config("mine", runs[0])
print("FOUND", json.dumps([runs, logs, config], default=str))
"""


def test_trackio_goes_on_with_its_run_and_has_tables_and_gaps(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    here = Path(__file__).parent
    code = TRACKIO.format(tests=str(here), output=str(tmp_path / "a-run"))
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parents[1]), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs, logs, config = json.loads(done.stdout.partition("FOUND ")[2])
    kept = json.loads((tmp_path / "a-run" / "tracker.json").read_text(encoding="utf-8"))
    assert runs == [kept["name"]] == [f"a-run-{kept['id'][:6]}"]
    assert [each["step"] for each in logs] == [1, 2, 3, 4]
    assert "fast/metric_calls" in logs[0] and "fast/metric_calls" not in logs[1]
    (first, *_) = logs[0]["samples"]["_value"]
    assert (first["reference"], first["reward"]) == ("4", 1.0)
    assert config["tags"] == ["t"] and config["method"] == "fst"


# -- what all of them get ----------------------------------------------------------------------------------------------


def test_no_key_leaves_the_machine(tmp_path: Path) -> None:
    ((kind, payload),) = [samples(1)]
    payload["samples"][0] |= {"text": f"my key is {KEY}", "question": [{"role": "user", "content": KEY}]}
    (sheet,) = sheets_of(kind, payload)
    assert KEY not in json.dumps(sheet.rows) and "(redacted)" in json.dumps(sheet.rows)
    found = flat_config({"task": {"options": {"auth_token": "secret", "k": 4}}, "names": ["a"], "on": True})
    assert found == {"task.options.auth_token": "(redacted)", "task.options.k": 4, "names": "['a']", "on": True}


def test_an_episode_stands_with_its_question_and_all_its_turns() -> None:
    _, payload = samples(1)
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Guess."}]
    turns = [{"messages": [], "text": "Five?", "tokens": 2, "forked": False}, {"text": "Six!", "messages": []}]
    payload["samples"] = [{**payload["samples"][0], "question": asked, "turns": turns, "end": "max_turns"}]
    (sheet,) = sheets_of("samples", payload)
    row = dict(zip(sheet.columns, sheet.rows[0], strict=True))
    assert (row["question"], row["completion"]) == ("[system]\nBe kind.\n\n[user]\nGuess.", "Five?\n\nSix!")
    assert row["ended"] == "max_turns"


@pytest.mark.parametrize(
    ("values", "missing", "there"),
    [
        ({"time/evolve_s": 1.0, "time/evaluate_s": 0.0}, "time/evaluate_s", "fast/metric_calls"),
        ({"time/evolve_s": 0.0, "time/evaluate_s": 2.0}, "fast/metric_calls", "time/evaluate_s"),
        ({}, "rollouts/sampled_gepa", "fast/population_size"),
    ],
)
def test_a_zero_is_a_gap_where_nothing_happened(values: dict[str, float], missing: str, there: str) -> None:
    assert missing in gaps(values) and there not in gaps(values)


def test_a_text_in_tensorboard_is_no_markup() -> None:
    text = markdown(Sheet("samples", ("step", "completion"), [[3, "<b>bold</b>\n# head"]]))
    assert text == "step `3`\n\ncompletion:\n\n    <b>bold</b>\n    # head"


def test_hyperparameters_are_written_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_of(tmp_path / "run", tracker="tensorboard")
    for step in (0, 2):
        tell(TensorBoardObserver(config), events(tmp_path / "run", step))
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("reward/mean")] == [1, 2, 3, 4]
    assert "_hparams_/session_start_info" in found.summary_metadata
