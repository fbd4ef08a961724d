"""From the scores of all candidates to the K prompts of the next population.

Per-instance comparisons need scores that stand on equally many rollouts: a mean of four rollouts hardly ever
reaches the 1.0 that a single rollout reaches by luck. So instances are compared by one rollout each; all
rollouts count in the means.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from gepa.gepa_utils import find_dominator_programs

Scores = Mapping[str, float]

PADDING_SHARE = 0.5
LUCK_SHARE = 0.1
ENOUGH = 8
"""Fewer instances than this say too little to call a hit luck, or to drop a candidate."""


def mean_score(scores: Scores) -> float:
    """Mean over the instances that a candidate was scored on; 0 where there is none."""
    return sum(scores.values()) / len(scores) if scores else 0.0


def is_luck(rewards: Iterable[float]) -> bool:
    """Whether some rewards are no more than a low floor gives: one in ten, and one hit more where there are enough."""
    values = list(rewards)
    return sum(values) <= LUCK_SHARE * len(values) + (1.0 if len(values) >= ENOUGH else 0.0)


def paired_gain(after: Sequence[float], before: Sequence[float]) -> tuple[float, float]:
    """Mean of `after - before` over the same instances, and its standard error. Both (N,), N >= 1."""
    differences = [new - old for new, old in zip(after, before, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((difference - mean) ** 2 for difference in differences) / len(differences)
    return mean, math.sqrt(variance / len(differences))


def pareto_frontier(scores: Sequence[Scores], means: Sequence[float] | None = None) -> list[int]:
    """Candidates of the per-instance Pareto frontier, best mean first, the newer one first where means tie.

    A candidate is on it when it is best on some instance and no set of others is best wherever it is; of several that
    tie everywhere one is kept. Instances that nobody solves say nothing. `scores` stand on one rollout each; `means`
    may stand on more, those of `scores` where they are not given. Source: arXiv 2507.19457, algorithm 2.
    """
    means = means or [mean_score(candidate) for candidate in scores]
    instances = dict.fromkeys(instance for candidate in scores for instance in candidate)
    fronts: dict[str, set[int]] = {}
    for instance in instances:
        rewards = {index: candidate[instance] for index, candidate in enumerate(scores) if instance in candidate}
        best = max(rewards.values())
        if best > 0.0:
            fronts[instance] = {index for index, reward in rewards.items() if reward == best}
    if not fronts:
        return []
    # Ties in the mean go to the newer candidate, also inside gepa, which drops the lower scores first.
    ranks = [mean + index * 1e-9 for index, mean in enumerate(means)]
    # gepa has no types for it.
    chosen: list[int] = find_dominator_programs(fronts, ranks)  # type: ignore[no-untyped-call]
    return sorted(chosen, key=lambda index: (-means[index], -index))


def select_population(
    scores: Sequence[Scores],
    size: int,
    reserved: Sequence[int] = (),
    *,
    means: Sequence[float] | None = None,
    complete: Sequence[bool] | None = None,
) -> list[int]:
    """Indices of the `size` candidates that make the next population, best mean first.

    `reserved` candidates have a place in any case, as far as `size` allows. Members of the Pareto frontier come
    next, those that win most instances where there are too many. Binary rewards tie a lot, so the frontier is
    often small. It is padded with the next best that reach half of the best mean, and then by repeating the best:
    a slot is worth more to a good prompt than to a bad one. Where nothing has scored yet, the newest stay: the
    search goes on from the last edits.

    `scores` and `means` as in `pareto_frontier`. `complete` says which candidates were scored on every instance; by
    default those that have a score on all that anybody has. The first place is for the best of these, unless they
    scored nothing: it is measured and exported, and a mean over a few instances is high by luck.

    Raises: ValueError without candidates.
    """
    if not scores:
        raise ValueError("there is no candidate to select from")
    means = means or [mean_score(candidate) for candidate in scores]
    by_mean = sorted(range(len(scores)), key=lambda index: (-means[index], -index))
    reserved = list(reserved)[:size]
    frontier = [index for index in pareto_frontier(scores, means) if index not in reserved]
    free = size - len(reserved)
    if len(frontier) > free:
        wins = _wins(scores)
        frontier = sorted(frontier, key=lambda index: (-wins[index], -means[index], -index))[:free]
    padding = [index for index in by_mean if means[index] >= PADDING_SHARE * max(means)]
    chosen = list(dict.fromkeys([*reserved, *frontier, *padding]))[:size]
    chosen.sort(key=lambda index: (-means[index], -index))
    instances = {instance for candidate in scores for instance in candidate}
    complete = complete or [candidate.keys() >= instances for candidate in scores]
    chosen = _led(chosen, [index for index in by_mean if complete[index] and means[index] > 0.0])
    return [chosen[position % len(chosen)] for position in range(size)]


def _led(chosen: Sequence[int], complete: Sequence[int]) -> list[int]:
    """The chosen behind the first of the complete candidates, which comes in front where it was not chosen."""
    leader = next((index for index in complete if index in chosen), next(iter(complete), None))
    if leader is None:
        return list(chosen)
    return [leader, *(index for index in chosen if index != leader)]


def _wins(scores: Sequence[Scores]) -> list[int]:
    """On how many instances each candidate is among the best."""
    best: dict[str, float] = {}
    for candidate in scores:
        for instance, reward in candidate.items():
            best[instance] = max(best.get(instance, 0.0), reward)
    return [sum(r > 0.0 and r == best[i] for i, r in candidate.items()) for candidate in scores]
