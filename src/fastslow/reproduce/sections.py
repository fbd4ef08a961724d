"""What `fastslow reproduce` rebuilds: a plain list of sections, each with its runs,
where its results lie and how it is run.

The lab's sections are those of `lab/reproduce.py`. The real model's are `fastslow experiment tune` and `arms` over the
configs in experiments/real_model, at the learning rates that its tune chose.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.errors import ConfigError, FastslowError
from fastslow.experiments.arms import ARMS, part_names
from fastslow.experiments.commands import RESULTS, experiment
from fastslow.experiments.sections import chosen_rates
from fastslow.experiments.tables import by_method
from fastslow.lab.reproduce import TUNE
from fastslow.lab.reproduce import reproduce as reproduce_lab
from fastslow.lab.worlds import FULL, QUICK, Methods, Size, experiments, results_file, tuning
from fastslow.runs.files import read_lines

MODEL_ID, MODEL = "Qwen/Qwen2.5-Coder-0.5B-Instruct", "models/qwen2.5-coder-0.5b-instruct"
"""The real model: its name on the Hugging Face hub, and where the configs look for it."""
CONFIGS = Path("experiments") / "real_model"
PUBLISHED = Path("experiments")
"""Where the results lie that the README and docs/results.md are made from."""

RATES: Mapping[float, int] = {2e-5: 1, 6e-5: 3, 2e-4: 3, 6e-4: 1}
"""The search over learning rates: how many seeds each has. Where one seed could not tell two apart, both got three."""
RATE_TASK = ("task.options.answer_format=tags",)
"""What makes the search's task one that is not reported."""
FIRST = ("fst", "rl", "prompt")
ORDERS = ("rl-prompt", "prompt-rl", "fst-policy")
OPTIONS = ("fst-bare", "fst-rollouts", "distill")
TASKS: Mapping[str, Mapping[str, int]] = {
    "json": {**dict.fromkeys(FIRST, 5), **dict.fromkeys((*ORDERS, *OPTIONS), 3)},
    "boxed": {**dict.fromkeys((*FIRST, "fst-ties"), 5), **dict.fromkeys(ORDERS, 3)},
    "letter_counting": dict.fromkeys(FIRST, 5),
    **dict.fromkeys(("gsm_symbolic", "tool_protocol", "star_graph"), dict.fromkeys((*FIRST, "fst-ties"), 3)),
}
"""The real model's tasks: how many seeds each arm has."""
SHORT_REFLECTIONS = "fst-policy:fast.proposer.max_tokens=256"
"""Prompts here have a line or two. A model this small may go on to the default of 4096 tokens, which takes minutes."""
HIGHER = "2e-4"
"""The rate with the highest median of the search, which cannot be told from the lower one that is taken."""
AT_HIGHER: Mapping[str, Mapping[str, int]] = {
    "json": {"fst": 5, "rl": 5},
    "boxed": {"fst": 3, "rl": 3},
    "tool_protocol": {"fst": 2, "rl": 2},
}
"""What was run at that rate as well, and is kept apart: the arms and their seeds by task."""
QUICK_RUNS = (
    "max_rollouts=64", "loop.problems_per_step=4", "loop.steps_per_cycle=2", "fast.metric_calls=24",
    "fast.anchor_problems=8", "distill.cycles=1", "evaluation.problems=4", "evaluation.kl_problems=2",
    "task.options.train=32", "task.options.validation=8", "task.options.test=8",
)  # fmt: skip
"""What makes a run of the real model a quick one."""


@dataclass(frozen=True)
class Plan:
    """What the command was told. `model`: where the real model lies.

    `seeds`: of every section but the searches for learning rates, None for its own number.
    """

    runs: Path
    results: Path
    seeds: int | None = None
    workers: int = 2
    model: str = MODEL
    quick: bool = False

    @property
    def size(self) -> Size:
        """That of the lab's runs."""
        return QUICK if self.quick else FULL

    def seeds_of(self, published: int) -> int:
        """How many seeds something has that is published with so many."""
        return self.seeds or (1 if self.quick else published)


@dataclass(frozen=True)
class Section:
    """A part of the whole. `runs` are the names of its runs, `file` has their lines, `run` runs what is missing
    and writes the page, `report` only writes the page. `after` is the section that must have ended before. `run_s`
    is how long a run takes where none has a line yet, `quick_s` a quick one: seconds on one core.
    `only_published`: it has no quick form.
    """

    name: str
    about: str
    runs: Callable[[Plan], list[str]]
    file: Callable[[Plan], Path]
    run: Callable[[Plan], None]
    report: Callable[[Plan], None]
    run_s: float
    quick_s: float
    after: str = ""
    needs_model: bool = False
    needs_checkout: Path | None = None
    only_published: bool = False


def sections() -> tuple[Section, ...]:
    """All of them, in the order of running: what learning rates are chosen by comes before what uses them."""
    return (
        _lab(TUNE, "the lab: the search over learning rates", 2, 40),
        _lab("compare", "the lab: FST, RL alone and GEPA alone on five tasks; plasticity", 5, 45),
        _lab("continual", "the lab: a stream of tasks in one uninterrupted run", 5, 80),
        _lab("precision", "the lab: bfloat16 beside float32", 3, 320),
        _lab("ablate", "the lab: one setting at a time", 5, 40),
        _lab("beyond", "the lab: options that go beyond the paper", 5, 40),
        _real_tune(),
        *(_real_task(task, arms) for task, arms in TASKS.items()),
        *(_real_task(task, arms, HIGHER) for task, arms in AT_HIGHER.items()),
        _format_rules(),
    )


# -- the lab -----------------------------------------------------------------------------------------------------------

NOTHING_CHOSEN: Methods = {"fst": {}, "rl": {}, "prompt": {}}
"""Names of runs do not depend on what tuning chose."""


def _lab(name: str, about: str, seeds: int, run_s: float) -> Section:
    def runs(plan: Plan) -> list[str]:
        made = tuning(plan.size) if name == TUNE else experiments(plan.seeds_of(seeds), plan.size)[name](NOTHING_CHOSEN)
        return [part.name for part in made]

    def run(plan: Plan, *, report_only: bool = False) -> None:
        reproduce_lab(
            [name],
            runs=plan.runs / "lab",
            results=plan.results / "lab",
            seeds=plan.seeds_of(seeds),
            workers=plan.workers,
            report_only=report_only,
            size=plan.size,
        )

    def file(plan: Plan) -> Path:
        return results_file(plan.results / "lab", name)

    def report(plan: Plan) -> None:
        run(plan, report_only=True)

    after = "" if name == TUNE else f"lab/{TUNE}"
    return Section(f"lab/{name}", about, runs, file, run, report, run_s, 8, after)


# -- the real model ----------------------------------------------------------------------------------------------------


def real_results(results: Path, task: str) -> Path:
    """The directory of the lines, the page and the plot of a task of the real model."""
    return results / "real_model" / "results" / task


def _rates(plan: Plan) -> Mapping[float, int]:
    """The rates that are searched, and how many seeds each has."""
    return dict.fromkeys(RATES, 1) if plan.quick else RATES


def _real_tune() -> Section:
    def run(plan: Plan, *, report_only: bool = False) -> None:
        settings: dict[str, Any] = {"methods": ("fst", "rl"), "second": RATE_TASK, **_common(plan, TUNE)}
        rates = _rates(plan)
        for seeds in () if report_only else sorted(set(rates.values())):
            values = [rate for rate, count in rates.items() if count >= seeds]
            experiment("tune", CONFIGS / "tags.yaml", seeds=seeds, values=values, **settings)
        # One page of all rates, however many seeds each has.
        experiment(
            "tune", CONFIGS / "tags.yaml", seeds=max(rates.values()), values=list(rates), report_only=True, **settings
        )

    def runs(plan: Plan) -> list[str]:
        return [
            f"slow.learning_rate-{rate:g}-{method}-{seed}"
            for method in ("fst", "rl")
            for rate, seeds in _rates(plan).items()
            for seed in range(100, 100 + seeds)
        ]

    return _real(TUNE, "the real model: the search over learning rates, on a task that is not reported", runs, run, 600)


def _real_task(task: str, arms: Mapping[str, int], rate: str = "") -> Section:
    """The arms of a task, at the learning rates of the search, or all at one `rate`."""
    config, name = CONFIGS / f"{task}.yaml", f"{task}_{rate}" if rate else task

    def run(plan: Plan, *, report_only: bool = False) -> None:
        searched = chosen_rates(by_method(read_lines(real_results(plan.results, TUNE) / RESULTS)))
        # Distillation moves the same weights over the same data as FST: it has no search of its own.
        searched["distill"] = searched["fst"]
        settings = [f"{method}:slow.learning_rate={rate or found}" for method, found in searched.items()]
        for seeds in () if report_only else sorted({plan.seeds_of(count) for count in arms.values()}, reverse=True):
            chosen = [arm for arm, count in arms.items() if plan.seeds_of(count) == seeds]
            own = [each for each in (SHORT_REFLECTIONS,) if each.partition(":")[0] in chosen]
            experiment(
                "arms", config, seeds=seeds, methods=chosen, method_overrides=[*settings, *own], **_common(plan, name)
            )
        # One page of all arms, however many seeds each has.
        experiment("arms", config, methods=list(ARMS), report_only=True, **_common(plan, name))

    def runs(plan: Plan) -> list[str]:
        return [
            part
            for arm, count in arms.items()
            for seed in range(plan.seeds_of(count))
            for part in part_names(arm, seed)
        ]

    about = f"the real model: {', '.join(arms)} on {task}"
    return _real(name, f"{about} at {rate}, kept apart" if rate else about, runs, run, 480)


def _real(name: str, about: str, runs: Callable[[Plan], list[str]], run: Callable[..., None], run_s: float) -> Section:
    def file(plan: Plan) -> Path:
        return real_results(plan.results, name) / RESULTS

    def report(plan: Plan) -> None:
        run(plan, report_only=True)

    after = "" if name == TUNE else f"real_model/{TUNE}"
    return Section(f"real_model/{name}", about, runs, file, run, report, run_s, 60, after, True, CONFIGS)


def _common(plan: Plan, name: str) -> dict[str, Any]:
    """What every experiment with the real model is told."""
    return {
        "output": plan.runs / "real_model" / name,
        "results": real_results(plan.results, name),
        "workers": plan.workers,
        "overrides": QUICK_RUNS if plan.quick else (),
        "model_at": "" if plan.model == MODEL else plan.model,
        "note": "; a quick run, which shows that everything runs and nothing else" if plan.quick else "",
    }


# -- an experiment with a script of its own ----------------------------------------------------------------------------


def _format_rules() -> Section:
    folder = PUBLISHED / "format_rules"

    def script(*arguments: str) -> None:
        done = subprocess.run([sys.executable, *arguments], check=False)  # noqa: S603
        if done.returncode:
            raise FastslowError(f"python {' '.join(arguments)} ended with status {done.returncode}")

    def report(plan: Plan) -> None:
        script(str(folder / "report.py"))

    def run(plan: Plan) -> None:
        seeds = [str(seed) for seed in range(plan.seeds_of(2))]
        where = ["--output", str(plan.runs / "format_rules"), "--workers", str(plan.workers)]
        script(str(folder / "run.py"), "--model", plan.model, "--test", "--seeds", *seeds, *where)
        report(plan)

    def runs(plan: Plan) -> list[str]:
        return [
            f"{task}-{method}-{seed}"
            for seed in range(plan.seeds_of(2))
            for task in ("json", "boxed")
            for method in FIRST
        ]

    about = "the real model: answer formats in float32, one or two seeds"
    file = folder / "results" / "runs.jsonl"
    return Section("format_rules", about, runs, lambda plan: file, run, report, 1200, 60, "", True, folder, True)


# -- choosing ----------------------------------------------------------------------------------------------------------


def chosen(names: Sequence[str], plan: Plan) -> list[Section]:
    """The sections of these names, or of these groups (`lab`), in their own order; all where none is named.

    Raises: ConfigError for a name that is not known, or of a section that has no quick form.
    """
    known = {each.name: each for each in sections() if plan.results == PUBLISHED or not each.only_published}
    found: set[str] = set()
    for name in names:
        mine = [each for each in known if name in (each, each.partition("/")[0])]
        if not mine and name in [each.name for each in sections()]:
            raise ConfigError(
                f"reproduce: {name!r} writes its results into {PUBLISHED} alone: leave --quick and --results out"
            )
        if not mine:
            raise ConfigError(f"reproduce: {name!r} is unknown: take some of lab, real_model, {', '.join(known)}")
        found |= {*mine, *(known[each].after for each in mine)}
    return [each for name, each in known.items() if not names or name in found]


def missing_needs(section: Section, plan: Plan) -> str:
    """Why a section cannot be run here, and what to do; "" where it can."""
    if section.needs_checkout and not section.needs_checkout.is_dir():
        return f"{section.needs_checkout} is not here: run it in a checkout of the repository"
    if section.needs_model and not ((Path(plan.model) / "config.json").is_file() or Path(plan.model).is_file()):
        return (
            f"there is no model in {plan.model!r}. It is {MODEL_ID}: `hf download {MODEL_ID} --local-dir {MODEL}`, or "
            "--model DIR"
        )
    return ""
