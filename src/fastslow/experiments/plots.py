"""Plots of experiments. Needs matplotlib: pip install 'fastslow[plots]'."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastslow.errors import ConfigError
from fastslow.measuring.statistics import Curve, Point, accuracy, kl, kl_completion, unequal_budgets
from fastslow.methods.registry import colours, titles

COLOURS = ("#0b6bb8", "#c4520a", "#0b7d5c", "#a03a80", "#7a6200", "#5b4bc4", "#b3263e", "#55606a")
"""The palette of the report's page (`report/assets/base.css`), so that a method has one colour in both."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Series differ in marker as well as in colour."""

Value = Callable[[Point], float]
Axis = tuple[str, Value]
ROLLOUTS: Axis = ("sampled rollouts, the search's included", lambda point: point["rollouts"])
STEPS: Axis = ("RL steps", lambda point: point["step"])
SECONDS: Axis = ("training seconds", lambda point: point["seconds"])
ACCURACY: Axis = ("validation accuracy", accuracy)
KL: Axis = ("KL to the start, nats a token", kl)
KL_COMPLETION: Axis = ("KL to the start, nats a completion", kl_completion)


def draw(curves: Mapping[str, Sequence[Curve]], panels: Sequence[tuple[Axis, Axis]], title: str, path: Path) -> None:
    """One figure: a panel for each pair of axes, a thin line for each seed and a thick one for the median of a series.

    Raises: ConfigError where matplotlib is missing.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.8), constrained_layout=True, squeeze=False
    )
    for axis, ((x_name, x), (y_name, y)) in zip(axes[0], panels, strict=True):
        for (label, runs), colour, marker in zip(curves.items(), _colours(list(curves)), MARKERS, strict=False):
            for run in runs:
                axis.plot([x(p) for p in run], [y(p) for p in run], color=colour, alpha=0.25, linewidth=0.8)
            xs, ys = _median_line(runs, x, y)
            axis.plot(xs, ys, color=colour, marker=marker, markersize=4, linewidth=1.8, label=f"{label} ({len(runs)})")
        axis.set_xlabel(x_name + (_budgets(curves) if x_name == ROLLOUTS[0] else ""))
        axis.set_ylabel(y_name)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8, title="series (seeds)")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _budgets(curves: Mapping[str, Sequence[Curve]]) -> str:
    """What the axis of rollouts says where the series did not sample the same number."""
    differ = unequal_budgets([max(run[-1]["rollouts"] for run in runs) for runs in curves.values()])
    return "" if differ is None else f"\nbudgets differ: series end at {differ[0]:,.0f} to {differ[1]:,.0f}"


def _colours(labels: Sequence[str]) -> list[str]:
    """A colour for each series: that of its method where the label is a method's title, otherwise one that is left."""
    by_title = {name: COLOURS[place] for name, place in zip(titles().values(), colours().values(), strict=True)}
    taken = {by_title[label] for label in labels if label in by_title}
    left = iter([colour for colour in COLOURS if colour not in taken] * (1 + len(labels) // len(COLOURS)))
    return [by_title.get(label) or next(left) for label in labels]


def _median_line(runs: Sequence[Curve], x: Value, y: Value) -> tuple[np.ndarray, np.ndarray]:
    """Medians over the runs of the points that have the same place in every run."""
    shortest = min(len(run) for run in runs)
    xs = np.array([[x(point) for point in run[:shortest]] for run in runs])
    ys = np.array([[y(point) for point in run[:shortest]] for run in runs])
    return np.median(xs, axis=0), np.median(ys, axis=0)


def check_plots() -> None:
    """Raises ConfigError where the library is missing that plots need."""
    if find_spec("matplotlib") is None:
        raise ConfigError("plots need matplotlib: pip install 'fastslow[plots]'")


def _pyplot() -> Any:
    check_plots()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
