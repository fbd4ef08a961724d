"""FST cycles of a real small model with vLLM as sampler: sampler and learner agree before and after every update, and a
run that is killed and resumed ends as the uninterrupted one, to the last bit.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams, UpdateMetrics
from fastslow.slow.local.engine import LocalEngine

from runs import metrics_of, record_of
from vllm_cases import STEPS, TOLERANCE, config_of, gap

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("vllm_cases.py")
KILLED_AFTER = 3


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Before and after each update of a run: the largest difference of sampler and learner on the update's contexts."""
    found = []
    train_step = LocalEngine.train_step

    def measured(self: LocalEngine, datums: Sequence[Datum], loss: LossSettings, learning_rate: float) -> UpdateMetrics:
        if not datums:  # no group of the step had a signal
            return train_step(self, datums, loss, learning_rate)
        contexts = list(dict.fromkeys(datum.context_tokens for datum in datums))
        requests = [SampleRequest(context, 2, seed) for seed, context in enumerate(contexts)]
        before = gap(self, requests, SamplingParams(16))
        metrics = train_step(self, datums, loss, learning_rate)
        found.append((before, gap(self, requests, SamplingParams(16))))
        return metrics

    monkeypatch.setattr(LocalEngine, "train_step", measured)
    return found


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_run_learns_agrees_and_outlives_a_kill(
    lora: bool, model_dirs: dict[str, Path], tmp_path: Path, gaps: list[tuple[float, float]]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config_of(model_dirs["lab"], whole, lora=lora))
    assert len(gaps) >= STEPS // 2
    assert max(max(pair) for pair in gaps) < TOLERANCE
    lines = metrics_of(whole)
    assert lines[-1]["policy_version"] == len(gaps)
    assert lines[-1]["kl/base"] > 1e-5
    assert sum(line["rollouts/reused"] for line in lines) > 0

    command = [sys.executable, str(SCRIPT), str(model_dirs["lab"]), str(killed), "lora" if lora else "full"]
    found = os.pathsep.join(filter(None, [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": found}
    first = subprocess.run([*command, str(KILLED_AFTER)], capture_output=True, text=True, env=environment)
    assert first.returncode == -9, first.stderr[-2000:]
    assert [line["step"] for line in metrics_of(killed)] == list(range(KILLED_AFTER + 1))
    second = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert second.returncode == 0, second.stderr[-2000:]
    assert record_of(killed) == record_of(whole)


def test_what_vllm_has_trained_is_evaluated_without_it(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    train(config_of(model_dirs["lab"], tmp_path / "run", lora=False))
    options: dict[str, Any] = {"prompt": "best", "problems": 16, "k": 4}
    there = evaluate(tmp_path / "run", **options)
    here = evaluate(tmp_path / "run", **options, overrides=["slow.sampler.kind=forest"])
    assert 0.2 < here.rows[0].result.mean < 1.0  # neither always wrong nor always right
    assert there.rows[0].result.mean == pytest.approx(here.rows[0].result.mean, abs=0.2)
