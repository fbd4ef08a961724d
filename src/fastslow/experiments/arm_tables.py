"""What arms came to: where they ended, what a level took, each against the first seed by seed,
and the KL at one accuracy.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fastslow.experiments.arms import ARMS, MOST_CYCLES, OWN, SEED, arm_curves, last_lines
from fastslow.experiments.plots import ACCURACY, KL, KL_COMPLETION, ROLLOUTS, draw
from fastslow.experiments.records import Line, Measured
from fastslow.experiments.tables import Lines, median, reach, reaching
from fastslow.measuring.statistics import Curve, Point, accuracy, final_accuracy, reached, summarise
from fastslow.runs.reader import evaluation_of
from fastslow.text import markdown_table

SHARES = (0.5, 0.75, 0.9)
"""Of the best arm's final accuracy: the levels at which the drift is compared."""
SHARE = 0.95
NO_LEVEL = "No arm's median ends above 0 on validation: there is no level to reach, and no drift to compare at one."
"""Every evaluation has an accuracy of 0 or more, so a level of 0 would be reached by all before their first step."""

Curves = Mapping[str, Mapping[int, Curve]]
Measurements = Mapping[str, Measured]
Figure = Callable[[Measured], float]


def arms_section(lines: Lines, arms: Sequence[str], budget: int, picture: Path) -> list[str]:
    """All tables and the plot."""
    curves = arm_curves(lines, arms)
    if not curves:
        return ["No arm has ended yet.", ""]
    best = max(summarise([final_accuracy(curve) for curve in runs.values()]).median for runs in curves.values())
    # Runs of older versions have no KL of whole answers: a panel that shows some of the arms alone would mislead.
    whole = all(
        any(not math.isnan(KL_COMPLETION[1](p)) for p in run) for runs in curves.values() for run in runs.values()
    )
    draw(
        {ARMS[name].title: list(runs.values()) for name, runs in curves.items()},
        [(ROLLOUTS, ACCURACY), (ACCURACY, KL), *([(ACCURACY, KL_COMPLETION)] if whole else [])],
        f"arms at {budget} sampled rollouts",
        picture,
    )
    return [
        f"Every arm has a budget of {budget} sampled rollouts, the search's and reflection's included, and the same "
        f"seeds. GEPA under frozen weights ends after {MOST_CYCLES} cycles as well. Own prompt: the best of the arm's "
        "last population; seed prompt: the task's.",
        "",
        *_ends(lines, curves),
        *(_levels(curves, SHARE * best) if best > 0 else [NO_LEVEL, ""]),
        *_paired(lines, curves),
        *_costs(lines, curves),
        *(_drift(curves, best) if best > 0 else []),
        f"![arms]({picture.name})",
        "",
    ]


def _ends(lines: Lines, curves: Curves) -> list[str]:
    rows, drifts = [], []
    for name, runs in curves.items():
        last = [line for seed, line in last_lines(lines, name).items() if seed in runs]
        title, seeds = ARMS[name].title, str(len(runs))
        at_the_end = median(final_accuracy(curve) for curve in runs.values())
        rows.append([title, seeds, at_the_end, *(_tested(last, measure, _mean) for measure in (OWN, SEED))])
        drifts.append(
            [title, *(_tested(last, measure, figure) for measure in (OWN, SEED) for figure in DRIFTS.values())]
        )
    return [
        *markdown_table(["arm", "seeds", "validation at the end", f"test, {OWN}", f"test, {SEED}"], rows),
        "KL to the base on the test split. A mean over tokens is larger where answers are short: their sum over a "
        "completion says how far whole answers have moved.",
        "",
        *markdown_table(["arm", *(f"{unit}, {name}" for name in (OWN, SEED) for unit in DRIFTS)], drifts),
    ]


def _levels(curves: Curves, level: float) -> list[str]:
    rows = []
    for name, runs in curves.items():
        at = [reached(curve, level) for curve in runs.values()]
        cells = [reach(at, lambda p: p.rollouts, 0), reach(at, lambda p: p.seconds, 1)]
        rows.append([ARMS[name].title, reaching(at), *cells])
    return markdown_table([f"to {level:.2f}, own prompt", "seeds that reach it", "rollouts", "seconds"], rows)


COSTS = {
    "sampled": "rollouts",
    "evolve_s": "prompt search",
    "sample_s": "sampling",
    "update_s": "update",
    "seconds": "all",
}
"""What a whole arm took, all phases together."""


def _costs(lines: Lines, curves: Curves) -> list[str]:
    """What the seconds went into."""
    rows = []
    for name, runs in curves.items():
        mine = [line for line in lines if line["labels"].get("arm") == name]
        cells = []
        for cost in COSTS:
            spent = dict.fromkeys(runs, 0.0)
            for line in mine:
                seed = int(str(line["labels"]["seed"]))
                if seed in spent:
                    spent[seed] += line["totals"][cost]
            cells.append(median(spent.values(), 0))
        rows.append([ARMS[name].title, *cells])
    return [
        "Whole runs: sampled rollouts, and the training seconds that each part took.",
        "",
        *markdown_table(["arm", *COSTS.values()], rows),
    ]


def _paired(lines: Lines, curves: Curves) -> list[str]:
    """Each arm against the first one, seed by seed: differences of accuracy and of KL on the test split."""
    first, *others = curves
    base, rows, drifts = last_lines(lines, first), [], []
    for name in others:
        other = last_lines(lines, name)
        shared = [seed for seed in curves[name] if seed in base and seed in other and seed in curves[first]]
        both = [(other[seed]["measures"], base[seed]["measures"]) for seed in shared]
        title, seeds = ARMS[name].title, str(len(shared))
        rows.append([title, seeds, *(_gap(both, measure, _mean) for measure in (OWN, SEED))])
        drifts.append([title, *(_gap(both, measure, figure) for measure in (OWN, SEED) for figure in DRIFTS.values())])
    if not rows:
        return []
    return [
        f"Less {ARMS[first].title}, seed by seed, on the test split:",
        "",
        *markdown_table(["arm", "seeds", f"accuracy, {OWN}", f"accuracy, {SEED}"], rows),
        *markdown_table(["arm", *(f"{unit}, {name}" for name in (OWN, SEED) for unit in DRIFTS)], drifts),
    ]


def _gap(both: Sequence[tuple[Measurements, Measurements]], measure: str, figure: Figure) -> str:
    return median(figure(one[measure]) - figure(two[measure]) for one, two in both)


def _drift(curves: Curves, best: float) -> list[str]:
    """KL where an accuracy was first reached, under the own prompt and under the seed prompt."""
    levels = [share * best for share in SHARES]
    head = ["arm", *(f"{prompt}, {level:.2f}" for prompt in (OWN, SEED) for level in levels)]
    tables = []
    for unit, (own, seed) in ON_CURVES.items():
        rows = []
        for name, runs in curves.items():
            cells = [_kl_at(runs.values(), level, accuracy, own) for level in levels]
            rows.append([ARMS[name].title, *cells, *(_kl_at(runs.values(), at, _seed_accuracy, seed) for at in levels)])
        tables += [f"In nats {unit}:", "", *markdown_table(head, rows)]
    return [
        "KL to the base at the first evaluation that reaches an accuracy under the same prompt. Never: half of the "
        "seeds or more do not reach it. A dash: not measured; a second phase measures from its own start.",
        "",
        *tables,
    ]


def _kl_at(
    runs: Iterable[Curve], level: float, value: Callable[[Point], float], drift: Callable[[Point], float]
) -> str:
    found: list[float | None] = []
    for curve in runs:
        point = next((point for point in curve if value(point) >= level), None)
        found.append(None if point is None else drift(point))
    if any(each is not None and math.isnan(each) for each in found):
        return "-"
    return median(found)


def _seed_accuracy(point: Point) -> float:
    value = evaluation_of(point).seed_accuracy
    return -math.inf if value is None else float(value)


def _point(name: str) -> Callable[[Point], float]:
    """A KL of an evaluation; NaN where it was not measured."""

    def value(point: Point) -> float:
        found = getattr(evaluation_of(point), name)
        return math.nan if found is None else float(found)

    return value


ON_CURVES = {
    "a token": (_point("kl"), _point("seed_kl")),
    "a completion": (_point("kl_completion"), _point("seed_kl_completion")),
}
"""The KL of an evaluation under the own prompt and under the seed prompt, by its unit."""


def _tested(lines: Sequence[Line], measure: str, figure: Figure) -> str:
    values = [figure(line["measures"][measure]) for line in lines if measure in line["measures"]]
    return "-" if not values or any(math.isnan(value) for value in values) else median(values)


def _mean(measured: Measured) -> float:
    return float(measured["mean"])


def _kl(measured: Measured) -> float:
    found = measured.get("kl")
    return math.nan if found is None else float(found["mean"])


def _kl_completion(measured: Measured) -> float:
    """Results of before it was measured have the tokens of a completion a problem."""
    found = measured.get("kl")
    if found is None:
        return math.nan
    each = (
        found["per_completion"] if "per_completion" in found else found["mean"] * found["tokens"] / measured["problems"]
    )
    return float(each)


DRIFTS: Mapping[str, Figure] = {"a token": _kl, "a completion": _kl_completion}
"""The KL of a measurement on the test split, by its unit."""
