"""What curves come to: when a threshold is reached, what the KL was then, medians over seeds with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastslow.seeding import derive_seed
from fastslow.step_metrics import kl_of

Curve = Sequence[Mapping[str, Any]]
DRAWS = 4000


@dataclass(frozen=True)
class Reached:
    """The first evaluation at or above a threshold. `kl` in nats a token."""

    step: int
    rollouts: int
    seconds: float
    kl: float


@dataclass(frozen=True)
class Summary:
    """Median over seeds and the 95 % interval of the median (percentile bootstrap over seeds)."""

    median: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 2) -> str:
        """As it stands in tables; fewer than three seeds have no interval worth the name."""
        if self.count == 0:
            return "-"
        if self.count < 3:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def accuracy(point: Mapping[str, Any], task: str | None = None) -> float:
    """mean@k of one evaluation; of a stream, that of one of its tasks."""
    prefix = "val/mean@" if task is None else f"val/{task}/mean@"
    return next(float(value) for name, value in point.items() if name.startswith(prefix))


def kl(point: Mapping[str, Any]) -> float:
    """The KL to the base at an evaluation; NaN where it was not measured."""
    value = kl_of(point)
    return float("nan") if value is None else value


def reached(curve: Curve, threshold: float) -> Reached | None:
    """When a threshold was first reached; None where it never was."""
    for point in curve:
        if accuracy(point) >= threshold:
            return Reached(point["step"], point["rollouts"], point["seconds"], kl(point))
    return None


def final_accuracy(curve: Curve, last: int = 3, task: str | None = None) -> float:
    """Mean over the last evaluations, so that one lucky evaluation does not set the bar."""
    return float(np.mean([accuracy(point, task) for point in curve[-last:]]))


def area(curve: Curve, axis: str = "rollouts") -> float:
    """Mean accuracy over an axis from its start to its end, by trapezoids: high early and high late both count."""
    x = np.array([point[axis] for point in curve], dtype=float)
    y = np.array([accuracy(point) for point in curve])
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if x[-1] > x[0] else float(y[-1])


def summarise(values: Sequence[float | None], name: str = "") -> Summary:
    """Median and interval. None (never reached) counts as infinite: it moves the median as it should."""
    numbers = np.array([np.inf if value is None else value for value in values], dtype=float)
    if not len(numbers):
        return Summary(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(derive_seed("summary", name)).integers(0, len(numbers), (DRAWS, len(numbers)))
    medians = np.sort(_median(numbers[draws]))
    low, high = medians[int(0.025 * DRAWS)], medians[int(0.975 * DRAWS)]
    return Summary(float(_median(numbers[None])[0]), float(low), float(high), len(numbers))


def _median(rows: np.ndarray) -> np.ndarray:
    """Medians of rows that may hold infinities: the mean of two infinite neighbours is infinite, not undefined."""
    ordered = np.sort(rows, axis=1)
    size = rows.shape[1]
    return (ordered[:, (size - 1) // 2] + ordered[:, size // 2]) / 2
