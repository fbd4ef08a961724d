"""What an experiment's page is called, and the answer to the question that the experiment asks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.experiments.about import KEY, read_about
from fastslow.experiments.asymptote import fit_asymptote
from fastslow.measuring.statistics import Spent, accuracy, summarise
from fastslow.report import finding
from fastslow.report.data import Finding
from fastslow.report.finding import Arm
from fastslow.runs.reader import evaluation_of

Part = Mapping[str, Any]
Group = tuple[tuple[str, str], ...]

TITLES = {
    "compare": "Methods compared",
    "asymptote": "Where the learning curves would end",
    "drift": "Drift from the base",
    "decompose": "What is in the weights, and what in the prompt",
    "continual": "One uninterrupted stream of tasks",
    "distill": "Distilling the prompt into the weights",
}
UNNAMED = "results"
"""The stem of a results file whose name says nothing."""


def studies_of(parts: Sequence[Part]) -> dict[str, dict[str, str]]:
    """The experiments that wrote a results file: name, and what it was told; {} where they are not on record."""
    return read_about(Path(parts[0]["path"]).parent) if parts else {}


def panel_title(stem: str, labels: Mapping[str, str], studies: Mapping[str, Mapping[str, str]]) -> str:
    """What a panel is about: its key, its task, or the question of its experiment."""
    if "key" in labels:
        return f"Ablation of {labels['key']}"
    if "after" in labels:
        return "Plain RL on a second task, from different starts"
    if stem != UNNAMED:
        of = " and ".join(name for name in labels if name not in ("task", "key"))
        return f"{stem} · {labels['task']}" if labels.get("task") else f"{stem} · by {of}"
    names = [TITLES[name] for name in studies if name in TITLES] or [TITLES["compare"]]
    tasks = dict.fromkeys(told["task"] for told in studies.values() if told.get("task"))
    on = labels.get("task") or ", ".join(tasks)
    return " · ".join([*names, *([on] if on else [])])


def about(studies: Mapping[str, Mapping[str, str]]) -> str:
    """The model and the task that an experiment ran on, where they are on record."""
    told = next(iter(studies.values()), {})
    return ", ".join(f"{what} {told[what]}" for what in ("model", "task") if told.get(what))


def answer(
    groups: Mapping[Group, Sequence[Part]], arms: Sequence[Arm], studies: Mapping[str, Mapping[str, str]]
) -> Finding:
    """The finding of a panel, by what its runs differ in and what the experiment asks."""
    labels = [dict(group) for group in groups]
    key = next((part["labels"].get(KEY) for parts in groups.values() for part in parts if KEY in part["labels"]), None)
    if key is not None and len({each.get("method") for each in labels}) == 1:
        return finding.of_ablation(arms)
    if any("after" in each for each in labels):
        return finding.of_starts(arms)
    found = finding.of_arms(arms)
    others = [maker(groups, arms) for name, maker in ANSWERS.items() if name in studies]
    if not others:
        return found
    first, *more = others if "compare" not in studies else [found, *others]
    rest = [found] if "compare" not in studies and "drift" not in studies else []
    return {"title": first["title"], "notes": [*first["notes"], *(f"{each['title']}." for each in [*more, *rest])]}


def spent_of(part: Part) -> Spent:
    """What a part sampled, and its evaluations."""
    points = [point for point in part["curve"] if evaluation_of(point).accuracy is not None]
    return Spent(part["totals"]["sampled"], [(p["rollouts"], p["step"], accuracy(p)) for p in points])


def _drift(groups: Mapping[Group, Sequence[Part]], arms: Sequence[Arm]) -> Finding:
    return finding.of_drift(arms)


def _decomposed(groups: Mapping[Group, Sequence[Part]], arms: Sequence[Arm]) -> Finding:
    parts = next(iter(groups.values()))
    names = dict.fromkeys(name for part in parts for name in part.get("measures", {}))
    measured = {name: [part["measures"][name]["mean"] for part in parts if name in part["measures"]] for name in names}
    return finding.of_parts({name: summarise(values).median for name, values in measured.items()})


def _asymptotes(groups: Mapping[Group, Sequence[Part]], arms: Sequence[Arm]) -> Finding:
    texts = []
    for arm, parts in zip(arms, groups.values(), strict=True):
        try:
            texts.append(f"{arm.name} {fit_asymptote([part['curve'] for part in parts]).text()}")
        except ValueError as error:
            texts.append(f"{arm.name} none: {error}")
    return {"title": f"The curves lead to: {'; '.join(texts)}", "notes": []}


ANSWERS = {"drift": _drift, "decompose": _decomposed, "asymptote": _asymptotes}
"""What each of these experiments asks; the others ask which series got further."""
