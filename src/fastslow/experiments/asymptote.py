"""Where a learning curve would end: the paper's sigmoid fit, with a bootstrap interval, or the reason why there is none.

R(C) - R0 = (A - R0) / (1 + (Cmid / C)^B), fitted to the running best validation accuracy over steps C.
Source: arXiv 2605.12484, section 4; ScaleRL, arXiv 2510.13786. Needs scipy: pip install 'fastslow[plots]'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastslow.experiments.statistics import Curve, accuracy
from fastslow.seeding import derive_seed

DRAWS = 200
WIDEST = 0.15
SMALLEST_RISE = 0.05
EDGE = 0.999
"""A is bounded by 1: a fit that runs into its bound says nothing about where the curve ends."""


@dataclass(frozen=True)
class Asymptote:
    """`value` is A, with a 95 % interval over seeds; `refused` says why the curves do not identify it."""

    value: float
    low: float
    high: float
    refused: str | None = None

    def text(self) -> str:
        """As it stands in tables."""
        return f"none: {self.refused}" if self.refused else f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def fit_asymptote(curves: Sequence[Curve]) -> Asymptote:
    """A of the mean over seeds of running best accuracies. All curves have their evaluations at the same steps.

    Raises: ValueError where the steps differ.
    """
    steps = [[point["step"] for point in curve] for curve in curves]
    if any(row != steps[0] for row in steps):
        raise ValueError("the curves were measured at different steps")
    running = np.array([np.maximum.accumulate([accuracy(point) for point in curve]) for curve in curves])
    at = np.array(steps[0][1:], dtype=float)
    rise = running.mean(0)[-1] - running.mean(0)[0]
    if len(curves) < 3:
        return _refused(f"{len(curves)} seeds are too few for an interval")
    if len(at) < 4:
        return _refused(f"{len(at)} evaluations after the start are too few")
    if rise < SMALLEST_RISE:
        return _refused(f"accuracy rose by {rise:.3f} only")
    value, middle = _fit(at, running.mean(0))
    if middle > at[-1]:
        return _refused("the curve has not reached its middle")
    if value > EDGE:
        return _refused("the fit ends at the highest accuracy there is")
    rng = np.random.default_rng(derive_seed("asymptote"))
    draws = [_fit(at, running[rng.integers(0, len(running), len(running))].mean(0))[0] for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    if high - low > WIDEST:
        return _refused(f"its interval, {low:.2f} to {high:.2f}, is wider than {WIDEST}")
    return Asymptote(value, float(low), float(high))


def _refused(reason: str) -> Asymptote:
    return Asymptote(float("nan"), float("nan"), float("nan"), reason)


def _fit(at: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """A and Cmid by least squares; A between the best value seen and 1."""
    from scipy.optimize import curve_fit

    start, seen = float(values[0]), values[1:]
    best = min(float(seen.max()), 1.0 - 1e-6)

    def curve(step: np.ndarray, a: float, middle: float, slope: float) -> np.ndarray:
        return start + (a - start) / (1.0 + (middle / step) ** slope)

    found, _ = curve_fit(
        curve, at, seen, p0=(best, float(at[len(at) // 3]), 2.0), bounds=((best * 0.9, 1e-3, 0.1), (1.0, 1e4, 20.0)),
        maxfev=5000,
    )  # fmt: skip
    return float(found[0]), float(found[1])
