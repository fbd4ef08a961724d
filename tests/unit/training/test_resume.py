"""A run that has lost a part of its record is not resumed; what came after the checkpoint is taken back as before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.errors import ResumeError
from fastslow.loop import train
from fastslow.runs.reader import read_metrics
from fastslow.training.build import prepare

from runs import record_of, small_config


@pytest.fixture(scope="module")
def runs(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of six steps, and one that has done three."""
    directory = tmp_path_factory.mktemp("runs")
    train(small_config(tiny_model_dir, directory / "whole"))
    train(small_config(tiny_model_dir, directory / "cut", steps=3))
    return directory


@pytest.fixture
def cut(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs / "cut", tmp_path / "cut")
    return tmp_path / "cut"


def loop_of(run: Path) -> Path:
    return run / "checkpoints" / "step_3" / "resume" / "loop.json"


def shorten(name: str, size: int) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:size])

    return change


def remove(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


STORE = "checkpoints/step_3/resume/store.jsonl"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorten("metrics.jsonl", 300), r"metrics.jsonl has 300 bytes of \d+"),
        (remove("metrics.jsonl"), r"metrics.jsonl \(\d+ bytes\) is gone"),
        (shorten("prompts.jsonl", 10), r"prompts.jsonl has 10 bytes of \d+"),
        (remove("prompts.jsonl"), r"prompts.jsonl \(\d+ bytes\) is gone"),
        (shorten("rollouts/step_2.jsonl", 0), r"step_2.jsonl has 0 bytes of \d+"),
        (remove("rollouts"), r"step_1.jsonl \(\d+ bytes\) is gone; .*step_2.jsonl.*; .*step_3.jsonl"),
        (shorten(STORE, 50), r"no resume state that can be read"),
        (shorten(STORE, 0), r"store.jsonl has 0 bytes of \d+"),
        (remove(STORE), r"no resume state that can be read"),
        (shorten("checkpoints/step_3/resume/loop.json", 20), r"no resume state that can be read"),
        (remove("checkpoints/step_3/resume"), r"step_3 holds no resume state"),
    ],
)
def test_a_run_that_has_lost_a_part_is_refused_and_stays_as_it_is(
    cut: Path, tiny_model_dir: Path, change: Callable[[Path], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(cut)
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    monkeypatch.setattr("fastslow.training.build.build_engine", lambda config: pytest.fail("a model was loaded"))
    with pytest.raises(ResumeError, match=message) as caught:
        prepare(small_config(tiny_model_dir, cut), resume=cut)
    assert "Put it back from a copy of the run, or start a new run" in str(caught.value)
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before


def test_the_dry_run_of_a_resume_refuses_it_too(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shorten("metrics.jsonl", 300)(cut)
    assert main(["train", "--resume", str(cut), "--dry-run"]) == 2
    assert "metrics.jsonl has 300 bytes" in capsys.readouterr().err


def test_what_came_after_the_checkpoint_is_cut_away_a_torn_line_included(
    cut: Path, tiny_model_dir: Path, runs: Path
) -> None:
    whole_lines = (runs / "whole" / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    with (cut / "metrics.jsonl").open("ab") as file:
        file.write(whole_lines[4] + whole_lines[5][:40])
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert [line["step"] for line in read_metrics(cut)] == list(range(7))
    assert record_of(cut) == record_of(runs / "whole")


def test_a_run_of_an_earlier_version_is_resumed(cut: Path, tiny_model_dir: Path, runs: Path) -> None:
    loop = json.loads(loop_of(cut).read_text(encoding="utf-8"))
    earlier = {name: loop[name] for name in ("state", "positions")}
    loop_of(cut).write_text(json.dumps(earlier), encoding="utf-8")
    shutil.rmtree(cut / "rollouts")  # whose lengths it does not know
    train(small_config(tiny_model_dir, cut), resume=cut)
    got, expected = record_of(cut), record_of(runs / "whole")
    assert sorted(got.pop("rollouts")) == ["step_4.jsonl", "step_5.jsonl", "step_6.jsonl"]
    expected.pop("rollouts")
    assert got == expected


def test_a_run_without_any_checkpoint_begins_again(cut: Path, tiny_model_dir: Path, runs: Path) -> None:
    shutil.rmtree(cut / "checkpoints")
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert record_of(cut) == record_of(runs / "whole")
