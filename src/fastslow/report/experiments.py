"""Results of `fastslow.experiments.runner` as data for the page: runs whose labels differ in the seed are a group."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fastslow.experiments.runner import FAILURES
from fastslow.measuring.intervals import median_note
from fastslow.measuring.statistics import Reached, Summary, final_accuracy, reached, summarise
from fastslow.methods.registry import title as title_of
from fastslow.methods.registry import titles
from fastslow.redact import redact_config
from fastslow.report.data import Panel, Point, Series, Shown, Table
from fastslow.report.finding import Arm, end_note
from fastslow.report.marks import give_colours, rollouts_axis
from fastslow.report.runs import shown
from fastslow.report.studies import Group, Part, about, answer, panel_title, spent_of, studies_of
from fastslow.runs.files import read_lines
from fastslow.runs.reader import KEPT_TOTALS, evaluation_of, kl_mark

SHARE = 0.95
"""Of the best group's accuracy at the end: the level whose cost is compared."""

STARTS = "from different starts"
"""How the title ends of the panel that an experiment over two phases is about."""


def read_experiment(path: Path) -> list[Part]:
    """The parts of a results file, or of all results files in a directory; [] where it is neither. Of a part that
    stands there twice, the last line counts.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.jsonl"))
    parts: dict[tuple[Path, str], Part] = {}
    for file in files:
        if file.suffix == ".jsonl" and file.name != FAILURES:
            lines = read_lines(file)
            if all(isinstance(line, dict) and {"part", "curve", "totals"} <= line.keys() for line in lines):
                parts |= {(file, line["part"]): {**line, "file": file.stem, "path": str(file)} for line in lines}
    return list(parts.values())


def panels(parts: Sequence[Part], title: str) -> list[Panel]:
    """One panel for each results file and task (or kind of labels): its groups' curves and its tables. What an
    experiment asks comes before what it had to run on the way.
    """
    found: dict[tuple[str, str], dict[Group, list[Part]]] = {}
    for part in parts:
        place, group = _place(part)
        found.setdefault(place, {}).setdefault(group, []).append(part)
    made = [_panel(title, groups) for groups in found.values()]
    asked = "plasticity" in studies_of(parts)
    return sorted(made, key=lambda panel: not panel["title"].endswith(STARTS)) if asked else made


def _place(part: Part) -> tuple[tuple[str, str], Group]:
    """Which panel a part belongs to, and its group in it."""
    labels = {str(key): str(value) for key, value in part.get("labels", {}).items() if key != "seed"}
    if not labels:
        return (part["path"], ""), (("part", part["part"]),)
    for name in ("task", "key"):
        if name in labels:
            return (part["path"], f"{name} {labels.pop(name)}"), tuple(labels.items())
    return (part["path"], " and ".join(labels)), tuple(labels.items())


def _panel(title: str, groups: Mapping[Group, Sequence[Part]]) -> Panel:
    order = list(titles())
    rank = {labels: order.index(method) if (method := dict(labels).get("method")) in order else 99 for labels in groups}
    groups = {labels: groups[labels] for labels in sorted(groups, key=rank.__getitem__)}
    names = _names(groups)
    series = [_series(labels, parts, names[labels]) for labels, parts in groups.items()]
    finals = {labels: _finals(parts) for labels, parts in groups.items()}
    level = _level(finals)
    give_colours(series)
    first = next(iter(groups.values()))[0]
    studies = studies_of([first])
    named = {str(name): str(value) for name, value in first.get("labels", {}).items() if name != "seed"}
    spent = {labels: [spent_of(part) for part in parts] for labels, parts in groups.items()}
    arms = [
        Arm.of(each["name"], each["headline"], spent[labels], each["evaluations"])
        for labels, each in zip(groups, series, strict=True)
    ]
    return {
        "title": " · ".join(filter(None, (title, panel_title(first["file"], named, studies)))),
        "kind": "experiment",
        "about": about(studies),
        "finding": answer(groups, arms, studies),
        "axis": rollouts_axis([each["totals"].get("sampled") for each in series]),
        "note": f"Medians over seeds. {median_note(len(parts) for parts in groups.values())} Bands in charts go from "
        f"the lowest to the highest seed. {end_note()} The level is {SHARE:.0%} of the best group's. Seconds are "
        "training seconds without evaluations.",
        "series": series,
        "table": _table(groups, finals, level, names),
        "measures": _measures(groups, names),
        "best_prompts": [
            {"part": part["part"], "text": part["prompt"], "group": each["name"]}
            for each, parts in zip(series, groups.values(), strict=True)
            for part in parts
            if part.get("prompt")
        ],
        "settings": [
            {"part": part["part"], "settings": redact_config(part.get("settings", {}))}
            for parts in groups.values()
            for part in parts
        ],
    }


def _name(labels: Group, key: str = "") -> str:
    """What a group is called: its method, its start, or its value of the key that an ablation varies."""
    told = dict(labels)
    if "after" in told:
        return "from the base" if told["after"] == "base" else f"from {title_of(told['after'])}'s weights"
    texts = [
        (name, title_of(value) if name == "method" else f"{key} = {value}" if key and name == "value" else value)
        for name, value in labels
    ]
    return ", ".join(
        text if len(labels) == 1 or name in ("method", "value") else f"{name} {text}" for name, text in texts
    )


def _names(groups: Mapping[Group, Sequence[Part]]) -> dict[Group, str]:
    """What the groups of a panel are called. Where all of them have one method, an ablation does not repeat it."""
    methods = {dict(labels).get("method") for labels in groups}
    key = str(next(iter(groups.values()))[0].get("labels", {}).get("key", ""))
    names = {}
    for labels in groups:
        short = tuple(each for each in labels if each[0] != "method") if key and len(methods) == 1 else labels
        names[labels] = _name(short, key)
    return names


# -- curves ------------------------------------------------------------------------------------------------------------


def _series(labels: Group, parts: Sequence[Part], name: str) -> Series:
    """Medians over the parts of the evaluations that have the same place in every part, as in the lab's plots."""
    rows = [[_point(point) for point in part["curve"]] for part in parts]
    length = min(map(len, rows))
    finals = summarise(_finals(parts))
    last = [row[-1] for row in rows if row]
    return {
        "name": name,
        "method": dict(labels).get("method")
        or (dict(labels).get("after") if dict(labels).get("after") in titles() else None),
        "count": len(parts),
        "evaluations": [_median_point([row[index] for row in rows]) for index in range(length)],
        "totals": {name: _median([part["totals"].get(name) for part in parts]) for name in KEPT_TOTALS},
        "headline": {
            "before": _median([row[0].get("accuracy") for row in rows if row and row[0]["step"] == 0]),
            "after": None if finals.count == 0 else finals.median,
            "interval": (finals.low, finals.high) if finals.count >= 3 and not finals.alike else None,
            "kl": _median([point.get("kl") for point in last]),
            "kl_completion": _median([point.get("kl_completion") for point in last]),
            "interval_note": _interval_note(finals, len(parts)),
            "verdict": None,
        },
    }


def _interval_note(finals: Summary, count: int) -> str:
    if finals.alike:
        return f"all {finals.count} seeds gave the same: that has no interval"
    if finals.count >= 3:
        return f"median of {finals.count} seeds, with an interval that covers {100 * finals.coverage:.3g} %"
    return f"{count} {'seed' if count == 1 else 'seeds'}: too few for an interval"


def _evaluation(point: Mapping[str, object]) -> Shown:
    return shown(evaluation_of(point))


def _point(point: Mapping[str, Any]) -> Point:
    at = {name: point[name] for name in ("step", "rollouts", "seconds")}
    return cast(Point, {**at, **_evaluation(point)})


WITH_BANDS = ("accuracy", "best", "kl", "kl_completion")


def _median_point(points: Sequence[Point]) -> Point:
    merged: dict[str, object] = {}
    for name in ("step", "rollouts", "seconds", *WITH_BANDS):
        values = [value for point in points if (value := cast(float | None, point.get(name))) is not None]
        if len(values) == len(points):
            merged[name] = _median(values)
            if name in WITH_BANDS and len(values) > 1:
                merged[f"{name}_low"], merged[f"{name}_high"] = min(values), max(values)
    tasks = [point["tasks"] for point in points if point.get("tasks")]
    if "kl" in merged:
        merged["kl_name"] = max((point["kl_name"] for point in points), key=len)
    if tasks and len(tasks) == len(points):
        merged["tasks"] = {task: _median([each[task] for each in tasks if task in each]) for task in tasks[0]}
    return cast(Point, merged)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return summarise(known).median if known else None


# -- tables ------------------------------------------------------------------------------------------------------------


def _finals(parts: Sequence[Part]) -> list[float]:
    return [final_accuracy(part["curve"]) for part in parts if _measured(part)]


def _measured(part: Part) -> bool:
    """Whether a part has accuracies at all: a broken scorer, or a task without validation problems, leaves none."""
    return bool(part["curve"]) and all("accuracy" in _evaluation(point) for point in part["curve"])


def _level(finals: Mapping[Group, Sequence[float]]) -> float | None:
    """As in the lab's tables: prompt search alone does not set the bar where weights were trained too."""
    medians = {labels: summarise(values).median for labels, values in finals.items() if values}
    trained = {labels: value for labels, value in medians.items() if ("method", "prompt") not in labels}
    return SHARE * max((trained or medians).values()) if medians else None


def _table(
    groups: Mapping[Group, Sequence[Part]],
    finals: Mapping[Group, Sequence[float]],
    level: float | None,
    names: Mapping[Group, str],
) -> Table:
    name = "the level" if level is None else f"{level:.2f}"
    rows = []
    for labels, parts in groups.items():
        at = [reached(part["curve"], level) if level is not None and _measured(part) else None for part in parts]
        kl = [_evaluation(part["curve"][-1]).get("kl") for part in parts if part["curve"]]
        rows.append(
            [
                names[labels],
                str(len(parts)),
                summarise(finals[labels]).text(3),
                _reach(at, lambda p: p.step, 0),
                _reach(at, lambda p: p.rollouts, 0),
                _reach(at, lambda p: p.seconds, 1),
                summarise([value for value in kl if value is not None]).text(3)
                + kl_mark(evaluation_of(part["curve"][-1]) for part in parts if part["curve"]),
                summarise([part["totals"]["sampled"] for part in parts]).text(0),
                summarise([part["totals"]["seconds"] for part in parts]).text(1),
            ]
        )
    head = [
        "group",
        "seeds",
        "accuracy at the end",
        f"steps to {name}",
        f"rollouts to {name}",
        f"seconds to {name}",
        "KL at the end (nats a token)",
        "sampled rollouts",
        "training (s)",
    ]
    return {"head": head, "rows": rows}


def _reach(points: Sequence[Reached | None], value: Callable[[Reached], float], digits: int) -> str:
    never = sum(point is None for point in points)
    if never == len(points):
        return "never"
    text = summarise([None if point is None else value(point) for point in points]).text(digits).replace("inf", "never")
    return f"{text}, {never} never" if never else text


def _measures(groups: Mapping[Group, Sequence[Part]], names_of: Mapping[Group, str]) -> Table | None:
    """Accuracy on the test split under each measurement that the experiment made of its parts."""
    names = list(
        dict.fromkeys(name for parts in groups.values() for part in parts for name in part.get("measures", {}))
    )
    if not names:
        return None
    rows = []
    for labels, parts in groups.items():
        found = [[part["measures"][name] for part in parts if name in part.get("measures", {})] for name in names]
        rows.append([names_of[labels], *(_measure_text(each) for each in found)])
    return {"head": ["group", *names], "rows": rows}


def _measure_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of one seed, the interval over problems; of several, that over seeds."""
    if len(rows) == 1 and rows[0].get("mean_interval"):
        low, high = rows[0]["mean_interval"]
        return f"{rows[0]['mean']:.3f} ({low:.3f} to {high:.3f})"
    return summarise([row["mean"] for row in rows]).text(3)
