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
from fastslow.methods.registry import title
from fastslow.report.data import Headline, PageData, Panel, Point, RunData, Series
from fastslow.report.experiments import panels, read_experiment
from fastslow.report.redact import redact_text, visible
from fastslow.report.runs import BY_KIND, read_run
from fastslow.runs.files import is_run
from fastslow.runs.reader import Run
from fastslow.text import printable, shortened

MOST_PARTS = 24
"""Runs of an experiment whose prompts, samples and configs are shown, where they lie beside its results."""


def collect(arguments: Sequence[Path]) -> PageData:
    """Runs and experiments as the page shows them, whole: `thin.fit` makes them small enough.

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
            runs.append(read_run(path, name))
            notes += [f"{name}: {lost}." for lost in Run(path).losses]
            continue
        parts = read_experiment(path) if path.exists() else []
        if not parts:
            raise _neither(path)
        found += panels(parts, name if len(arguments) > 1 else "")
        beside = path if path.is_dir() else path.parent
        there = list(dict.fromkeys(part["part"] for part in parts if is_run(beside / part["part"])))
        runs += [{**read_run(beside / part, part), "part": True} for part in there[:MOST_PARTS]]
        if len(there) > MOST_PARTS:
            notes.append(
                f"Prompts, completions and configs of the first {MOST_PARTS} of {len(there)} runs of {name} are shown: "
                "name a run to see its own."
            )
    data = {
        "version": _version(),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "title": ", ".join(names),
        "runs": [{"id": f"r{index}", **run} for index, run in enumerate(runs)],
        "panels": [*_runs_panel(runs), *found],
        "notes": notes,
        "ends": dict(ENDS),
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
    head = [
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
    panel: Panel = {
        "title": "this run" if len(named) == 1 else "the runs",
        "kind": "runs",
        "note": "Accuracy is mean@k on validation problems under the best prompt of that moment. Its 95 % interval is over "
        "problems (Clopper and Pearson, with each problem counted once, so rather too wide than too narrow), not over seeds. "
        "Seconds are training seconds without evaluations.",
        "series": series,
        "table": {"head": head, "rows": [_row(runs[each["run"]], each["headline"]) for each in series]},
        "measures": None,
        "best_prompts": [],
        "settings": [],
    }
    return [panel]


def headline(run: RunData) -> Headline:
    """Accuracy before and at the end, with intervals, and in words whether it worked."""
    points = [point for point in run["evaluations"] if "accuracy" in point]
    before = points[0] if points and points[0]["step"] == 0 else None
    after = points[-1] if points and points[-1]["step"] > 0 else None
    intervals = {}
    if run["problems"]:
        intervals = {
            point["step"]: share_interval(point["accuracy"], run["problems"]) for point in (before, after) if point
        }
    measured = next((point for point in reversed(run["evaluations"]) if "kl" in point), None)
    found: Headline = {
        "before": before["accuracy"] if before else None,
        "before_interval": intervals.get(0),
        "after": after["accuracy"] if after else None,
        "after_step": after["step"] if after else None,
        "interval": intervals.get(after["step"]) if after else None,
        "interval_note": f"95 % interval over {run['problems']} validation problems" if run["problems"] else None,
        "kl": measured["kl"] if measured else None,
        "verdict": _verdict(run, before, after, intervals) + _by_kind(after),
    }
    return {**found, "kl_name": measured["kl_name"]} if measured else found


def _verdict(
    run: RunData, before: Point | None, after: Point | None, intervals: Mapping[int, tuple[float, float]]
) -> str:
    if after is None:
        rewards = [reward for reward in run["training"]["reward"] if reward is not None]
        trend = f" Mean training reward went from {rewards[0]:.3f} to {rewards[-1]:.3f}." if rewards else ""
        return ("No evaluation after the start: whether it worked is not measured." + trend).strip()
    if before is None or not intervals:
        return f"Accuracy was {after['accuracy']:.3f} at step {after['step']}; nothing to compare it with was measured."
    if before["accuracy"] == after["accuracy"]:
        return f"No change: validation accuracy is {after['accuracy']:.3f} at the end, as it was before."
    change = f"from {before['accuracy']:.3f} to {after['accuracy']:.3f}"
    if intervals[after["step"]][0] > intervals[0][1]:
        return f"It worked: validation accuracy rose {change}, more than the choice of problems explains."
    if intervals[after["step"]][1] < intervals[0][0]:
        return f"It got worse: validation accuracy fell {change}, more than the choice of problems explains."
    return f"No clear change: validation accuracy went {change}, and the 95 % intervals overlap."


def _by_kind(after: Point | None) -> str:
    """Where problems are of several kinds, what the population is worth together: no single prompt need serve all of them."""
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
        "a run is a directory with a config.yaml in it, as `fastslow train` makes it; an experiment is a results file (.jsonl) "
        "of fastslow.experiments.runner, or a directory with such files"
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
