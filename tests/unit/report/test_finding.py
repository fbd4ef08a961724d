"""The finding of a page in words: it says what the numbers say, and no more."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.experiments.tables import budget_note
from fastslow.measuring.statistics import Spent, unequal_budgets
from fastslow.report.collect import collect
from fastslow.report.finding import Arm, of_ablation, of_arms, of_drift, of_starts

from report_runs import make_run, metrics_line, write_lines


def arm(name: str, accuracy: float | None, kl: float | None = None, sampled: float = 100.0, **more: Any) -> Arm:
    curve: Any = more.get("curve", [])
    spent = [Spent(sampled, [(p["rollouts"], p["step"], p["accuracy"]) for p in curve])] * more.get("runs", 3)
    return Arm(name, accuracy, more.get("interval"), kl, spent, curve)


def accuracies(tmp_path: Path, values: list[float | None], planned: int = 100) -> str:
    """The finding of a run with these evaluations, one a step."""
    run = make_run(tmp_path / "run", steps=0)
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(config.replace("\nsteps: 100\n", f"\nsteps: {planned}\n"), encoding="utf-8")
    lines = [metrics_line(step, evaluate=False) | {"val/mean@4": value} for step, value in enumerate(values)]
    write_lines(run / "metrics.jsonl", lines)
    title: str = collect([run])["panels"][0]["finding"]["title"]
    return title


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ([0.0, 0.9, 0.9], "Accuracy rose from 0.00 to 0.90 in 40 rollouts"),
        ([0.9, 0.0, 0.0], "Accuracy fell from 0.90 to 0.00 in 40 rollouts"),
        ([0.5, 0.55, 0.55], "No clear change: accuracy went from 0.50 to 0.55 in 40 rollouts"),
        ([0.5, 0.5, 0.5], "Accuracy stayed at 0.50 in 40 rollouts"),
        ([None, 0.5, 0.5], "Accuracy ended at 0.50 in 40 rollouts; there is no measurement from before"),
        ([0.5, None, None], "Accuracy was not measured after the start; 40 rollouts were sampled"),
    ],
)
def test_the_finding_of_a_run(tmp_path: Path, values: list[float | None], title: str) -> None:
    assert accuracies(tmp_path, values, planned=len(values) - 1) == title


def test_a_run_that_goes_on_says_how_far_it_is(tmp_path: Path) -> None:
    assert accuracies(tmp_path, [0.0, 0.9, 0.9]).startswith("After 2 of 100 steps: accuracy rose")
    assert accuracies(tmp_path, [0.1]) == "After 0 of 100 steps: no step is done yet"


def test_arms_stand_best_first_with_what_they_drifted() -> None:
    found = of_arms([arm("RL alone", 0.9, 0.52), arm("FST", 0.97, 0.04)])
    assert found == {"title": "FST reached 0.97 with KL 0.04; RL alone 0.90 with KL 0.52", "notes": []}


@pytest.mark.parametrize(
    ("first", "second", "title", "note"),
    [
        (
            {"accuracy": 0.9, "interval": (0.8, 0.95)},
            {"accuracy": 0.85, "interval": (0.7, 0.9)},
            "A reached",
            "overlap",
        ),
        ({"accuracy": 0.9}, {"accuracy": 0.9}, "No difference in accuracy: A reached", ""),
        ({"accuracy": 0.9, "runs": 1}, {"accuracy": 0.8, "runs": 1}, "A reached", "an illustration, not evidence"),
        ({"accuracy": 0.9}, {"accuracy": None}, "A reached 0.90", ""),
        ({"accuracy": None}, {"accuracy": None}, "Accuracy was not measured", ""),
    ],
)
def test_what_is_not_certain_is_said(first: dict[str, Any], second: dict[str, Any], title: str, note: str) -> None:
    found = of_arms([arm("A", **first), arm("B", **second)])
    assert found["title"].startswith(title)
    assert note in " ".join(found["notes"])


def points(*values: float, every: int = 100) -> list[dict[str, float]]:
    return [{"rollouts": every * at, "step": at, "accuracy": value} for at, value in enumerate(values)]


def test_arms_with_other_budgets_are_compared_where_all_of_them_got() -> None:
    fast = arm("FST", 0.9, sampled=400, curve=points(0.0, 0.6, 0.8, 0.9, 0.9))
    slow = arm("RL alone", 0.5, sampled=200, curve=points(0.0, 0.4, 0.5))
    (note,) = of_arms([fast, slow])["notes"]
    assert note == (
        "Budgets differ: the arms sampled 200 to 400 rollouts. At 200, which every arm spent: FST: "
        "0.70; RL alone: 0.45."
    )
    late = Spent(500, [(500, 1, 0.5)])
    assert budget_note({"a": [late], "b": [Spent(100, [])]}) == "Budgets differ: the arms sampled 100 to 500 rollouts."


@pytest.mark.parametrize(("spent", "found"), [([100, 102], None), ([100, 103], (100, 103)), ([100], None), ([], None)])
def test_budgets_are_equal_to_one_in_fifty(spent: list[float], found: tuple[float, float] | None) -> None:
    assert unequal_budgets(spent) == found


def test_an_ablation_names_the_best_and_the_worst_value() -> None:
    clear = [arm("K = 1", 0.5, interval=(0.4, 0.6)), arm("K = 4", 0.9, interval=(0.8, 0.95))]
    assert of_ablation(clear)["title"] == "K = 4 reached 0.90, the most; K = 1 reached 0.50, the least"
    near = [arm("K = 1", 0.85, interval=(0.8, 0.9)), arm("K = 4", 0.9, interval=(0.85, 0.95))]
    assert of_ablation(near)["title"] == "No clear difference: K = 4 reached 0.90, K = 1 reached 0.85"


def test_starts_and_drift_answer_their_own_questions() -> None:
    starts = [arm("from the base", 0.8), arm("from RL alone's weights", 0.5)]
    assert of_starts(starts)["title"] == (
        "Plain RL on the second task reached 0.80 from the base, 0.50 from RL alone's weights"
    )
    near = [{**point, "kl": 0.01 * at} for at, point in enumerate(points(0.0, 0.6, 0.9))]
    far = [{**point, "kl": 0.1 * at} for at, point in enumerate(points(0.0, 0.3, 0.62))]
    found = of_drift([arm("FST", 0.9, curve=near), arm("RL alone", 0.6, curve=far)])
    assert found["title"] == "When accuracy first was 0.62, FST was at KL 0.02; RL alone was at KL 0.20"
