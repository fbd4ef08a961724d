"""Table and plots of the format-rule experiment, from `results/` alone.

    python experiments/format_rules/report.py

Writes results/README.md, and one picture a task: accuracy over sampled rollouts and over seconds, and the KL to the base.
Runs with another learning rate, in directories of their own, get a table of their own.
Seconds are training seconds: sampling, search and updates, without the evaluations that draw the curves.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from fastslow.measuring.intervals import clustered_interval

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fastslow.methods.registry import titles

RESULTS = Path(__file__).parent / "results"
METHODS = {name: title for name, title in titles().items() if name in ("fst", "rl", "prompt")}
TASKS = {
    "json": "zero floor: bare JSON, which the base model never writes under the seed prompt",
    "boxed": "low floor: \\boxed{}, which the base model writes now and then",
}
TEST = (
    "Test split, after training. Brackets are 95 % intervals over problems; those of the KL are the percentile bootstrap's, as "
    "they were measured."
)
THRESHOLDS = (0.3, 0.5, 0.6)
NORMAL = 1.959964
"""Quantile of the normal distribution: half of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Point:
    """One evaluation during training."""

    step: int
    rollouts: int
    seconds: float
    mean: float
    best: float
    kl: float


@dataclass(frozen=True)
class Run:
    """One finished run, read back from its record."""

    task: str
    method: str
    seed: int
    points: list[Point]
    lines: list[dict[str, Any]]
    test: list[dict[str, Any]]

    @property
    def seconds(self) -> float:
        return sum(map(training_seconds, self.lines))


def training_seconds(line: dict[str, Any]) -> float:
    """Seconds of a step without its evaluation."""
    return float(line["time/step_s"] - line["time/evaluate_s"])


def read_run(directory: Path) -> Run:
    task, method, seed = directory.name.split("-")
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    points, seconds = [], 0.0
    for line in lines:
        seconds += training_seconds(line) if line["step"] else 0.0
        if "val/mean@4" in line:
            points.append(
                Point(
                    line["step"], line["rollouts/sampled_total"], seconds, line["val/mean@4"], line["val/best@4"],
                    line["kl/base"],
                )
            )  # fmt: skip
    tests = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("test_*.json"))]
    return Run(task, method, int(seed), points, lines[1:], tests)


def reached(run: Run, threshold: float) -> str:
    """Sampled rollouts and training seconds at the first evaluation that is at or above a threshold."""
    first = next((point for point in run.points if point.mean >= threshold), None)
    return "never" if first is None else f"{first.rollouts} / {first.seconds:.0f} s"


def table(runs: list[Run]) -> list[str]:
    thresholds = " | ".join(f"to {value}" for value in THRESHOLDS)
    rows = [
        f"| method | seed | RL steps | sampled (search's) | reused | seconds | mean@4: start, last | {thresholds} | KL, last |",
        "|---" * (8 + len(THRESHOLDS)) + "|",
    ]
    for run in runs:
        last = run.lines[-1]
        gepa = sum(line["rollouts/sampled_gepa"] for line in run.lines)
        reused = sum(line["rollouts/reused"] for line in run.lines)
        cells = [
            METHODS[run.method], str(run.seed), str(last["policy_version"]), f"{last['rollouts/sampled_total']} ({gepa})",
            str(reused), f"{run.seconds:.0f}", f"{run.points[0].mean:.3f}, {run.points[-1].mean:.3f}",
            *(reached(run, value) for value in THRESHOLDS), f"{run.points[-1].kl:.3f}",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def test_table(runs: list[Run]) -> list[str]:
    rows = ["| run | weights | prompt | mean@k | best@k | KL to base, nats/token |", "|---|---|---|---|---|---|"]
    for run in runs:
        for report in run.test:
            for row in report["rows"]:
                kl = row["kl"]
                measured = "-" if kl is None else f"{kl['mean']:.3f} {interval(kl['interval'])}"
                rows.append(
                    f"| {METHODS[run.method]}, seed {run.seed} | {report['weights']} | {row['label']} | "
                    f"{row['mean']:.3f} {interval(of_rewards(row, 'mean'))} | {row['best']:.3f} "
                    f"{interval(of_rewards(row, 'best'))} | {measured} |"
                )
    return rows


def of_rewards(row: dict[str, Any], name: str) -> tuple[float, float]:
    """The 95 % interval of mean@k or best@k. Rewards are 0 or 1, and none was masked.

    The records have the percentile bootstrap's, which leaves out too much of rare rewards and is no interval where all problems
    came out the same. Its width still tells the standard error, which is what the interval here is made from.
    """
    low, high = row[f"{name}_interval"]
    problems, samples = row["problems"], row["k"] if name == "mean" else 1
    error = (high - low) / (2 * NORMAL) * math.sqrt(problems / (problems - 1))
    return clustered_interval(row[name], error, problems, problems * samples)


def learning_rates(runs: list[Run]) -> list[str]:
    """FST under the learning rates that were tried: validation accuracy and KL, evaluation after evaluation."""
    other = [
        (path.parent.parent.name, read_run(path.parent)) for path in RESULTS.glob("learning_rate_*/*/metrics.jsonl")
    ]
    rows = ["| task | seed | learning rate | mean@4 | KL | at steps |", "|---" * 6 + "|"]
    tried = {(run.task, run.seed) for _, run in other}
    mine = [("learning_rate_5e-5", run) for run in runs if run.method == "fst" and (run.task, run.seed) in tried]
    for rate, run in sorted([*mine, *other], key=lambda pair: (pair[1].task, pair[0])):
        columns = zip(*[(f"{p.mean:.2f}", f"{p.kl:.2f}", str(p.step)) for p in run.points], strict=True)
        means, kls, steps = (", ".join(column) for column in columns)
        rows.append(f"| {run.task} | {run.seed} | {rate.removeprefix('learning_rate_')} | {means} | {kls} | {steps} |")
    return ["## The learning rate that was too high", "", *rows, ""] if other else []


def interval(bounds: Sequence[float]) -> str:
    return f"({bounds[0]:.3f} to {bounds[1]:.3f})"


def plot(task: str, runs: list[Run]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    colours = dict(zip(METHODS, ("tab:orange", "tab:blue", "tab:green"), strict=True))
    for run in runs:
        style = {
            "color": colours[run.method],
            "marker": "o",
            "markersize": 3,
            "label": f"{METHODS[run.method]}, {run.seed}",
        }
        axes[0].plot([p.rollouts for p in run.points], [p.mean for p in run.points], **style)
        axes[1].plot([p.seconds for p in run.points], [p.mean for p in run.points], **style)
        axes[2].plot([p.rollouts for p in run.points], [p.kl for p in run.points], **style)
    labels = (
        ("sampled rollouts, the search's included", "validation mean@4"),
        ("training seconds", "validation mean@4"),
        ("sampled rollouts, the search's included", "KL to the base, nats a token"),
    )
    for axis, (x, y) in zip(axes, labels, strict=True):
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 1)
    axes[1].set_ylim(0, 1)
    axes[0].legend(fontsize=8, title="method, seed")
    figure.suptitle(TASKS[task])
    figure.savefig(RESULTS / f"{task}.png", dpi=110)
    plt.close(figure)


def main() -> None:
    order = list(METHODS)
    runs = [read_run(path.parent) for path in RESULTS.glob("*/metrics.jsonl")]
    runs.sort(key=lambda run: (run.task, run.seed, order.index(run.method)))
    text = ["# Results", "", "Made by `report.py`; see the README beside it for what was run.", ""]
    for task, title in TASKS.items():
        mine = [run for run in runs if run.task == task]
        if not mine:
            continue
        plot(task, mine)
        text += [f"## {task}: {title}", "", f"![curves]({task}.png)", "", *table(mine), ""]
        if any(run.test for run in mine):
            text += [TEST, "", *test_table(mine), ""]
    text += learning_rates(runs)
    (RESULTS / "README.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
