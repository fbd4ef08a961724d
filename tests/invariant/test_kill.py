"""SIGKILL at random moments: every resumed run ends with the uninterrupted run's record, bit for bit."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from runs import record_of, small_config

KILLS = int(os.environ.get("FASTSLOW_KILLS", "12"))
"""More of them: FASTSLOW_KILLS=200 make test."""


def _train(model: Path, output: Path, resume: bool) -> None:
    from fastslow.loop import train

    train(small_config(model, output), resume=output if resume else None)


def _start(model: Path, output: Path, resume: bool) -> multiprocessing.Process:
    # Forked, so that a child costs no second import of torch; with one thread there is no pool that a fork could break.
    process = multiprocessing.get_context("fork").Process(target=_train, args=(model, output, resume))
    process.start()
    return process


@pytest.mark.slow
def test_a_killed_run_ends_like_the_uninterrupted_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    begin = time.perf_counter()
    whole = _start(tiny_model_dir, tmp_path / "whole", resume=False)
    whole.join()
    duration = time.perf_counter() - begin
    assert whole.exitcode == 0
    expected = record_of(tmp_path / "whole")
    moments = random.Random(0)
    killed = 0
    for trial in range(KILLS):
        output = tmp_path / f"killed-{trial}"
        process = _start(tiny_model_dir, output, resume=False)
        process.join(moments.uniform(0.0, duration))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        again = _start(tiny_model_dir, output, resume=(output / "config.yaml").exists())
        again.join()
        assert again.exitcode == 0, f"trial {trial} could not be resumed"
        assert record_of(output) == expected, f"trial {trial} ended differently"
    assert killed > KILLS // 2
