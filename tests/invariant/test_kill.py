"""SIGKILL at random moments, of the resumed run as well: it ends with the uninterrupted run's record, bit for bit."""

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
def test_a_run_that_is_killed_again_and_again_ends_like_the_uninterrupted_one(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    begin = time.perf_counter()
    whole = _start(tiny_model_dir, tmp_path / "whole", resume=False)
    whole.join()
    duration = time.perf_counter() - begin
    assert whole.exitcode == 0
    expected = record_of(tmp_path / "whole")
    moments, killed = random.Random(0), 0
    for run in range(KILLS):
        output, seconds = tmp_path / f"killed-{run}", []
        while True:
            process = _start(tiny_model_dir, output, resume=(output / "config.yaml").exists())
            seconds.append(moments.uniform(0.0, duration))
            process.join(seconds[-1] if killed < KILLS else None)
            if process.exitcode is not None or process.pid is None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
        told = f"after it had been killed at {[round(s, 3) for s in seconds[:-1]]} s"
        assert process.exitcode == 0, f"run {run} could not be resumed {told}"
        assert record_of(output) == expected, f"run {run} ended differently {told}"
        if killed == KILLS:
            break
    assert killed > KILLS // 2
