"""The results of each experiment of the paper, as sections of a Markdown report with a plot. For any model and task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fastslow.experiments.asymptote import fit_asymptote
from fastslow.experiments.plots import ACCURACY, KL, ROLLOUTS, SECONDS, STEPS, draw
from fastslow.experiments.records import Line
from fastslow.experiments.tables import (
    NAMES,
    ByMethod,
    Lines,
    budget_note,
    curves,
    measured,
    median,
    moves_weights,
    ratios,
    reach,
    reaching,
    select,
    spent_by,
)
from fastslow.measuring.statistics import (
    CHOSEN_BY,
    Curve,
    Point,
    Reached,
    accuracy,
    area,
    at_the_end,
    chosen_rate,
    final_accuracy,
    kl,
    reached,
    summarise,
)
from fastslow.runs.reader import evaluation_of, kl_name
from fastslow.text import markdown_table

SHARE = 0.95
"""Of the better method's final accuracy: the level that the methods are timed to."""

Extra = Mapping[str, Callable[[Line], float]]


def level_of(methods: ByMethod) -> float:
    """The accuracy that methods are timed to: a share of the best median at the end, of those that move weights."""
    finals = [
        summarise([final_accuracy(run["curve"]) for run in runs]).median
        for method, runs in methods.items()
        if moves_weights(method) or len(methods) == 1
    ]
    return SHARE * max(finals)


def comparison(methods: ByMethod, title: str, picture: Path, extra: Extra | None = None) -> list[str]:
    """Final accuracy; the fitted asymptote; steps, rollouts, seconds and KL to one level. `extra`: further columns."""
    level = level_of(methods)
    draw(
        {NAMES[method]: curves(runs) for method, runs in methods.items()},
        [(ROLLOUTS, ACCURACY), (SECONDS, ACCURACY), (STEPS, ACCURACY), (ACCURACY, KL)],
        title,
        picture,
    )
    return [
        *_ends(methods, extra or {}),
        *_budgets(methods),
        f"{level:.2f} is {SHARE:.0%} of the better method's final accuracy.",
        "",
        *_to_level(methods, level),
        *ratios(methods, level),
        *_to_own_level_of_rl(methods, level),
        *costs(methods),
        f"![{title}]({picture.name})",
        "",
    ]


def _ends(methods: ByMethod, extra: Extra) -> list[str]:
    """Where whole runs ended, and where their curves lead."""
    ends = [
        [
            NAMES[method],
            str(len(runs)),
            median(final_accuracy(run["curve"]) for run in runs),
            median(_last_kl(run) for run in runs),
            *(median(value(run) for run in runs) for value in extra.values()),
        ]
        for method, runs in methods.items()
    ]
    asymptotes = [
        [NAMES[method], fit_asymptote(curves(runs)).text()] for method, runs in methods.items() if moves_weights(method)
    ]
    kl_named = _kl_name(run for runs in methods.values() for run in runs)
    return [
        *markdown_table(["method", "seeds", "accuracy at the end", f"{kl_named} at the end", *extra], ends),
        *(markdown_table(["method", "asymptote A"], asymptotes) if asymptotes else []),
    ]


def _budgets(methods: ByMethod) -> list[str]:
    note = budget_note({NAMES[method]: spent_by(runs) for method, runs in methods.items()})
    return [note, ""] if note else []


def _to_level(methods: ByMethod, level: float) -> list[str]:
    """What each method needed to get to an accuracy."""
    kl_named = _kl_name(run for runs in methods.values() for run in runs)
    at = {method: [reached(run["curve"], level) for run in runs] for method, runs in methods.items()}
    header = [f"to {level:.2f}", "seeds that reach it", "steps", "rollouts", "seconds", f"{kl_named} there"]
    return markdown_table(header, [[NAMES[method], reaching(at[method]), *_needs(at[method])] for method in methods])


def _needs(at: Sequence[Reached | None]) -> list[str]:
    """Cells: steps, rollouts, seconds and KL where an accuracy was first reached."""
    return [
        reach(at, lambda p: p.step, 0),
        reach(at, lambda p: p.rollouts, 0),
        reach(at, lambda p: p.seconds, 1),
        reach(at, lambda p: p.kl, 3),
    ]


def _to_own_level_of_rl(methods: ByMethod, level: float) -> list[str]:
    """The same to what RL alone reaches, where that is lower. The paper times to RL's peak."""
    if not {"fst", "rl"} <= set(methods):
        return []
    own = level_of({"rl": methods["rl"]})
    if own <= 0.0 or round(own, 2) >= round(level, 2):
        return []
    return [f"{own:.2f} is {SHARE:.0%} of RL alone's own final accuracy. {ratios(methods, own)[0]}", ""]


def costs(methods: ByMethod) -> list[str]:
    """Where the rollouts and the seconds of whole runs went."""
    rollouts = [
        [
            NAMES[method],
            median((run["totals"]["sampled"] - _searched(run) for run in runs), 0),
            median((_searched(run) for run in runs), 0),
            median((run["totals"]["reused"] for run in runs), 0),
        ]
        for method, runs in methods.items()
    ]
    names = {"evolve_s": "prompt search", "sample_s": "sampling", "update_s": "update", "seconds": "all"}
    seconds = [
        [NAMES[method], *(median((run["totals"][name] for run in runs), 1) for name in names)]
        for method, runs in methods.items()
    ]
    return [
        *markdown_table(["rollouts of whole runs", "RL", "search", "reused"], rollouts),
        *markdown_table(["seconds of whole runs", *names.values()], seconds),
    ]


def drift(methods: ByMethod, picture: Path) -> list[str]:
    """KL to the base where an accuracy was first reached, for levels that every method reached. Source: section 4.3."""
    moving = {method: runs for method, runs in methods.items() if moves_weights(method)}
    rows = []
    for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        at = {method: [reached(run["curve"], level) for run in runs] for method, runs in moving.items()}
        if all(any(points) for points in at.values()):
            rows.append([f"{level:.2f}", *(reach(points, lambda p: p.kl, 3) for points in at.values())])
    rows.append(["the end", *(median(_last_kl(run) for run in runs) for runs in moving.values())])
    series = {NAMES[method]: curves(runs) for method, runs in moving.items()}
    name = _kl_name(run for runs in moving.values() for run in runs)
    draw(series, [(ACCURACY, KL), (STEPS, KL)], "drift from the base", picture)
    return [
        f"{name}(policy, base) under the same context, nats a token, at the first evaluation that reached an accuracy.",
        "",
        *markdown_table(["accuracy", *(NAMES[method] for method in moving)], rows),
        f"![drift]({picture.name})",
        "",
    ]


def plasticity(after: Mapping[str, Lines], second: str, picture: Path) -> list[str]:
    """Plain RL on a second task from several starts; `after` maps what the weights have been through to the runs."""
    rows = [
        [
            name,
            str(len(runs)),
            median(accuracy(run["curve"][0]) for run in runs),
            median(final_accuracy(run["curve"]) for run in runs),
        ]
        for name, runs in after.items()
    ]
    series = {f"from {name}": curves(runs) for name, runs in after.items()}
    draw(series, [(STEPS, ACCURACY)], f"plain RL on {second}", picture)
    header = ["weights from", "seeds", "accuracy before", "accuracy at the end"]
    return [*markdown_table(header, rows), f"![plasticity]({picture.name})", ""]


def stream(methods: ByMethod, phases: Sequence[tuple[str, str]], steps: int, picture: Path) -> list[str]:
    """Accuracy on every task at the end of each phase. A phase is its task's name in the metrics, and for people."""
    tasks = dict(phases)
    best, kept = [], []
    for method, runs in methods.items():
        for number, (_, task) in enumerate(phases, start=1):
            points = [_at(run["curve"], number * steps) for run in runs]
            of_phase = [NAMES[method], str(len(runs)), task]
            best.append([*of_phase, *(_accuracies(points, name) for name in tasks)])
            kept.append([*of_phase, *(_accuracies(points, name, own=True) for name in tasks)])
    panels = [(STEPS, (f"accuracy on {task}", _task_accuracy(name))) for name, task in tasks.items()]
    draw({NAMES[m]: curves(runs) for m, runs in methods.items()}, panels, "one uninterrupted stream", picture)
    return [
        "Accuracy at the end of each phase, on every task, under the best prompt of that moment:",
        "",
        *markdown_table(["method", "seeds", "after", *tasks.values()], best),
        *_of_kept_prompts(["method", "seeds", "after", *tasks.values()], [row for row in kept if {*row[3:]} != {"-"}]),
        f"![stream]({picture.name})",
        "",
    ]


def _of_kept_prompts(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    text = "The same for earlier tasks, under the best prompt that was kept for them:"
    return [text, "", *markdown_table(header, rows)]


def populations(methods: ByMethod, best: str, population: str) -> list[str]:
    """What a population is worth beside its best prompt; `best` and `population` are the measurements of the two."""
    figures = {"best prompt": (best, "mean"), "by kind": (population, "by_kind"), "by problem": (population, "mean")}
    rows = [
        [NAMES[method], *(measured(runs, *figure) for figure in figures.values())] for method, runs in methods.items()
    ]
    return [
        "Test split. Best prompt: all problems under the best single prompt. By kind: each kind of problems under the "
        "member of the population that was best for it in training. By problem: each problem under the member that "
        "serves it best; other completions choose the member than those that count.",
        "",
        *markdown_table(["method", *figures], rows),
    ]


def ablation(lines: Lines, keys: Mapping[str, Sequence[str]], level: float) -> list[str]:
    """One row for every value of every setting: where its runs ended, and what they needed to a level."""
    ends, needs = [], []
    for key, values in keys.items():
        for value in values:
            runs = select(lines, key=key, value=value)
            at = [reached(run["curve"], level) for run in runs]
            if runs:
                accuracies = median(final_accuracy(run["curve"]) for run in runs)
                ends.append([key, value, str(len(runs)), accuracies, median(_last_kl(run) for run in runs)])
                needs.append([key, value, reaching(at), *_needs(at)[1:3]])
    return [
        *markdown_table(["setting", "value", "seeds", "accuracy at the end", f"{_kl_name(lines)} at the end"], ends),
        *markdown_table(["setting", "value", f"seeds that reach {level:.2f}", "rollouts", "seconds"], needs),
    ]


LEVEL, SEED_LEVEL = 0.9, 0.5
"""Accuracies that options beyond the paper are timed to: under the best prompt, and under the seed prompt."""


def under_both_prompts(runs: Mapping[str, Lines]) -> list[str]:
    """Three tables with a row for every label: where its runs ended under their best prompt and the rollouts to a
    level, the same under the seed prompt, and what it cost.
    """
    own, bare, costs = [], [], []
    for label, lines in runs.items():
        last = [evaluation_of(line["curve"][-1]) for line in lines]
        seed = [end for line in lines if (end := _seed_end(line["curve"])) is not None]
        at_level = [reached(line["curve"], LEVEL) for line in lines]
        seed_level = [_seed_rollouts(line["curve"]) for line in lines]
        accuracy = median(final_accuracy(line["curve"]) for line in lines)
        own.append([label, accuracy, median(each.kl for each in last), reach(at_level, lambda p: p.rollouts, 0)])
        bare.append(
            [
                label,
                median(seed) if seed else "-",
                median(each.seed_kl for each in last),
                median(seed_level, 0) if any(seed_level) else "never",
            ]
        )
        costs.append(
            [
                label,
                str(len(lines)),
                median((line["totals"]["sampled"] for line in lines), 0),
                median((_searched(line) for line in lines), 0),
                median((line["totals"]["seconds"] for line in lines), 1),
            ]
        )
    return [
        *markdown_table(["own prompt", "accuracy", "KL", f"rollouts to {LEVEL}"], own),
        *markdown_table(["seed prompt", "accuracy", "KL", f"rollouts to {SEED_LEVEL}"], bare),
        *markdown_table(["cost", "seeds", "rollouts in all", "of the search", "seconds"], costs),
    ]


def _seed_end(curve: Curve) -> float | None:
    """Accuracy at the end under the seed prompt; None where it was not measured."""
    found = [(point["step"], evaluation_of(point).seed_accuracy) for point in curve]
    return at_the_end([(step, accuracy) for step, accuracy in found if accuracy is not None])


def _seed_rollouts(curve: Curve) -> float | None:
    """Rollouts until the seed prompt was first at its level."""
    at = (point["rollouts"] for point in curve if (evaluation_of(point).seed_accuracy or 0.0) >= SEED_LEVEL)
    return next(at, None)


def rates(methods: ByMethod, key: str) -> list[str]:
    """The search over learning rates: each method's mean accuracy over its runs, which it takes, and what it cost."""
    labels = sorted({str(run["labels"]["value"]) for runs in methods.values() for run in runs}, key=float)
    rows, chosen = [], chosen_rates(methods)
    for method, runs in methods.items():
        areas = [[area(run["curve"]) for run in select(runs, value=label)] for label in labels]
        cost = sum(run["totals"]["sampled"] for run in runs), sum(run["totals"]["seconds"] for run in runs)
        cells = [median(values) if values else "-" for values in areas]
        rows.append([NAMES[method], *cells, chosen[method], f"{cost[0]:.0f}", f"{cost[1]:.0f}"])
    flags = " ".join(f"--method-set {method}:{key}={label}" for method, label in chosen.items())
    return [
        f"Mean accuracy over the sampled rollouts of a run. Chosen: {CHOSEN_BY}. The task and the "
        "seeds are not reported.",
        "",
        *markdown_table(["method", *labels, "chosen", "rollouts of the search", "its seconds"], rows),
        f"`{flags}`",
        "",
    ]


def chosen_rates(methods: ByMethod) -> dict[str, str]:
    """Each method's learning rate, by `chosen_rate`, as its runs are labelled."""
    chosen = {}
    for method, runs in methods.items():
        labels = {float(label): label for label in (str(run["labels"]["value"]) for run in runs)}
        areas = {rate: [area(run["curve"]) for run in select(runs, value=label)] for rate, label in labels.items()}
        chosen[method] = labels[chosen_rate(areas)]
    return chosen


def _searched(run: Line) -> int:
    """Rollouts that the prompt search sampled; results of before they were counted have none of reflection."""
    totals = run["totals"]
    return int(totals["sampled_gepa"] + totals.get("sampled_reflection", 0))


def _kl_name(runs: Iterable[Line]) -> str:
    return kl_name(evaluation_of(point) for run in runs for point in run["curve"])


def _last_kl(run: Line) -> float:
    return kl(run["curve"][-1])


def _at(curve: Curve, step: int) -> Point:
    """The evaluation of a step."""
    return next(point for point in curve if point["step"] == step)


def _task_accuracy(task: str) -> Callable[[Point], float]:
    return lambda point: accuracy(point, task)


def _accuracies(points: Sequence[Point], task: str, *, own: bool = False) -> str:
    """Median accuracy on a task, or on it under its own prompt, over the points that have it; a dash where none has."""
    found = [evaluation_of(point) for point in points]
    by_task = [each.own if own else each.tasks for each in found]
    return median([tasks[task] for tasks in by_task if task in tasks], 2)
