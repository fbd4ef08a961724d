"""From the scores of all candidates to the K prompts of the next population."""

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


def pareto_frontier(scores: Sequence[Scores]) -> list[int]:
    """Candidates of the per-instance Pareto frontier, best mean first, the newer one first where means tie.

    A candidate is on it when it is best on some instance and no set of others is best wherever it is; of several that
    tie everywhere one is kept. Instances that nobody solves say nothing. Source: arXiv 2507.19457, algorithm 2.
    """
    means = [mean_score(candidate) for candidate in scores]
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
    return sorted(find_dominator_programs(fronts, ranks), key=lambda index: (-means[index], -index))


def select_population(scores: Sequence[Scores], size: int, reserved: Sequence[int] = ()) -> list[int]:
    """Indices of the `size` candidates that make the next population, best mean first.

    `reserved` candidates have a place in any case, as far as `size` allows. Members of the Pareto frontier come next, those
    that win most instances where there are too many. Binary rewards tie a lot, so the frontier is often small. It is padded
    with the next best that reach half of the best mean, and then by repeating the best: a slot is worth more to a good
    prompt than to a bad one. Where nothing has scored yet, the newest stay: the search goes on from the last edits.

    Raises: ValueError without candidates.
    """
    if not scores:
        raise ValueError("there is no candidate to select from")
    means = [mean_score(candidate) for candidate in scores]
    by_mean = sorted(range(len(scores)), key=lambda index: (-means[index], -index))
    reserved = list(reserved)[:size]
    frontier = [index for index in pareto_frontier(scores) if index not in reserved]
    if len(frontier) > size:
        wins = _wins(scores)
        frontier = sorted(frontier, key=lambda index: (-wins[index], -means[index], -index))[:size]
    padding = [index for index in by_mean if means[index] >= PADDING_SHARE * max(means)]
    chosen = list(dict.fromkeys([*reserved, *frontier, *padding]))[:size]
    chosen.sort(key=lambda index: (-means[index], -index))
    return [chosen[position % len(chosen)] for position in range(size)]


def _wins(scores: Sequence[Scores]) -> list[int]:
    """On how many instances each candidate is among the best."""
    best: dict[str, float] = {}
    for candidate in scores:
        for instance, reward in candidate.items():
            best[instance] = max(best.get(instance, 0.0), reward)
    return [sum(r > 0.0 and r == best[i] for i, r in candidate.items()) for candidate in scores]
