"""What the arguments of `fastslow report` name, as one tree of plain data: everything on the page comes from it."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from fastslow.errors import ConfigError, FastslowError
from fastslow.fast.transcript import ENDS
from fastslow.measuring.intervals import share_interval
from fastslow.measuring.statistics import END, Spent, at_the_end
from fastslow.methods.registry import colours, title, titles
from fastslow.redact import redact_text, visible
from fastslow.report import finding
from fastslow.report.data import Finding, Headline, PageData, Panel, Point, RunData, Series
from fastslow.report.experiments import panels, read_experiment
from fastslow.report.finding import Arm
from fastslow.report.marks import give_colours, rollouts_axis
from fastslow.report.runs import BY_KIND, PLACES, read_run
from fastslow.runs.files import is_run
from fastslow.runs.metrics import REWARD_MEAN, find
from fastslow.runs.reader import Run
from fastslow.text import printable, shortened

MOST_PARTS = 24
"""Runs of an experiment whose prompts, samples and configs are shown, where they lie beside its results."""


def collect(arguments: Sequence[Path]) -> PageData:
    """Runs and experiments as the page shows them: `thin.fit` makes them small enough.

    Raises: ConfigError for a path that is neither, or whose files are broken.
    """
    try:
        return _collect(arguments)
    # A directory may be anybody's, and hold values of any type and size where a run has others.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, FastslowError):
            raise
        raise ConfigError(
            f"{', '.join(printable(str(path)) for path in arguments)}: holds files that are not those of a run: "
            f"{type(error).__name__}: {printable(shortened(str(error), 200))}"
        ) from error


def _collect(arguments: Sequence[Path]) -> PageData:
    runs: list[RunData] = []
    found: list[Panel] = []
    notes: list[str] = []
    names = short_names(arguments)
    for path, name in zip(arguments, names, strict=True):
        if is_run(path):
            run = Run(path)
            runs.append(read_run(run, name))
            notes += [f"{name}: {lost}." for lost in run.losses]
            continue
        parts = read_experiment(path) if path.exists() else []
        if not parts:
            raise _neither(path)
        found += panels(parts, name if len(arguments) > 1 else "")
        beside = path if path.is_dir() else path.parent
        there = list(dict.fromkeys(part["part"] for part in parts if is_run(beside / part["part"])))
        runs += [{**read_run(Run(beside / part), part), "part": True} for part in there[:MOST_PARTS]]
        if len(there) > MOST_PARTS:
            notes.append(
                f"Prompts, completions and configs of the first {MOST_PARTS} of {len(there)} runs of {name} are shown: "
                "name a run to see its own."
            )
    data = {
        "version": _version(),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "title": _page_title(names, runs, found),
        "runs": [{"id": f"r{index}", **run} for index, run in enumerate(runs)],
        "panels": [*_runs_panel(runs), *found],
        "notes": notes,
        "ends": dict(ENDS),
        "metrics": _meanings(runs),
        "methods": {name: (text, colours()[name]) for name, text in titles().items()},
    }
    return cast(PageData, _clean(data))


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parents as it takes to tell them apart."""
    whole = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, whole), default=1) + 1):
        names = ["/".join(parts[-length:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _page_title(names: Sequence[str], runs: Sequence[RunData], found: Sequence[Panel]) -> str:
    """What the browser's tab says: the runs by name, an experiment by what it is about."""
    own = [run["name"] for run in runs if not run.get("part")]
    return ", ".join([*own, *dict.fromkeys(panel["title"] for panel in found)][:4] or names)


def _meanings(runs: Sequence[RunData]) -> dict[str, tuple[str, str]]:
    """Unit and meaning of every metric that a run has; one of another version has neither."""
    names = dict.fromkeys(name for run in runs for name in run["training"])
    told = {name: find(name) for name in names if name not in ("step", *PLACES)}
    return {name: (known.metric.unit, known.metric.meaning) if known else ("", "") for name, known in told.items()}


# -- runs --------------------------------------------------------------------------------------------------------------


def _runs_panel(runs: Sequence[RunData]) -> list[Panel]:
    """The runs that were named themselves, and what came out of each; a series takes its curves from `runs[run]`."""
    named = {index: run for index, run in enumerate(runs) if not run.get("part")}
    if not named:
        return []
    series: list[Series] = [
        {
            "name": run["name"],
            "method": run["method"],
            "count": 1,
            "run": index,
            "totals": run["totals"],
            "headline": headline(run),
        }
        for index, run in named.items()
    ]
    give_colours(series)
    spent = [run_spent(run) for run in named.values()]
    panel: Panel = {
        "title": "this run" if len(named) == 1 else "the runs",
        "kind": "runs",
        "note": f"Accuracy is mean@k on validation problems under the best prompt of that moment. {finding.end_note()} "
        "Its 95 % interval is over problems (Clopper and Pearson, with each problem counted once, so rather too wide "
        "than too narrow), not over seeds. Seconds are training seconds without evaluations.",
        "about": "",
        "finding": _finding(list(named.values()), series, spent),
        "axis": rollouts_axis([each.sampled for each in spent]),
        "series": series,
        "table": {"head": HEAD, "rows": [_row(runs[each["run"]], each["headline"]) for each in series]},
        "measures": None,
        "best_prompts": [],
        "settings": [],
    }
    return [panel]


HEAD = [
    "run",
    "task",
    "method",
    "seed",
    "accuracy before",
    "accuracy at the end",
    "KL at the end (nats a token)",
    "steps",
    "sampled rollouts",
    "training (s)",
]


def _finding(runs: Sequence[RunData], series: Sequence[Series], spent: Sequence[Spent]) -> Finding:
    if len(runs) == 1:
        return finding.of_run(runs[0], series[0]["headline"])
    methods = [run["method"] for run in runs]
    apart = len(set(methods)) == len(methods)
    names = [title(run["method"]) if apart else run["name"] for run in runs]
    rows = zip(names, series, spent, runs, strict=True)
    return finding.of_arms([Arm.of(name, each["headline"], [of], run["evaluations"]) for name, each, of, run in rows])


def run_spent(run: RunData) -> Spent:
    """What a run sampled, and its evaluations."""
    points = [point for point in run["evaluations"] if "accuracy" in point]
    return Spent(run["totals"]["sampled"] or 0, [(p["rollouts"], p["step"], p["accuracy"]) for p in points])


def headline(run: RunData) -> Headline:
    """Accuracy before and at the end, with intervals, and in words whether it worked."""
    points = [point for point in run["evaluations"] if "accuracy" in point]
    before = points[0] if points and points[0]["step"] == 0 else None
    last = points[-1] if points and points[-1]["step"] > 0 else None
    after = at_the_end([(point["step"], point["accuracy"]) for point in points])
    counted = run["problems"]
    start = share_interval(before["accuracy"], counted) if before and counted else None
    end = share_interval(after, counted) if after is not None and counted else None
    measured = next((point for point in reversed(run["evaluations"]) if "kl" in point), None)
    used = min(END, sum(point["step"] > 0 for point in points))
    of_last = "the last evaluation" if used == 1 else f"the mean of the last {used} evaluations"
    found: Headline = {
        "before": before["accuracy"] if before else None,
        "before_interval": start,
        "after": after,
        "after_step": last["step"] if last else None,
        "interval": end,
        "interval_note": f"{of_last}; 95 % interval over {counted} validation problems" if counted and used else None,
        "kl": measured["kl"] if measured else None,
        "kl_completion": measured.get("kl_completion") if measured else None,
        "verdict": _verdict(run, _accuracy(before), after, (start, end)) + _by_kind(last),
    }
    return {**found, "kl_name": measured["kl_name"]} if measured else found


def _accuracy(point: Point | None) -> float | None:
    """The accuracy before the first step."""
    return None if point is None else point["accuracy"]


def _verdict(
    run: RunData,
    before: float | None,
    after: float | None,
    intervals: tuple[tuple[float, float] | None, tuple[float, float] | None],
) -> str:
    if after is None:
        rewards = [reward for reward in run["training"].get(REWARD_MEAN.name, []) if reward is not None]
        trend = f" Mean training reward went from {rewards[0]:.3f} to {rewards[-1]:.3f}." if rewards else ""
        return ("No evaluation after the start: whether it worked is not measured." + trend).strip()
    start, end = intervals
    if before is None or start is None or end is None:
        return f"Accuracy is {after:.3f} at the end; nothing to compare it with was measured."
    if before == after:
        return "No change: validation accuracy at the end is what it was before."
    if end[0] > start[1]:
        return "It worked: the rise is more than the choice of validation problems explains."
    if end[1] < start[0]:
        return "It got worse: the fall is more than the choice of validation problems explains."
    return "No clear change: the 95 % intervals before and at the end overlap."


def _by_kind(after: Point | None) -> str:
    """Where problems are of several kinds, what the population is worth together:
    no single prompt need serve all of them.
    """
    value = after["tasks"].get(BY_KIND) if after and after.get("tasks") else None
    return "" if value is None else f" With {BY_KIND} it is {value:.3f}."


def _row(run: RunData, found: Headline) -> list[str]:
    totals = run["totals"]
    return [
        run["name"],
        run["task"],
        title(run["method"]),
        _number(run["seed"], 0),
        _with(found["before"], found["before_interval"]),
        _with(found["after"], found["interval"]),
        _kl(found),
        _number(totals["steps"], 0),
        _number(totals["sampled"], 0),
        _number(totals["seconds"], 1),
    ]


def _kl(found: Headline) -> str:
    estimated = found["kl"] is not None and found["kl_name"] != "KL"
    return _number(found["kl"], 3) + (" (estimate)" if estimated else "")


def _with(value: float | None, interval: tuple[float, float] | None) -> str:
    return _number(value, 3) + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval and value is not None else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


# -- inside ------------------------------------------------------------------------------------------------------------


def _neither(path: Path) -> ConfigError:
    name = repr(printable(str(path)))
    expected = (
        "a run is a directory with a config.yaml in it, as `fastslow train` makes it; an experiment is a results file "
        "(.jsonl) of fastslow.experiments.runner, or a directory with such files"
    )
    if not path.exists():
        return ConfigError(f"{name} does not exist: {expected}")
    inside = sorted(each.name for each in path.iterdir() if is_run(each)) if path.is_dir() else []
    if inside:
        return ConfigError(
            f"{name} is no run, but holds {len(inside)}: name them, e.g. {printable(str(path / inside[0]))}"
        )
    return ConfigError(f"{name} is neither a run nor an experiment: {expected}")


def _clean(value: object) -> object:
    """No key, no control character, no NaN in any text or number of the page."""
    if isinstance(value, str):
        return visible(redact_text(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {visible(redact_text(str(key))): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value if value is None or isinstance(value, int) else str(value)


def _version() -> str | None:
    try:
        return version("fastslow")
    except PackageNotFoundError:
        return None
