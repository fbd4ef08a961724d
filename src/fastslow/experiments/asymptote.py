"""Where a learning curve would end: the paper's sigmoid fit with an interval over seeds,
or the reason why there is none.

R(C) - R0 = (A - R0) / (1 + (Cmid / C)^B) over steps C. Source: arXiv 2605.12484, section 4; ScaleRL, arXiv 2510.13786.
Deviations: it is fitted to the accuracies themselves, and R0 with them. The paper fits the running best accuracy, which
lies above the curve by as much as the noise is large. The interval is a jackknife over seeds with Student's t. How
often it covers the asymptote of simulated curves is in benchmarks/results/coverage.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fastslow.measuring.intervals import t_quantile
from fastslow.measuring.statistics import Curve, accuracy

WIDEST = 0.8
"""An interval this wide says nothing. A lower bound would refuse the wide intervals alone,
and the others would cover less.
"""
SMALLEST_RISE = 0.05
SURE = 0.99
"""How sure it must be that the curves rise at all, by a one-sided t test over seeds."""
EDGE = 0.999
"""A is bounded by 1: a fit that runs into its bound says nothing about where the curve ends."""
TOLERANCE = 1e-4
"""How exact a fit is."""
MIDDLES, SLOPES = np.geomspace(2e-5, 4.0, 60), np.geomspace(0.12, 20.0, 24)
"""Where the fit starts to look: Cmid as a share of the last step, and B."""
LOWEST, HIGHEST = (0.0, 0.0, 1e-5, 0.1), (1.0, 1.0, 10.0, 25.0)
"""Bounds of R0, A, Cmid as a share of the last step, and B."""


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
    """A of the mean over seeds of the accuracies. All curves have their evaluations at the same steps.

    Raises: ValueError where the steps differ.
    """
    steps = [[point["step"] for point in curve] for curve in curves]
    if any(row != steps[0] for row in steps):
        raise ValueError("the curves were measured at different steps")
    at = np.array(steps[0], dtype=float)
    if len(curves) < 3:
        return _refused(f"{len(curves)} seeds are too few for an interval")
    if len(at) < 5:
        return _refused(f"{len(at) - 1} evaluations after the start are too few")
    values = np.array([[accuracy(point) for point in curve] for curve in curves])
    if flat := _flat(values):
        return _refused(flat)
    value, middle = _fit(at, values.mean(0))
    if middle > at[-1]:
        return _refused("the curve has not reached its middle")
    if value > EDGE:
        return _refused("the fit ends at the highest accuracy there is")
    without = np.array([_fit(at, np.delete(values, seed, axis=0).mean(0))[0] for seed in range(len(values))])
    if without.max() > EDGE:
        return _refused("without one of the seeds the fit ends at the highest accuracy there is")
    # The jackknife's standard error. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), eq. 11.5.
    error = float(np.sqrt((len(values) - 1) * without.var()))
    half = TOLERANCE + t_quantile(len(values) - 1) * error
    low, high = max(0.0, value - half), min(1.0, value + half)
    if high - low > WIDEST:
        return _refused(f"its interval, {low:.2f} to {high:.2f}, is wider than {WIDEST}")
    return Asymptote(value, low, high)


def _refused(reason: str) -> Asymptote:
    return Asymptote(float("nan"), float("nan"), float("nan"), reason)


def _flat(values: np.ndarray) -> str | None:
    """Why curves (seeds, evaluations) cannot be said to rise from their start to their last third;
    None where they do.
    """
    rises = values[:, -max(1, (values.shape[1] - 1) // 3) :].mean(1) - values[:, 0]
    mean, error = float(rises.mean()), float(rises.std(ddof=1)) / len(rises) ** 0.5
    if mean < SMALLEST_RISE:
        return f"accuracy rose by {mean:.3f} only" if mean >= 0 else f"accuracy fell by {-mean:.3f}"
    if mean < t_quantile(len(rises) - 1, SURE) * error:
        return f"accuracy rose by {mean:.3f}, but {len(rises)} seeds differ by too much to be sure of it"
    return None


def _fit(at: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """A and Cmid by least squares: the best of a grid over Cmid and B, R0 and A following, and from there all four."""
    from scipy.optimize import least_squares

    share = at / at[-1]

    def distance(found: np.ndarray) -> np.ndarray:
        start, end, middle, slope = found[0], found[1], np.exp(found[2]), np.exp(found[3])
        missed: np.ndarray = start + (end - start) * _progress(share, middle, slope) - values
        return missed

    lowest = np.array([*LOWEST[:2], *np.log(LOWEST[2:])])
    highest = np.array([*HIGHEST[:2], *np.log(HIGHEST[2:])])
    start = np.clip(_best_of_grid(tuple(share.tolist()), values), lowest + 1e-9, highest - 1e-9)
    found = least_squares(distance, start, bounds=(lowest, highest), xtol=1e-10, ftol=1e-10, gtol=1e-10).x
    return float(found[1]), float(np.exp(found[2]) * at[-1])


def _progress(share: np.ndarray, middle: np.ndarray | float, slope: np.ndarray | float) -> np.ndarray:
    """1 / (1 + (Cmid / C)^B), which is 0 at the start."""
    with np.errstate(divide="ignore", over="ignore"):
        progress: np.ndarray = 1.0 / (1.0 + (middle / share) ** slope)
    return progress


@lru_cache(maxsize=8)
def _grid(share: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cmid, B and the progress of every point of the grid: (points), (points), (points, evaluations)."""
    middles, slopes = (axis.ravel() for axis in np.meshgrid(MIDDLES, SLOPES, indexing="ij"))
    return middles, slopes, _progress(np.array(share), middles[:, None], slopes[:, None])


def _best_of_grid(share: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    """R0, A, log Cmid and log B of the grid's best point; at each, R0 and A solve a linear problem, with A <= 1."""
    middles, slopes, progress = _grid(share)
    centred = progress - progress.mean(1, keepdims=True)
    spread = (centred**2).sum(1)
    rise = np.divide(centred @ values, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    start = values.mean() - rise * progress.mean(1)
    # Where that ends above 1, it ends at 1: 1 - value = (1 - R0) (1 - progress).
    left = 1.0 - progress
    capped = np.divide(left @ (1.0 - values), (left**2).sum(1), out=np.ones_like(spread), where=(left**2).sum(1) > 1e-9)
    start = np.where(start + rise > 1.0, 1.0 - capped, start)
    end = np.minimum(start + rise, 1.0)
    missed = ((start[:, None] + (end - start)[:, None] * progress - values) ** 2).sum(1)
    best = int(np.argmin(missed))
    return np.array([start[best], end[best], np.log(middles[best]), np.log(slopes[best])])
