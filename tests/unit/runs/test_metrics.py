"""Every metric is declared once: what is written is declared, what is declared is written, no name stands elsewhere."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fastslow.fast.optimiser import Evolution, Usage
from fastslow.measuring.evaluation import KlResult
from fastslow.runs import metrics as m
from fastslow.runs.metric import Merge, Metric
from fastslow.runs.metrics import METRICS, find
from fastslow.runs.reader import Step, curve_of, evaluation_of, kl_name, merged, totals_of
from fastslow.runs.record import StepRecord, episode_metrics
from fastslow.slow.bare import PromptGap
from fastslow.types import Rollout, Trace

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"^(val|kl|rollouts|episodes|time|slow|fast|reward)/")


def literals(text: str) -> list[str]:
    """Texts in code that begin as the name of a metric does; docstrings and the column `rollouts/s` are none."""
    nodes = list(ast.walk(ast.parse(text)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if NAME.match(node.value) and node.value != "rollouts/s"
    ]


def test_a_name_is_seen_in_texts_and_in_texts_with_places() -> None:
    assert literals('a = "val/mean@4"; b = f"time/{name}_s"; c = "the val/mean@4"') == ["val/mean@4", "time/"]


def test_no_name_of_a_metric_stands_outside_of_its_room() -> None:
    package = ROOT / "src" / "fastslow"
    places = [
        (path.relative_to(package).as_posix(), name)
        for path in sorted(package.rglob("*.py"))
        for name in literals(path.read_text(encoding="utf-8"))
        # The contract suites make lines of their own up, as another version would write them.
        if path.parent.name != "testing"
    ]
    assert {place for place, _ in places} == {"runs/metrics.py"}


def recorded_lines() -> list[dict[str, Any]]:
    """The metrics of every golden run. They have no times, which differ between machines."""
    records = sorted((ROOT / "tests" / "golden" / "records").glob("*.json"))
    return [line for path in records for line in json.loads(path.read_text(encoding="utf-8"))["outcome"]["metrics"]]


def undeclared(lines: Iterable[Mapping[str, object]]) -> list[str]:
    """Names in lines of `metrics.jsonl` that stand for no metric."""
    return sorted({key for line in lines for key in line if find(key) is None})


def test_what_runs_write_is_declared_and_what_is_declared_is_written() -> None:
    begun = StepRecord().finish(step=0, cycle=0, policy_version=0, usd_total=0.0, sampled_total=0, population_size=1)
    estimated = {KlResult(0.0, (0.0, 0.0), 1, exact=False).metric.name: 0.0}
    own_loss = {"slow/loss/sequence_ratio": 1.0}  # as tests/invariant/test_own_slow_side.py sees it in a run
    one = Rollout("p", "h", (), 1.0, "", None, 0, "rl", Trace("done"))
    episodes = {metric.name: value for metric, value in episode_metrics([one]).items()}
    work = StepRecord()
    work.count_work(10, 20)
    work.evolution(Evolution((), (), 0, Usage(), info={"merges": (2, 1)}))  # as with fast.use_merge
    beyond = StepRecord()
    beyond.bare(PromptGap())
    beyond.evolution(Evolution((), (), 0, Usage(), info={"overfitted": 1}))
    # As tests/invariant/test_beyond.py sees it in a run; the estimate is that of a server.
    seed_prompt = {"val/seed_prompt/mean@4": 1.0, "kl/seed_prompt/base": 0.0, "kl/seed_prompt/base_estimate": 0.0}
    seed_prompt["kl/seed_prompt/base_completion"] = 0.0
    lines = [*recorded_lines(), begun, estimated, own_loss, episodes, work.values, beyond.values, seed_prompt]
    assert undeclared(lines) == []
    written = {found.metric for line in lines for key in line if (found := find(key)) is not None}
    assert [metric.name for metric in METRICS if metric not in written] == []


def test_a_name_that_is_not_declared_is_told() -> None:
    assert undeclared([{"step": 1, "val/mean@4": 0.5}, {"slow/new": 1}]) == ["slow/new"]


def test_no_metric_is_declared_twice() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize(
    ("key", "metric", "k", "task"),
    [
        ("val/mean@4", m.VAL_MEAN, 4, None),
        ("val/by_kind/mean@2", m.VAL_BY_KIND, 2, None),
        ("val/lab-elm/mean@16", m.VAL_TASK, 16, "lab-elm"),
        ("val/lab-elm/own/mean@4", m.VAL_TASK_OWN, 4, "lab-elm"),
        ("val/my/own/task/mean@4", m.VAL_TASK, 4, "my/own/task"),
        ("kl/base", m.KL, None, None),
    ],
)
def test_a_name_is_found_and_its_places_are_read(key: str, metric: Metric, k: int | None, task: str | None) -> None:
    found = find(key)
    assert found is not None
    assert (found.metric, found.k, found.task) == (metric, k, task)
    assert metric.key(k=k, task=task) == key


def test_a_place_must_be_filled() -> None:
    with pytest.raises(ValueError, match="@k is missing"):
        m.VAL_MEAN.key()
    with pytest.raises(ValueError, match="<task> is no part"):
        m.VAL_MEAN.key(k=4, task="x")


def test_a_step_begins_with_counters_at_zero_and_values_at_null() -> None:
    values = StepRecord().values
    assert json.dumps([values[each.name] for each in (m.METRIC_CALLS, m.USD, m.LOSS)]) == "[0, 0.0, null]"
    assert m.FAILED.name not in values


def test_steps_become_one_as_their_metric_says() -> None:
    steps = [
        Step({"step": 1, "reward/mean": 0.5, "slow/ratio_max": 3.0, "rollouts/reused": 2, "rollouts/sampled_total": 8}),
        Step(
            {"step": 2, "reward/mean": None, "slow/ratio_max": 1.0, "rollouts/reused": 5, "rollouts/sampled_total": 9}
        ),
        Step({"step": 3, "reward/mean": 1.0, "fast/error": "down"}),
    ]
    assert [merged(steps, each) for each in (m.REWARD_MEAN, m.RATIO_MAX, m.REUSED, m.SAMPLED_TOTAL)] == [
        0.75,
        3.0,
        7,
        9,
    ]
    assert m.ERROR.merge is Merge.NONE
    assert merged(steps, m.ERROR) is None


def test_the_learning_curve_has_the_evaluations_and_training_seconds_alone() -> None:
    times = {"time/step_s": 10.0, "time/evaluate_s": 4.0}
    steps = [
        Step({"step": 0, "val/mean@4": 0.1, "kl/base": 0.0, "rollouts/sampled_total": 0, **times}),
        Step({"step": 1, "rollouts/sampled_total": 8, **times}),
        Step({"step": 2, "val/mean@4": 0.5, "kl/base_estimate": 0.3, "rollouts/sampled_total": 16, **times}),
    ]
    first, last = curve_of(steps)
    assert (first.step, first.seconds, last.step, last.rollouts, last.seconds) == (0, 0.0, 2, 16, 12.0)
    assert (last.evaluation.k, last.evaluation.accuracy, last.evaluation.kl) == (4, 0.5, 0.3)
    assert [kl_name([point.evaluation]) for point in (first, last)] == ["KL", "KL (estimate)"]
    assert last.to_json() == {"step": 2, "rollouts": 16, "seconds": 12.0, "val/mean@4": 0.5, "kl/base_estimate": 0.3}
    assert evaluation_of(last.to_json()) == last.evaluation
    assert (totals_of(steps).seconds, totals_of(steps).evaluate_s, totals_of(steps).sampled) == (12.0, 8.0, 16)
