"""Tables and plots of `fastslow lab reproduce`, made from the results files alone."""

from pathlib import Path
from textwrap import fill

from fastslow.experiments import sections
from fastslow.experiments.records import Line
from fastslow.experiments.tables import (
    NAMES,
    ByMethod,
    Lines,
    by_method,
    measured,
    median,
    moves_weights,
    reach,
    seed_counts,
    select,
)
from fastslow.lab import worlds as plan
from fastslow.lab.tasks import WORLDS
from fastslow.measuring.intervals import median_note
from fastslow.measuring.statistics import area, final_accuracy, kl, reached
from fastslow.runs.directory import write_atomically
from fastslow.text import markdown_table, wrapped

HEAD = """# The lab: {title}

Written by `fastslow lab reproduce` from the `.jsonl` files beside it. Medians over seeds.
{brackets}
The asymptote A has a 95 % interval over seeds. Accuracy is mean@{k} on {problems} validation problems at temperature
0.6 unless the text names the test split. Sampled rollouts include the prompt search's. Seconds are training seconds on
one core, two runs side by side, without evaluations. KL is to the base weights, in nats a token, over the full
vocabulary. The model has 1.8 M parameters: nothing here is evidence about large models.
"""


def write_report(results: Path, size: plan.Size = plan.FULL) -> None:
    """README.md and the plots, of whatever has been run so far, at this size."""
    sections_of = {
        "tune": _tune,
        "compare": _compare,
        "continual": _continual,
        "precision": _precision,
        "ablate": _ablate,
        "beyond": _beyond,
    }
    found = {name: lines for name in sections_of if (lines := plan.read(results, name))}
    counts = [count for lines in found.values() for count in seed_counts(lines)]
    title = "results" if size == plan.FULL else "a quick run, which shows that everything runs and nothing else"
    k, problems = size.settings.get("evaluation.k", 4), size.settings.get("evaluation.problems", 64)
    parts = [HEAD.format(title=title, brackets=fill(median_note(counts), 118), k=k, problems=problems)]
    for name, lines in found.items():
        parts += wrapped(sections_of[name](lines, results, size))
    write_atomically(results / "README.md", "\n".join(parts).rstrip() + "\n")


def _tune(lines: Lines, results: Path, size: plan.Size) -> list[str]:
    rows = []
    for method in ("fst", "rl"):
        runs = {rate: select(lines, method=method, value=rate) for rate in plan.LEARNING_RATES}
        rows.append([NAMES[method], *(median(area(run["curve"], "step") for run in found) for found in runs.values())])
    rates = _chosen(lines, size)
    found = ", ".join(f"{NAMES[name]} {rate}" for name, rate in rates.items())
    text = f"Chosen: {found}, by the rule of `fastslow experiment tune`." if rates else "Under way."
    return [
        "## The search over learning rates",
        "",
        f"Mean accuracy over {size.steps} steps on task {plan.TUNED_ON}, seeds "
        f"{', '.join(map(str, size.tuning_seeds))}, which is not used again. {text}",
        "",
        *markdown_table(["method", *plan.LEARNING_RATES], rows),
    ]


def _chosen(lines: Lines, size: plan.Size) -> dict[str, str]:
    if len(lines) < len(plan.tuning(size)):
        return {}
    methods = plan.chosen_methods(lines, size)
    names: dict[object, str] = {rate: name for name, rate in plan.LEARNING_RATES.items()}
    return {method: names[methods[method]["slow.learning_rate"]] for method in ("fst", "rl")}


def _compare(lines: Lines, results: Path, size: plan.Size) -> list[str]:
    tasks = [task for task in plan.COMPARED if select(lines, task=task)]
    text = ["## FST, RL alone and GEPA alone", ""]
    for task in tasks:
        methods, title = by_method(lines, task=task), f"{task}: {WORLDS[task].about}"
        picture = results / f"compare_{task}.png"
        text += [
            f"### {title}",
            "",
            *sections.comparison(methods, title, picture, {"following other prompts": _following}),
        ]
        text += _population(methods)
    return [*text, *_decomposition(tasks, lines), *_plasticity(lines, results)]


def _population(methods: ByMethod) -> list[str]:
    """What a population of complementary prompts is worth beside its best member, where that was measured."""
    name = plan.POPULATION.name
    measuring = {method: runs for method, runs in methods.items() if all(name in run["measures"] for run in runs)}
    return sections.populations(measuring, "test", name) if measuring else []


def _decomposition(tasks: list[str], lines: Lines) -> list[str]:
    names = ("test", "trained weights, seed prompt", "base weights, best prompt")
    rows = []
    for task in tasks:
        fst, rl = select(lines, task=task, method="fst"), select(lines, task=task, method="rl")
        rows.append([task, *(measured(fst, name) for name in names), measured(rl, "test")])
    return [
        "### What is in the weights and what is in the prompt (test split)",
        "",
        *markdown_table(["task", "FST: both", "FST: weights only", "FST: prompt only", "RL alone"], rows),
    ]


def _plasticity(lines: Lines, results: Path) -> list[str]:
    names = {"base": "the base"} | {method: f"{method.upper()} on {plan.FIRST}" for method in plan.STARTS}
    after = {name: runs for label, name in names.items() if (runs := select(lines, after=label))}
    if not after:
        return []
    text = sections.plasticity(after, plan.SECOND, results / "plasticity.png")
    return [f"## Plasticity: plain RL on {plan.SECOND}", "", *text]


def _continual(lines: Lines, results: Path, size: plan.Size) -> list[str]:
    phases = [(f"lab-{task}", task) for task in plan.STREAM]
    return [
        f"## A stream of tasks, {size.stream_steps} steps each, in one uninterrupted run",
        "",
        *sections.stream(by_method(lines), phases, size.stream_steps, results / "continual.png"),
    ]


def _precision(lines: Lines, results: Path, size: plan.Size) -> list[str]:
    """What weights and arithmetic of fewer bits change, beside the runs of `compare`, which are of float32."""
    both = {"float32": select(plan.read(results, "compare"), task=plan.PRECISE), plan.PRECISION: lines}
    level = sections.level_of(by_method(lines))
    ends, needs = [], []
    for precision, found in both.items():
        for method, runs in by_method(found).items():
            if moves_weights(method):
                which = [precision, NAMES[method], str(len(runs))]
                at = [reached(run["curve"], level) for run in runs]
                accuracy, divergence = (
                    median(final_accuracy(run["curve"]) for run in runs),
                    median(kl(run["curve"][-1]) for run in runs),
                )
                ends.append([*which, accuracy, divergence, measured(runs, "test")])
                needs.append([*which, reach(at, lambda p: p.step, 0), reach(at, lambda p: p.rollouts, 0)])
    which = ["precision", "method", "seeds"]
    return [
        f"## {plan.PRECISION} on {plan.PRECISE}",
        "",
        f"The same runs with `model.dtype: {plan.PRECISION}`, on a processor with bfloat16 arithmetic. The level is "
        f"{sections.SHARE:.0%} of the better method's final accuracy in {plan.PRECISION}.",
        "",
        *markdown_table([*which, "accuracy at the end", "KL at the end", "test split"], ends),
        *markdown_table([*which, f"steps to {level:.2f}", f"rollouts to {level:.2f}"], needs),
    ]


def _ablate(lines: Lines, results: Path, size: plan.Size) -> list[str]:
    return [
        f"## Ablations of FST on {plan.ABLATED}, {size.ablation_steps} steps",
        "",
        "One setting at a time; the default is K = 4, T = 5, problem baseline, light recipe, reuse, "
        "search when it pays.",
        "",
        *sections.ablation(lines, {key: list(values) for key, values in plan.ABLATIONS.items()}, 0.9),
    ]


def _beyond(lines: Lines, results: Path, size: plan.Size) -> list[str]:
    runs = {title: found for label, (title, _, _) in plan.BEYOND.items() if (found := select(lines, value=label))}
    return [
        f"## Beyond the paper, on {plan.ABLATED}",
        "",
        f"Options of FST over {size.ablation_steps} steps, RL alone and distillation at about the same rollouts. FST "
        "has the learning rate that was searched for it. What trains under the seed prompt has that of RL alone. Bare "
        "gradient: under the seed prompt. Own prompt: the best of the population. Seconds were shared with other work "
        "on the machine: rollouts are the axis that compares.",
        "",
        *sections.under_both_prompts(runs),
    ]


def _following(run: Line) -> float:
    """Mean accuracy under the right prompts of tasks that the run has nothing to do with."""
    found = [run["measures"][f"follow-{world}"]["mean"] for world in plan.FOLLOWED]
    return sum(found) / len(found)
