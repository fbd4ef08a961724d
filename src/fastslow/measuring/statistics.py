"""What curves come to: when a threshold is reached, what the KL was then, medians over seeds with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastslow.measuring.intervals import median_rank
from fastslow.runs.reader import evaluation_of

Point = Mapping[str, float]
"""One evaluation during training: `step`, `rollouts`, `seconds`, and the metrics that were measured."""
Curve = Sequence[Point]


@dataclass(frozen=True)
class Reached:
    """The first evaluation at or above a threshold. `kl` in nats a token."""

    step: int
    rollouts: int
    seconds: float
    kl: float


@dataclass(frozen=True)
class Summary:
    """Median over seeds and an interval of the median between two of the seeds, as `intervals.median_rank` says.

    With six seeds or more it is a 95 % interval; with fewer none exists, and `coverage` is what their range has.
    """

    median: float
    low: float
    high: float
    count: int

    @property
    def coverage(self) -> float:
        """How often such an interval covers the median of the distribution that the seeds come from, whatever that is."""
        return median_rank(self.count).coverage

    def text(self, digits: int = 2) -> str:
        """As it stands in tables; fewer than three seeds have no interval worth the name."""
        if self.count == 0:
            return "-"
        if self.count < 3:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def accuracy(point: Point, task: str | None = None) -> float:
    """mean@k of one evaluation; of a stream, that of one of its tasks. Raises ValueError where it was not measured."""
    found = evaluation_of(point)
    value = found.accuracy if task is None else found.tasks.get(task)
    if value is None:
        raise ValueError(f"no accuracy was measured at step {point.get('step')}{'' if task is None else f' on {task}'}")
    return float(value)


def kl(point: Point) -> float:
    """The KL to the base at an evaluation; NaN where it was not measured."""
    value = evaluation_of(point).kl
    return float("nan") if value is None else float(value)


def reached(curve: Curve, threshold: float) -> Reached | None:
    """When a threshold was first reached; None where it never was."""
    for point in curve:
        if accuracy(point) >= threshold:
            return Reached(int(point["step"]), int(point["rollouts"]), point["seconds"], kl(point))
    return None


def final_accuracy(curve: Curve, last: int = 3, task: str | None = None) -> float:
    """Mean over the last evaluations, so that one lucky evaluation does not set the bar."""
    return float(np.mean([accuracy(point, task) for point in curve[-last:]]))


def area(curve: Curve, axis: str = "rollouts") -> float:
    """Mean accuracy over an axis from its start to its end, by trapezoids: high early and high late both count."""
    x = np.array([point[axis] for point in curve], dtype=float)
    y = np.array([accuracy(point) for point in curve])
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if x[-1] > x[0] else float(y[-1])


def summarise(values: Sequence[float | None]) -> Summary:
    """Median and interval. None (never reached) counts as infinite: it moves the median as it should."""
    ordered = sorted(math.inf if value is None else float(value) for value in values)
    if not ordered:
        return Summary(float("nan"), float("nan"), float("nan"), 0)
    size, rank = len(ordered), median_rank(len(ordered)).rank
    # The mean of two infinite neighbours is infinite.
    median = (ordered[(size - 1) // 2] + ordered[size // 2]) / 2
    return Summary(median, ordered[rank - 1], ordered[-rank], size)
