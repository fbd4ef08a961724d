"""What curves come to: when a threshold is reached, what the KL was then, medians over seeds with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastslow.measuring.intervals import median_rank
from fastslow.runs.reader import Evaluation, evaluation_of

Point = Mapping[str, float]
"""One evaluation during training: `step`, `rollouts`, `seconds`, and the metrics that were measured."""
Curve = Sequence[Point]


@dataclass(frozen=True)
class Reached:
    """The first evaluation at or above a threshold."""

    step: int
    rollouts: int
    seconds: float
    evaluation: Evaluation

    @property
    def kl(self) -> float:
        """The KL to the base there, in nats a token; NaN where it was not measured."""
        return math.nan if self.evaluation.kl is None else float(self.evaluation.kl)


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
        """How often such an interval covers the median of the seeds' distribution, whatever that is."""
        return median_rank(self.count).coverage

    @property
    def alike(self) -> bool:
        """Whether three or more seeds gave one value, as at a ceiling: their range has no width, and says no more."""
        return self.count >= 3 and self.low == self.high

    def text(self, digits: int = 2) -> str:
        """As it stands in tables; fewer than three seeds have no interval worth the name, and equal ones have none."""
        if self.count == 0:
            return "-"
        if self.count < 3:
            return f"{self.median:.{digits}f}"
        if self.alike:
            return f"{self.median:.{digits}f} (all {self.count} alike)"
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


def kl_completion(point: Point) -> float:
    """The same summed over a completion: a mean over tokens is larger where answers are short."""
    value = evaluation_of(point).kl_completion
    return float("nan") if value is None else float(value)


def reached(curve: Curve, threshold: float) -> Reached | None:
    """When a threshold was first reached; None where it never was."""
    for point in curve:
        if accuracy(point) >= threshold:
            return Reached(int(point["step"]), int(point["rollouts"]), point["seconds"], evaluation_of(point))
    return None


END = 3
"""Evaluations that make the accuracy at the end, so that one lucky evaluation does not set the bar."""


def at_the_end(evaluations: Sequence[tuple[float, float]]) -> float | None:
    """Accuracy at the end: the mean of the last `END` (step, accuracy) after the start,
    of fewer where there are no more.

    The one definition of tables, reports and the demo. None where nothing was measured after the start.
    """
    after = [accuracy for step, accuracy in evaluations if step > 0][-END:]
    return float(np.mean(after)) if after else None


@dataclass(frozen=True)
class Spent:
    """What a run sampled in all, and its evaluations: (rollouts, step, accuracy)."""

    sampled: float
    evaluations: Sequence[tuple[float, float, float]]

    def until(self, rollouts: float) -> float | None:
        """The accuracy at the end of what it had sampled by then; None where nothing was measured so early."""
        return at_the_end([(step, accuracy) for at, step, accuracy in self.evaluations if at <= rollouts])


def unequal_budgets(spent: Sequence[float]) -> tuple[float, float] | None:
    """The fewest and the most sampled rollouts, where they differ by over one in fifty; None where they are equal."""
    if len(spent) < 2 or max(spent) <= 1.02 * min(spent):
        return None
    return min(spent), max(spent)


def final_accuracy(curve: Curve, task: str | None = None) -> float:
    """Accuracy at the end of a curve; of one that has only its start, the accuracy there."""
    found = at_the_end([(point["step"], accuracy(point, task)) for point in curve])
    return accuracy(curve[-1], task) if found is None else found


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


CHOSEN_BY = "the lowest rate whose median lies within the bracket of the highest one"


def chosen_rate(areas: Mapping[float, Sequence[float]]) -> float:
    """The learning rate that a search takes: the lowest one that it cannot tell from the best,
    since a lower one drifts less.

    `areas` maps each rate to a measure of its runs, one per seed. A rate counts as no worse than the one with the
    highest median where its own median is not below that one's interval. With one seed the best alone qualifies.
    """
    found = {rate: summarise(values) for rate, values in areas.items() if values}
    best = max(found.values(), key=lambda summary: summary.median)
    return min(rate for rate, summary in found.items() if summary.median >= best.low)
