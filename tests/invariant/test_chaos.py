"""A run that is killed before any of its changes to the disk, or whose disk fills up, loses nothing.

`tests/invariant/test_kill.py` kills by the clock; here every moment of saving, pruning and appending has its turn.
FASTSLOW_KILLS=200 kills as often, at other moments each.
"""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import StorageError
from fastslow.loop import train
from fastslow.runs.directory import RunDirectory
from fastslow.runs.reader import read_metrics
from fastslow.training.resume import find_checkpoint

from runs import record_of, small_config

KILLS = int(os.environ.get("FASTSLOW_KILLS", "2"))
CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.unlink")


def _train(model: Path, output: Path, resume: bool, kill_at: int, count: Any) -> None:
    """Train, and be killed before the change to the disk that has this number; `count` gets how many there were."""

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not str(arguments[0]).startswith(str(output)):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        count.value += 1
        if count.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)
    train(small_config(model, output, steps=4, fast={"metric_calls": 12}), resume=output if resume else None)


def _run(model: Path, output: Path, resume: bool, kill_at: int = 0) -> tuple[int | None, int]:
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    process = context.Process(target=_train, args=(model, output, resume, kill_at, count))
    process.start()
    process.join()
    return process.exitcode, count.value


@pytest.mark.slow
def test_a_run_killed_before_any_change_to_its_disk_ends_like_the_uninterrupted_one(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    code, changes = _run(tiny_model_dir, tmp_path / "whole", resume=False)
    assert code == 0
    assert changes > 40, "the changes to the disk are no longer seen"
    expected = record_of(tmp_path / "whole")
    # Most of them are in the checkpoints; each trial has another one.
    moments = random.Random(KILLS).sample(range(1, changes), min(KILLS, changes - 1))
    for moment in moments:
        output = tmp_path / f"killed-{moment}"
        code, _ = _run(tiny_model_dir, output, resume=False, kill_at=moment)
        assert code == -signal.SIGKILL
        code, _ = _run(tiny_model_dir, output, resume=(output / "config.yaml").exists())
        assert code == 0, f"killed before change {moment}, it could not be resumed"
        assert record_of(output) == expected, f"killed before change {moment}, it ended differently"
        shutil.rmtree(output)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is nearly full; without the right to mount one, a limit on the size of files."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield place
        subprocess.run(["umount", "-l", str(place)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield place
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, previous)


def test_a_disk_that_fills_up_costs_no_checkpoint(small_disk: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    output = small_disk / "run"
    # A checkpoint of the tiny model takes 100 kB, and later 32.
    config = small_config(tiny_model_dir, output, steps=40, checkpoint_every=1, evaluation={"every": 0})
    with pytest.raises(StorageError, match="Everything that was saved before stands"):
        train(config)
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    done = max((int(line["step"]) for line in read_metrics(copy)), default=0)
    assert find_checkpoint(RunDirectory(copy)).broken == ()
    more = small_config(tiny_model_dir, output, steps=done + 1, checkpoint_every=1, evaluation={"every": 0})
    assert train(more, resume=copy).steps == done + 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
