"""Every interval of this package: of a mean of rewards over problems, of a median over seeds, of a ratio (the KL).

What each covers on simulated data is in benchmarks/results/coverage.md, which benchmarks/coverage.py makes.
Sources: Clopper and Pearson, Biometrika 26 (1934); Korn and Graubard, Survey Methodology 24 (1998): an effective number
of draws for clustered ones; David and Nagaraja, Order Statistics (2003), section 7.1: the median; Efron, The Jackknife,
the Bootstrap and Other Resampling Plans (1982), chapter 10: the studentised bootstrap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb, inf

import numpy as np

Interval = tuple[float, float]
LEVEL = 0.95
BOOTSTRAP_DRAWS = 2000
NO_VARIANCE = 1e-12


def t_quantile(freedom: float, probability: float = (1 + LEVEL) / 2) -> float:
    """Quantile of Student's t with `freedom` degrees of freedom."""
    # Here and not above: commands that need no interval start without it.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def share_interval(share: float, count: float) -> Interval:
    """95 % interval of a share of `count` independent draws; also of a mean of values in [0, 1], which vary less.

    Exact, so that 0 of n and n of n have an interval too. `count` need not be whole. Source: Clopper and Pearson.
    Raises: ValueError where the share is not in [0, 1] or the count not positive.
    """
    from scipy.special import betaincinv

    if not 0.0 <= share <= 1.0 or count <= 0:
        raise ValueError(f"a share of {share!r} of {count!r} draws has no interval")
    hits, misses, tail = share * count, (1 - share) * count, (1 - LEVEL) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, misses + 1, tail))
    high = 1.0 if misses == 0 else float(betaincinv(hits + 1, misses, 1 - tail))
    return min(low, share), max(high, share)


def mean_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """95 % interval over problems of the mean over problems of mean rewards. `groups`: each problem's rewards, in [0,
    1].

    Raises: ValueError for no problem, or one without rewards.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError("an interval needs at least one problem, and a reward of each")
    means = np.array([sum(group) / len(group) for group in groups])
    binary = all(reward in (0.0, 1.0) for group in groups for reward in group)
    draws = sum(len(group) for group in groups) if binary else None
    error = float(means.std(ddof=1)) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return clustered_interval(float(np.clip(means.mean(), 0.0, 1.0)), error, len(means), draws)


def clustered_interval(mean: float, error: float, problems: int, draws: int | None) -> Interval:
    """95 % interval of a mean over `problems` of values in [0, 1] that has the standard `error`,
    estimated from the problems.

    `draws`: how many rewards of 0 or 1 there are in all; None where there are others. The samples of a problem are not
    independent. So the interval is that of a share of as many independent draws as would have the same standard
    error, and no more than there are. Where all problems came out the same, nothing is known of the spread, and
    each problem counts once.
    Source: Korn and Graubard.
    """
    if error**2 < NO_VARIANCE:
        return share_interval(mean, problems)
    count = mean * (1 - mean) / error**2
    freedom = inf if draws is None else draws - 1
    # The standard error itself is an estimate, from as many values as there are problems.
    correction = (t_quantile(freedom) / t_quantile(problems - 1)) ** 2
    return share_interval(mean, correction * (count if draws is None else min(count, draws)))


@dataclass(frozen=True)
class MedianRank:
    """The interval of a median: from the `rank`-th lowest to the `rank`-th highest value,
    which covers it in `coverage`.
    """

    rank: int
    coverage: float


def median_rank(count: int) -> MedianRank:
    """The narrowest such interval of `count` values that covers at least 95 %; below 6 values none does,
    and it is their range.

    Holds for any distribution. Source: David and Nagaraja.
    """
    missed = [2.0 * sum(comb(count, each) for each in range(rank)) / 2.0**count for rank in range(1, count // 2 + 1)]
    rank = max((rank for rank, miss in enumerate(missed, start=1) if miss <= 1 - LEVEL), default=1)
    return MedianRank(rank, 1 - missed[rank - 1] if missed else 0.0)


def median_note(counts: Iterable[int]) -> str:
    """In words, what the brackets behind medians over so many seeds are."""
    kinds = [(count, median_rank(count)) for count in sorted(set(counts)) if count >= 3]
    if not kinds:
        return "Fewer than three seeds have no brackets."
    texts = [
        f"of {count} seeds from the {_place(found.rank)}lowest to the {_place(found.rank)}highest, "
        f"{100 * found.coverage:.3g} %"
        for count, found in kinds
    ]
    few = " 95 % takes six seeds." if any(found.coverage < LEVEL for _, found in kinds) else ""
    few += " Where all seeds gave one value, it says so: a range without width is no interval."
    return f"In brackets an interval of the median, with how often such intervals cover it: {'; '.join(texts)}.{few}"


def _place(rank: int) -> str:
    return "" if rank == 1 else {2: "second ", 3: "third "}.get(rank, f"{rank}th ")


def ratio_interval(values: Sequence[float], weights: Sequence[float], *, seed: int) -> Interval:
    """95 % interval of `sum(values) / sum(weights)` over problems, by the studentised bootstrap: values may be skewed.

    Where no value is negative, the interval is not either. One problem has no interval: (0, inf), or (-inf, inf).
    Raises: ValueError where the lengths differ or are 0.
    """
    numerators, denominators = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    if len(numerators) != len(denominators) or not len(numerators):
        raise ValueError(f"{len(numerators)} values and {len(denominators)} weights have no ratio")
    lowest = 0.0 if numerators.min() >= 0 else -inf
    if len(numerators) == 1:
        return lowest, inf
    ratio, error = _ratio(numerators[None], denominators[None])
    drawn = np.random.default_rng(seed).integers(0, len(numerators), (BOOTSTRAP_DRAWS, len(numerators)))
    ratios, errors = _ratio(numerators[drawn], denominators[drawn])
    told = errors > 0
    if error[0] == 0 or not told.any():
        return float(ratio[0]), float(ratio[0])
    low, high = np.quantile((ratios[told] - ratio[0]) / errors[told], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(lowest, float(ratio[0] - high * error[0])), float(ratio[0] - low * error[0])


def _ratio(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of the sums of rows, and their standard errors."""
    total = weights.sum(1)
    ratios = values.sum(1) / total
    return ratios, np.sqrt(((values - ratios[:, None] * weights) ** 2).sum(1)) / total
