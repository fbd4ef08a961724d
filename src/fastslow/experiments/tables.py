"""Cells and tables of experiments, as Markdown: medians over seeds, with the interval that `median_note` explains."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from fastslow.experiments.records import Line, Measured
from fastslow.measuring.statistics import (
    Curve,
    Reached,
    Spent,
    Summary,
    accuracy,
    reached,
    summarise,
    unequal_budgets,
)
from fastslow.methods.registry import find_method, titles

NAMES = titles()
Lines = Sequence[Line]
ByMethod = Mapping[str, Lines]


def select(lines: Lines, **labels: object) -> Lines:
    """The lines whose labels have these values."""
    return [line for line in lines if all(line["labels"].get(name) == value for name, value in labels.items())]


def seed_counts(lines: Lines) -> list[int]:
    """How many runs there are with the same labels but for the seed."""
    groups = Counter(tuple((name, value) for name, value in line["labels"].items() if name != "seed") for line in lines)
    return list(groups.values())


def by_method(lines: Lines, **labels: object) -> ByMethod:
    """The lines of each method, in the order of `methods.settings`; methods without any are left out."""
    found = {method: select(lines, method=method, **labels) for method in NAMES}
    return {method: runs for method, runs in found.items() if runs}


def moves_weights(method: str) -> bool:
    """Whether a method trains the slow weights, so that its curve has a drift and an end."""
    return find_method(method).moves_weights


def curves(runs: Lines) -> list[Curve]:
    """Their learning curves."""
    return [run["curve"] for run in runs]


def median(values: Iterable[float | None], digits: int = 3) -> str:
    """A median with its interval; None stands for never reached."""
    return _finite(summarise(list(values)), digits)


def reach(points: Sequence[Reached | None], value: Callable[[Reached], float], digits: int) -> str:
    """Median of what runs needed to get somewhere; "never" stands for runs that did not get there."""
    if not any(points):
        return "never"
    return median([None if point is None else value(point) for point in points], digits)


def reaching(points: Sequence[Reached | None]) -> str:
    """How many of the runs got there: "4 of 5"."""
    return f"{sum(point is not None for point in points)} of {len(points)}"


def measured(runs: Lines, name: str, figure: str = "mean") -> str:
    """Median over runs of a measurement's mean@k, or of another figure of it; a dash where no run has the measurement.

    A population of one prompt has no other figure than its mean.
    """
    found = [run["measures"][name] for run in runs if name in run["measures"]]
    values = [_figure(measure, figure) for measure in found]
    return median(values) if values else "-"


def _figure(measure: Measured, name: str) -> float:
    return cast(float, measure.get(name, measure["mean"]))


def ratios(methods: ByMethod, level: float) -> list[str]:
    """FST over RL alone, seed by seed: sampled rollouts and training seconds to an accuracy."""
    if not {"fst", "rl"} <= set(methods):
        return []
    rl = {run["labels"]["seed"]: reached(run["curve"], level) for run in methods["rl"]}
    pairs = [(reached(run["curve"], level), rl.get(run["labels"]["seed"])) for run in methods["fst"]]
    if any(point is not None and not point.step for pair in pairs for point in pair):
        return ["The start is at that accuracy already: there is nothing to compare.", ""]
    if all(other is None for _, other in pairs):
        return ["RL alone never got there.", ""]
    rollouts = summarise([_ratio(p, q, lambda r: r.rollouts) for p, q in pairs if p or q])
    seconds = summarise([_ratio(p, q, lambda r: r.seconds) for p, q in pairs if p or q])
    left_out = len(pairs) - rollouts.count
    without = f"; {rollouts.count} of {len(pairs)} seeds, since neither got there on the others" if left_out else ""
    return [
        f"To {level:.2f}, FST over RL alone, seed by seed: {_finite(rollouts, 2)} of the rollouts, "
        f"{_finite(seconds, 2)} of the seconds (0 where RL alone never got there{without}).",
        "",
    ]


def budget_note(arms: Mapping[str, Sequence[Spent]]) -> str:
    """In words, that arms did not sample the same number of rollouts, and what each had reached with the fewest of
    them; "" where all sampled the same. Medians over the runs of an arm.
    """
    spent = {name: summarise([run.sampled for run in runs]).median for name, runs in arms.items() if runs}
    differ = unequal_budgets(list(spent.values()))
    if differ is None:
        return ""
    least, most = differ
    told = f"Budgets differ: the arms sampled {least:,.0f} to {most:,.0f} rollouts."
    then = {name: [run.until(least) for run in arms[name]] for name in spent}
    texts = [
        f"{name}: {summarise(values).median:.2f}" for name, values in then.items() if all(v is not None for v in values)
    ]
    return f"{told} At {least:,.0f}, which every arm spent: {'; '.join(texts)}." if len(texts) > 1 else told


def spent_by(runs: Lines) -> list[Spent]:
    """What each run sampled, and its evaluations."""
    return [
        Spent(run["totals"]["sampled"], [(p["rollouts"], p["step"], accuracy(p)) for p in run["curve"]]) for run in runs
    ]


def _ratio(fst: Reached | None, rl: Reached | None, value: Callable[[Reached], float]) -> float | None:
    if fst is None:
        return None
    return 0.0 if rl is None else value(fst) / value(rl)


def _finite(found: Summary, digits: int) -> str:
    return found.text(digits).replace("inf", "never")
