"""A run that has lost a part of its record is not resumed; what came after the checkpoint is taken back as before."""

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from fastslow.cli.main import main
from fastslow.errors import ResumeError
from fastslow.loop import train
from fastslow.runs.directory import RunDirectory
from fastslow.runs.reader import read_metrics
from fastslow.training.build import prepare
from fastslow.training.resume import find_checkpoint
from fastslow.training.session import TrainingSession

from commands import Fork
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


def flip(name: str) -> Callable[[Path], None]:
    """One bit in the middle of a file."""

    def change(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(data)

    return change


def rewrite(name: str, text: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).write_text(text, encoding="utf-8")

    return change


def alone(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Of a run whose earlier checkpoints hold no resume state, as of those of earlier versions."""

    def both(run: Path) -> None:
        shutil.rmtree(run / "checkpoints" / "step_2" / "resume")
        change(run)

    return both


def unlisted(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Of a checkpoint without checksums."""

    def both(run: Path) -> None:
        (run / SUMS).unlink()
        change(run)

    return both


def foreign_optimizer(run: Path) -> None:
    path = run / "checkpoints" / "step_3" / "resume" / "optimizer.safetensors"
    save_file({f"other/{name.partition('/')[2]}": value for name, value in load_file(path).items()}, path)


def foreign_steps(run: Path) -> None:
    rewrite("checkpoints/step_3/resume/optimizer.json", '{"nobody.weight": 3}')(run)


STORE = "checkpoints/step_3/resume/store.jsonl"
SUMS = "checkpoints/step_3/SHA256SUMS"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorten("metrics.jsonl", 300), r"metrics.jsonl has 300 bytes of \d+"),
        (remove("metrics.jsonl"), r"metrics.jsonl \(\d+ bytes\) is gone"),
        (shorten("prompts.jsonl", 10), r"prompts.jsonl has 10 bytes of \d+"),
        (remove("prompts.jsonl"), r"prompts.jsonl \(\d+ bytes\) is gone"),
        (shorten("rollouts/step_2.jsonl", 0), r"step_2.jsonl has 0 bytes of \d+"),
        (remove("rollouts"), r"step_1.jsonl \(\d+ bytes\) is gone; .*step_2.jsonl.*; .*step_3.jsonl"),
        (alone(shorten(STORE, 50)), r"no resume state that can be read"),
        (alone(shorten(STORE, 0)), r"store.jsonl has 0 bytes of \d+"),
        (alone(remove(STORE)), r"no resume state that can be read"),
        (alone(shorten("checkpoints/step_3/resume/loop.json", 20)), r"no resume state that can be read"),
        (alone(remove("checkpoints/step_3/resume")), r"step_3 holds no resume state"),
        (
            alone(flip("checkpoints/step_3/model.safetensors")),
            r"step_3 is broken: model.safetensors is not what was wri",
        ),
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
    (cut / "checkpoints" / "step_3" / "SHA256SUMS").unlink()
    shutil.rmtree(cut / "rollouts")  # whose lengths it does not know
    train(small_config(tiny_model_dir, cut), resume=cut)
    got, expected = record_of(cut), record_of(runs / "whole")
    assert sorted(got.pop("rollouts")) == ["step_4.jsonl", "step_5.jsonl", "step_6.jsonl"]
    expected.pop("rollouts")
    assert got == expected


def test_a_run_without_any_checkpoint_begins_again_says_so_and_keeps_its_record(
    cut: Path, tiny_model_dir: Path, runs: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(cut / "checkpoints")
    (cut / "lost").mkdir()  # of an earlier time
    names = ("metrics.jsonl", "prompts.jsonl", "population.json", "rollouts/step_3.jsonl")
    before = {name: (cut / name).read_bytes() for name in names}
    assert main(["train", "--resume", str(cut), "--dry-run"]) == 0
    told = f"checkpoints holds no checkpoint to go on from, and {cut / 'metrics.jsonl'} has a record of 3 steps"
    assert told in capsys.readouterr().out
    assert {name: (cut / name).read_bytes() for name in names} == before
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert told in caplog.text and f"The record is kept in {cut / 'lost.1'}" in caplog.text
    assert {name: (cut / "lost.1" / name).read_bytes() for name in names} == before
    assert record_of(cut) == record_of(runs / "whole")


@pytest.mark.parametrize("lines", [0, 1])
def test_a_run_that_was_killed_before_its_first_step_begins_again_without_a_word(
    cut: Path, tiny_model_dir: Path, lines: int
) -> None:
    shutil.rmtree(cut / "checkpoints")
    kept = (cut / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (cut / "metrics.jsonl").write_bytes(b"".join(kept))
    assert find_checkpoint(RunDirectory(cut)).complaints == []


def no_place(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("", encoding="utf-8")


def no_file(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).mkdir()


def no_lock(run: Path) -> None:
    (run / ".lock").unlink()
    (run / ".lock").mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_place, "checkpoints' is no directory, .* put them back, or move away what lies there"),
        (no_file("rollouts/step_5.jsonl"), "step_5.jsonl' is a directory, .* move it out of the run"),
        (no_lock, ".lock' cannot be opened: Is a directory.* move away what lies there"),
    ],
)
def test_what_no_run_has_written_is_refused_before_anything_is_changed(
    cut: Path, tiny_model_dir: Path, change: Callable[[Path], None], message: str
) -> None:
    change(cut)
    with (cut / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4}\n')
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    with pytest.raises(ResumeError, match=message):
        train(small_config(tiny_model_dir, cut), resume=cut)
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("target", "message"), [("step_2", "holds the state after step 2"), ("step_3", "holds the state after step 3")]
)
def test_a_checkpoint_under_the_name_of_another_step_is_broken(cut: Path, target: str, message: str) -> None:
    (cut / "checkpoints" / "step_4").symlink_to(cut / "checkpoints" / target)
    found = find_checkpoint(RunDirectory(cut))
    assert found.checkpoint == cut / "checkpoints" / "step_3"
    assert found.broken == ((cut / "checkpoints" / "step_4", message),)


def test_a_link_in_the_place_of_a_newer_checkpoint_goes_and_what_it_leads_to_stays(
    cut: Path, tiny_model_dir: Path, runs: Path
) -> None:
    shutil.rmtree(cut / "checkpoints" / "step_3" / "resume")
    elsewhere = cut.with_name("elsewhere")
    (cut / "checkpoints" / "step_3").rename(elsewhere)
    (cut / "checkpoints" / "step_3").symlink_to(elsewhere)
    shutil.copytree(cut / "checkpoints" / "step_2", cut / "checkpoints" / "step_4")  # broken: it is of another step
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert (elsewhere / "model.safetensors").is_file()
    assert record_of(cut) == record_of(runs / "whole")


@pytest.mark.parametrize(
    "change",
    [
        shorten(STORE, 50),
        remove(STORE),
        shorten("checkpoints/step_3/resume/loop.json", 20),
        rewrite("checkpoints/step_3/resume/loop.json", '{"state": [1], "positions": {}}'),
        rewrite("checkpoints/step_3/resume/loop.json", '{"state": {"population": 3}, "positions": {"a": null}}'),
        rewrite("checkpoints/step_3/resume/loop.json", "[" * 100_000),
        remove("checkpoints/step_3/resume"),
        remove("checkpoints/step_3/resume/engine.json"),
        remove("checkpoints/step_3/resume/optimizer.safetensors"),
        flip("checkpoints/step_3/resume/optimizer.safetensors"),
        flip("checkpoints/step_3/model.safetensors"),
        remove("checkpoints/step_3/model.safetensors"),
        rewrite(SUMS, ""),
        rewrite(SUMS, f"{'0' * 64}  {'a' * 5000}\n"),
        rewrite(SUMS, f"{'0' * 64}  a\0b\n"),
        rewrite("checkpoints/step_3/resume/more.json", "{}"),
        unlisted(rewrite(STORE, '{"a": 1}\n')),
        unlisted(rewrite(STORE, '[["a"]]\n')),
        unlisted(rewrite(STORE, '{"trained": 0, "rollouts": []}\n')),
        unlisted(rewrite(STORE, '{"trained": 0, "rollouts": [{"problem_id": 1}]}\n')),
        unlisted(remove("checkpoints/step_3/model.safetensors")),
        unlisted(shorten("checkpoints/step_3/model.safetensors", 5000)),
    ],
)
def test_a_broken_checkpoint_is_seen_and_the_one_before_is_found(cut: Path, change: Callable[[Path], None]) -> None:
    change(cut)
    found = find_checkpoint(RunDirectory(cut))
    assert found.checkpoint == cut / "checkpoints" / "step_2"
    ((broken, _),), (complaint,) = found.broken, found.complaints
    assert broken == cut / "checkpoints" / "step_3"
    assert complaint.startswith(f"{broken} ") and complaint.endswith(": the run goes back to step_2")


def test_a_run_goes_back_by_itself_says_so_and_ends_as_the_whole_one(
    cut: Path, tiny_model_dir: Path, runs: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    flip("checkpoints/step_3/model.safetensors")(cut)
    for foreign in ("step_old", "step_4 copy", "step_007", "step_"):
        (cut / "checkpoints" / foreign).mkdir()
    (cut / "rollouts" / "step_x.jsonl").write_text("{}\n")
    assert main(["train", "--resume", str(cut), "--dry-run"]) == 0
    assert "model.safetensors is not what was written: the run goes back to step_2" in capsys.readouterr().out
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert "the run goes back to step_2; what is left of the other is kept in" in caplog.text
    assert (cut / "checkpoints" / "broken-step_3" / "model.safetensors").is_file()
    for foreign in ("step_old", "step_4 copy", "step_007", "step_"):
        (cut / "checkpoints" / foreign).rmdir()
    (cut / "rollouts" / "step_x.jsonl").unlink()
    assert record_of(cut) == record_of(runs / "whole")
    left = [path.parent.name for path in (cut / "checkpoints").glob("step_*/resume")]
    assert sorted(left) == ["step_4", "step_6"]


def test_resume_files_that_a_kill_left_are_taken_away_and_a_checkpoint_without_checksums_is_taken(
    cut: Path, tiny_model_dir: Path
) -> None:
    shutil.copytree(cut / "checkpoints" / "step_2", cut / "checkpoints" / "step_1")
    (cut / "checkpoints" / "step_3" / "SHA256SUMS").unlink()
    train(small_config(tiny_model_dir, cut, steps=3), resume=cut)
    left = [path.parent.name for path in (cut / "checkpoints").glob("step_*/resume")]
    assert sorted(left) == ["step_2", "step_3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (foreign_optimizer, "ValueError: .* are no moments of parameter 0"),
        (foreign_steps, "ValueError: the optimiser's state is of other parameters, such as 'nobody.weight'"),
        (rewrite("checkpoints/step_3/resume/engine.json", '{"other": 1}'), "KeyError: 'policy_version'"),
        (shorten("checkpoints/step_3/resume/optimizer.safetensors", 100), "SafetensorError: "),
    ],
)
def test_a_checkpoint_without_checksums_that_cannot_be_loaded_is_set_aside_for_the_one_before(
    cut: Path,
    tiny_model_dir: Path,
    runs: Path,
    change: Callable[[Path], None],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    unlisted(change)(cut)
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert re.search(f"step_3 cannot be loaded: {message}.*: the run goes back to step_2", caplog.text)
    assert (cut / "checkpoints" / "broken-step_3" / "model.safetensors").is_file()
    assert record_of(cut) == record_of(runs / "whole")


def test_weights_without_checksums_that_cannot_be_loaded_cost_nothing_of_the_record(
    cut: Path, tiny_model_dir: Path
) -> None:
    alone(unlisted(shorten("checkpoints/step_3/resume/optimizer.safetensors", 100)))(cut)
    before = record_of(cut)
    with pytest.raises(ResumeError, match="step_3 cannot be loaded: SafetensorError"):
        train(small_config(tiny_model_dir, cut), resume=cut)
    assert record_of(cut) == before


@pytest.mark.parametrize("text", [b"", b"- a\n", b"a: [\n", b"\xff\xfe", b"a: &a [*a]\n", b"[" * 300])
def test_a_config_that_is_none_is_named(cut: Path, text: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (cut / "config.yaml").write_bytes(text)
    for command in (["train", "--resume", str(cut)], ["report", str(cut)], ["evaluate", str(cut)]):
        assert main(command) == 2
        assert "config.yaml' is broken: " in capsys.readouterr().err


def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint_and_says_what_to_do(
    cut: Path, tiny_model_dir: Path, runs: Path
) -> None:
    small = 20_000  # the records of a step fit, the weights do not
    begin = TrainingSession.__enter__

    def enter(session: TrainingSession) -> TrainingSession:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))
        return begin(session)

    def limited() -> int:
        TrainingSession.__enter__ = enter  # type: ignore[method-assign]
        return main(["train", "--quiet", "--resume", str(cut), "--set", "steps=6"])

    status, _, said = Fork(limited).end()
    assert status == 2, said
    assert "Traceback" not in said
    assert "step_4' could not be written: " in said and "Make room or lift the limit" in said
    assert "it goes on from the checkpoint after step 3" in said
    assert sorted(path.name for path in (cut / "checkpoints").iterdir()) == ["step_2", "step_3"]
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert record_of(cut) == record_of(runs / "whole")


def test_sigterm_ends_a_run_like_ctrl_c(cut: Path, tiny_model_dir: Path, runs: Path) -> None:
    class Stopper:
        def on_event(self, kind: str, payload: Mapping[str, Any]) -> None:
            if kind == "step" and payload["step"] == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    result = train(small_config(tiny_model_dir, cut), resume=cut, observer=Stopper())
    assert (result.interrupted, result.steps) == (True, 4)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(small_config(tiny_model_dir, cut), resume=cut)
    assert record_of(cut) == record_of(runs / "whole")
