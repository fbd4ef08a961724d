"""Runs whose scorer or environments are processes: the same numbers, and a process that dies costs a rollout."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.loop import train
from fastslow.runs.reader import read_metrics

from hostile import misbehave
from runs import record_of, small_config
from toy import LettersTask


@pytest.mark.parametrize("name", ["LettersTask", "TalkTask"])
def test_processes_of_their_own_change_no_number(name: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    records = []
    for isolate in (None, "process"):
        task = {"name": f"toy:{name}", "isolate": isolate}
        output = tmp_path / str(isolate)
        train(small_config(tiny_model_dir, output, steps=2, task=task, evaluation={"every": 0}))
        records.append(record_of(output))
    assert records[0] == records[1]


class Dying(LettersTask):
    """Its scorer ends its process, or crashes it, for some completions."""

    def score(self, problem: Any, completion: str) -> Any:
        misbehave({"a": "exit", "e": "crash"}.get(completion[:1], ""))
        return super().score(problem, completion)


def test_a_scorer_that_dies_now_and_then_costs_its_rollouts(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": f"{__name__}:Dying", "isolate": "process"}
    config = small_config(tiny_model_dir, tmp_path / "run", method="rl", steps=4, task=task, max_failure_fraction=0.9)
    assert train(config).steps == 4
    masked = [line["rollouts/failed"] for line in read_metrics(tmp_path / "run") if line["step"]]
    assert sum(masked) > 0
    assert any(line["reward/mean"] is not None for line in read_metrics(tmp_path / "run"))
