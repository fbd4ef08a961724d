"""Tables and plots of `fastslow lab reproduce`, made from the results files alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.experiments.asymptote import fit_asymptote
from fastslow.experiments.plots import ACCURACY, KL, ROLLOUTS, SECONDS, STEPS, draw
from fastslow.experiments.statistics import Reached, Summary, accuracy, area, final_accuracy, reached, summarise
from fastslow.lab import reproduce as plan
from fastslow.lab.tasks import WORLDS
from fastslow.run_dir import write_atomically

NAMES = {"fst": "FST", "rl": "RL alone", "prompt": "GEPA alone"}
SHARE = 0.95

Lines = Sequence[Mapping[str, Any]]

HEAD = """# The lab: results

Written by `fastslow lab reproduce` from the `.jsonl` files beside it. Medians over seeds, with the 95 % interval of the median
(bootstrap over seeds). Accuracy is mean@4 on 64 validation problems at temperature 0.6 unless the test split is named. Sampled
rollouts include the prompt search's. Seconds are training seconds on one core, two runs side by side, evaluations left out.
KL is to the base weights, in nats a token, over the full vocabulary. The model has 1.8 M parameters: nothing here is evidence
about large models.
"""


def write_report(results: Path) -> None:
    """README.md and the plots, of whatever has been run so far."""
    sections = [HEAD]
    for name, section in (("tune", _tune), ("compare", _compare), ("continual", _continual), ("ablate", _ablate)):
        lines = plan.read(results, name)
        if lines:
            sections += section(lines, results)
    write_atomically(results / "README.md", "\n".join(sections).rstrip() + "\n")


# -- tuning ------------------------------------------------------------------------------------------------------------


def _tune(lines: Lines, results: Path) -> list[str]:
    rows = []
    for method in ("fst", "rl"):
        cells = []
        for rate in plan.LEARNING_RATES:
            runs = [line for line in lines if line["labels"]["method"] == method and line["labels"]["value"] == rate]
            cells.append(summarise([area(run["curve"], "step") for run in runs]).text())
        rows.append([NAMES[method], *cells])
    rates = _chosen(lines)
    text = f"Chosen: {', '.join(f'{NAMES[name]} {rate}' for name, rate in rates.items())}." if rates else "Under way."
    return [
        "## The search over learning rates",
        "",
        f"Mean accuracy over {plan.STEPS} steps on task {plan.TUNED_ON}, seeds {', '.join(map(str, plan.TUNING_SEEDS))}, which "
        f"is not used again. {text}",
        "",
        *_table(["method", *plan.LEARNING_RATES], rows),
    ]


def _chosen(lines: Lines) -> dict[str, str]:
    if len(lines) < len(plan.tuning()):
        return {}
    methods = plan.chosen_methods(lines)
    names = {rate: name for name, rate in plan.LEARNING_RATES.items()}
    return {method: names[methods[method]["slow.learning_rate"]] for method in ("fst", "rl")}


# -- comparison --------------------------------------------------------------------------------------------------------


def _compare(lines: Lines, results: Path) -> list[str]:
    tasks = [task for task in plan.COMPARED if any(line["labels"].get("task") == task for line in lines)]
    sections = ["## FST, RL alone and GEPA alone", ""]
    for task in tasks:
        sections += _compare_task(task, lines, results)
    return [*sections, *_decomposition(tasks, lines), *_plasticity(lines, results)]


def _runs(lines: Lines, task: str, method: str) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["labels"].get("task") == task and line["labels"].get("method") == method]


def _compare_task(task: str, lines: Lines, results: Path) -> list[str]:
    by_method = {method: _runs(lines, task, method) for method in NAMES}
    by_method = {method: runs for method, runs in by_method.items() if runs}
    finals = {method: [final_accuracy(run["curve"]) for run in runs] for method, runs in by_method.items()}
    level = SHARE * max(summarise(values).median for method, values in finals.items() if method != "prompt")
    rows = []
    for method, runs in by_method.items():
        at = [reached(run["curve"], level) for run in runs]
        rows.append(
            [
                NAMES[method], str(len(runs)), summarise(finals[method]).text(3), _reach(at, lambda p: p.step, 0),
                _reach(at, lambda p: p.rollouts, 0), _reach(at, lambda p: p.seconds, 1), _reach(at, lambda p: p.kl, 3),
                summarise([run["curve"][-1]["kl/base"] for run in runs]).text(3),
                summarise([_following(run) for run in runs]).text(3),
                fit_asymptote([run["curve"] for run in runs]).text() if method != "prompt" else "-",
            ]
        )  # fmt: skip
    curves = {NAMES[method]: [run["curve"] for run in runs] for method, runs in by_method.items()}
    draw(
        curves, [(ROLLOUTS, ACCURACY), (SECONDS, ACCURACY), (STEPS, ACCURACY), (ACCURACY, KL)],
        f"{task}: {WORLDS[task].about}", results / f"compare_{task}.png",
    )  # fmt: skip
    header = [
        "method", "seeds", "accuracy at the end", f"steps to {level:.2f}", f"rollouts to {level:.2f}",
        f"seconds to {level:.2f}", f"KL at {level:.2f}", "KL at the end", "following other prompts", "asymptote A",
    ]  # fmt: skip
    return [
        f"### {task}: {WORLDS[task].about}",
        "",
        f"{level:.2f} is {SHARE:.0%} of the better method's final accuracy.",
        "",
        *_table(header, rows),
        *_ratios(by_method, level),
        *_population(by_method),
        f"![{task}](compare_{task}.png)",
        "",
    ]


def _ratios(by_method: Mapping[str, Lines], level: float) -> list[str]:
    """FST over RL alone, seed by seed: rollouts and seconds to the level."""
    if not {"fst", "rl"} <= set(by_method):
        return []
    rl = {run["labels"]["seed"]: reached(run["curve"], level) for run in by_method["rl"]}
    pairs = [(reached(run["curve"], level), rl.get(run["labels"]["seed"])) for run in by_method["fst"]]
    if all(other is None for _, other in pairs):
        return ["RL alone never got there.", ""]
    rollouts = summarise([_ratio(p, q, lambda r: r.rollouts) for p, q in pairs if p or q])
    seconds = summarise([_ratio(p, q, lambda r: r.seconds) for p, q in pairs if p or q])
    return [
        f"FST over RL alone, seed by seed: {rollouts.text()} of the rollouts, {seconds.text()} of the seconds (0 where RL "
        "alone never got there).",
        "",
    ]


def _population(by_method: Mapping[str, Lines]) -> list[str]:
    """What a population of complementary prompts is worth beside its best member, where that was measured."""
    name = plan.POPULATION.name
    rows = [
        [NAMES[method], _measured(runs, "test"), _measured(runs, name)]
        for method, runs in by_method.items()
        if all(name in run["measures"] for run in runs)
    ]
    if not rows:
        return []
    return [
        "Test split: under the best single prompt, and with each problem under the prompt of the population that serves it "
        "best (chosen on other completions than those that count).",
        "",
        *_table(["method", "best prompt", "population"], rows),
    ]


def _ratio(fst: Reached | None, rl: Reached | None, value: Callable[[Reached], float]) -> float | None:
    if fst is None:
        return None
    return 0.0 if rl is None else value(fst) / value(rl)


def _decomposition(tasks: Sequence[str], lines: Lines) -> list[str]:
    rows = []
    for task in tasks:
        fst, rl = _runs(lines, task, "fst"), _runs(lines, task, "rl")
        rows.append(
            [
                task,
                _measured(fst, "test"),
                _measured(fst, "trained weights, seed prompt"),
                _measured(fst, "base weights, best prompt"),
                _measured(rl, "test"),
            ]
        )
    return [
        "### What is in the weights and what is in the prompt (test split)",
        "",
        *_table(["task", "FST: both", "FST: weights only", "FST: prompt only", "RL alone"], rows),
    ]


def _plasticity(lines: Lines, results: Path) -> list[str]:
    after = {label: [line for line in lines if line["labels"].get("after") == label] for label in ("base", "fst", "rl")}
    after = {label: runs for label, runs in after.items() if runs}
    if not after:
        return []
    names = {"base": "the base", "fst": "FST on amber", "rl": "RL on amber"}
    rows = [
        [
            names[label],
            str(len(runs)),
            summarise([accuracy(run["curve"][0]) for run in runs]).text(3),
            summarise([final_accuracy(run["curve"]) for run in runs]).text(3),
        ]
        for label, runs in after.items()
    ]
    curves = {f"from {names[label]}": [run["curve"] for run in runs] for label, runs in after.items()}
    draw(curves, [(STEPS, ACCURACY)], f"plain RL on {plan.SECOND}", results / "plasticity.png")
    return [
        f"## Plasticity: plain RL on {plan.SECOND}",
        "",
        *_table(["weights from", "seeds", "accuracy before", "accuracy at the end"], rows),
        "![plasticity](plasticity.png)",
        "",
    ]


# -- continual learning ------------------------------------------------------------------------------------------------


def _continual(lines: Lines, results: Path) -> list[str]:
    rows = []
    for method in ("fst", "rl"):
        runs = [line for line in lines if line["labels"]["method"] == method]
        if not runs:
            continue
        for phase, task in enumerate(plan.STREAM, start=1):
            points = [_at(run["curve"], phase * plan.STREAM_STEPS) for run in runs]
            cells = [summarise([accuracy(point, f"lab-{other}") for point in points]).text(2) for other in plan.STREAM]
            rows.append([NAMES[method], str(len(runs)), task, *cells])
    curves = {
        NAMES[method]: [line["curve"] for line in lines if line["labels"]["method"] == method]
        for method in ("fst", "rl")
    }
    panels = [(STEPS, (f"accuracy on {task}", _on(task))) for task in plan.STREAM]
    draw(
        {name: runs for name, runs in curves.items() if runs},
        panels,
        "one uninterrupted stream",
        results / "continual.png",
    )
    return [
        f"## A stream of tasks, {plan.STREAM_STEPS} steps each, in one uninterrupted run",
        "",
        "Accuracy at the end of each phase, on every task, under the best prompt of that moment.",
        "",
        *_table(["method", "seeds", "after", *plan.STREAM], rows),
        "![stream](continual.png)",
        "",
    ]


def _on(task: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda point: accuracy(point, f"lab-{task}")


def _at(curve: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any]:
    """The evaluation of a step."""
    return next(point for point in curve if point["step"] == step)


# -- ablations ---------------------------------------------------------------------------------------------------------


def _ablate(lines: Lines, results: Path) -> list[str]:
    rows = []
    for key, values in plan.ABLATIONS.items():
        for value in values:
            runs = [line for line in lines if (line["labels"]["key"], line["labels"]["value"]) == (key, value)]
            if runs:
                at = [reached(run["curve"], 0.9) for run in runs]
                rows.append(
                    [
                        key, value, str(len(runs)), summarise([final_accuracy(run["curve"]) for run in runs]).text(3),
                        _reach(at, lambda p: p.rollouts, 0), _reach(at, lambda p: p.seconds, 1),
                        summarise([run["curve"][-1]["kl/base"] for run in runs]).text(3),
                    ]
                )  # fmt: skip
    header = [
        "setting",
        "value",
        "seeds",
        "accuracy at the end",
        "rollouts to 0.90",
        "seconds to 0.90",
        "KL at the end",
    ]
    return [
        f"## Ablations of FST on {plan.ABLATED}, {plan.ABLATION_STEPS} steps",
        "",
        "One setting at a time; the default is K = 4, T = 5, problem baseline, light recipe, reuse, search when it pays.",
        "",
        *_table(header, rows),
    ]


# -- cells -------------------------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _reach(points: Sequence[Reached | None], value: Callable[[Reached], float], digits: int) -> str:
    """Median of what the runs needed; how many never got there."""
    never = sum(point is None for point in points)
    if never == len(points):
        return "never"
    found = summarise([None if point is None else value(point) for point in points])
    return _finite(found, digits) + (f", {never} never" if never else "")


def _finite(found: Summary, digits: int) -> str:
    return found.text(digits).replace("inf", "never")


def _measured(runs: Lines, name: str) -> str:
    return summarise([run["measures"][name]["mean"] for run in runs]).text(3) if runs else "-"


def _following(run: Mapping[str, Any]) -> float:
    """Mean accuracy under the right prompts of tasks that the run has nothing to do with."""
    found = [run["measures"][f"follow-{world}"]["mean"] for world in plan.FOLLOWED]
    return sum(found) / len(found)
