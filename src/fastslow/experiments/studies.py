"""The paper's experiments by name, for any config: which runs each is made of, and what its report says.

A new experiment is one entry of `STUDIES`: a function that makes its parts, and one that writes its section.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.experiments import designs, sections
from fastslow.experiments.arm_tables import arms_section
from fastslow.experiments.arms import ARMS, arm_parts, check_arms
from fastslow.experiments.asymptote import fit_asymptote
from fastslow.experiments.parts import Measure, Part
from fastslow.experiments.records import Settings
from fastslow.experiments.tables import NAMES, ByMethod, Lines, by_method, curves, measured, select
from fastslow.methods.settings import METHODS
from fastslow.text import markdown_table

TEST = Measure("trained weights, best prompt", kl=True)
RATE = "slow.learning_rate"
POPULATION = Measure("population", prompt="population")
"""Where problems are of several kinds: what the whole population is worth beside its best prompt."""
DECOMPOSITION = (
    TEST,
    Measure("trained weights, seed prompt", prompt="seed"),
    Measure("base weights, best prompt", weights="base"),
    Measure("base weights, seed prompt", prompt="seed", weights="base"),
)


@dataclass(frozen=True)
class Options:
    """What an experiment may be told besides its config. `settings` are dotted keys by method; `second` those of a
    second task; `key` and `values` what is varied.
    """

    seeds: int = 3
    methods: tuple[str, ...] = ()
    settings: Mapping[str, Settings] = field(default_factory=dict)
    second: Settings = field(default_factory=dict)
    key: str = ""
    values: tuple[object, ...] = ()


@dataclass(frozen=True)
class Study:
    """`about` says what it answers. `methods` are run where none are named, `also` takes part whichever are compared.
    `check` raises ConfigError. `known` are the names that may be compared, those of methods unless it is given.
    """

    about: str
    methods: tuple[str, ...]
    parts: Callable[[Config, Options], list[Part]]
    section: Callable[[Lines, Path, Config, Options], list[str]]
    check: Callable[[Config, Options], None] = lambda config, options: None
    also: tuple[str, ...] = ()
    known: tuple[str, ...] = tuple(METHODS)


# -- parts -------------------------------------------------------------------------------------------------------------


def _compared(config: Config, options: Options, measures: Sequence[Measure] | None = None) -> list[Part]:
    measures = _tests(config) if measures is None else measures
    methods = {method: options.settings.get(method, {}) for method in options.methods}
    return designs.compare({"": {}}, range(options.seeds), methods, {"": measures})


def _tests(config: Config) -> tuple[Measure, ...]:
    from fastslow.tasks.registry import build_task

    kinds = {problem.kind for problem in build_task(config.task).problems("test")}
    return (TEST, POPULATION) if len(kinds) > 1 else (TEST,)


def _decomposed(config: Config, options: Options) -> list[Part]:
    return _compared(config, options, DECOMPOSITION)


def _second_task(config: Config, options: Options) -> list[Part]:
    starts = {method: f"{method}-{{seed}}" for method in options.methods}
    rl = options.settings.get("rl", {})
    return [*_compared(config, options), *designs.plasticity(options.second, range(options.seeds), starts, rl)]


def _streamed(config: Config, options: Options) -> list[Part]:
    return _compared(config, options, ())


def _varied(config: Config, options: Options) -> list[Part]:
    values = {str(value): {options.key: value} for value in options.values}
    return [
        part
        for method in options.methods
        for part in designs.vary(options.settings.get(method, {}), range(options.seeds), method, options.key, values)
    ]


def _arms(config: Config, options: Options) -> list[Part]:
    return arm_parts(config, options.methods, range(options.seeds), options.settings)


def _tuned(config: Config, options: Options) -> list[Part]:
    values = {f"{value:g}": {RATE: value} for value in _rates(options)}
    return [
        part
        for method in options.methods
        for part in designs.vary(
            {**options.second, **options.settings.get(method, {})},
            range(100, 100 + options.seeds),
            method,
            RATE,
            values,
        )
    ]


# -- sections ----------------------------------------------------------------------------------------------------------


def _comparison(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    methods = by_method(lines)
    text = sections.comparison(methods, f"{config.task.name}: methods compared", directory / "compare.png")
    return [*text, *_tested(methods)]


def _asymptotes(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    rows = [[NAMES[m], str(len(runs)), fit_asymptote(curves(runs)).text()] for m, runs in by_method(lines).items()]
    return [
        "A of the sigmoid fitted to validation accuracy, with a 95 % interval over seeds, or why there is none.",
        "",
        *markdown_table(["method", "seeds", "asymptote A"], rows),
        *sections.comparison(by_method(lines), "learning curves", directory / "asymptote.png"),
    ]


def _drift(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    return sections.drift(by_method(lines), directory / "drift.png")


def _decomposition(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    rows = [
        [NAMES[method], str(len(runs)), *(measured(runs, measure.name) for measure in DECOMPOSITION)]
        for method, runs in by_method(lines).items()
    ]
    header = ["method", "seeds", *(measure.name for measure in DECOMPOSITION)]
    return [
        "What is in the weights and what is in the prompt, mean@k on the test split.",
        "",
        *markdown_table(header, rows),
    ]


def _plasticity(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    names = {"base": "the base", **{method: f"{NAMES[method]} on the first task" for method in options.methods}}
    after = {name: runs for label, name in names.items() if (runs := select(lines, after=label))}
    if not after:
        return ["No second phase has ended yet.", ""]
    return sections.plasticity(after, "the second task", directory / "plasticity.png")


def _continual(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    names, steps = _stream_of(config)
    return sections.stream(by_method(lines), names, steps, directory / "continual.png")


def _ablation(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    text: list[str] = []
    for method, runs in by_method(lines).items():
        keys = {options.key: [str(value) for value in options.values]}
        text += [f"### {NAMES[method]}", "", *sections.ablation(runs, keys, sections.level_of({method: runs}))]
    return text


def _arm_tables(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    return arms_section(lines, options.methods, config.max_rollouts or 0, directory / "arms.png")


def _rates_chosen(lines: Lines, directory: Path, config: Config, options: Options) -> list[str]:
    return sections.rates(by_method(lines), RATE)


def _tested(methods: ByMethod) -> list[str]:
    rows = [[NAMES[method], str(len(runs)), measured(runs, TEST.name)] for method, runs in methods.items()]
    return [
        "On the test split, after training:",
        "",
        *markdown_table(["method", "seeds", "mean@k"], rows),
        *_populations(methods),
    ]


def _populations(methods: ByMethod) -> list[str]:
    measuring = {m: runs for m, runs in methods.items() if all(POPULATION.name in run["measures"] for run in runs)}
    return sections.populations(measuring, TEST.name, POPULATION.name) if measuring else []


def _stream_of(config: Config) -> tuple[list[tuple[str, str]], int]:
    """The phases of a stream: name in the metrics, and for people; and the steps of each."""
    from fastslow.tasks.registry import build_task

    stream = build_task(config.task)
    steps = stream.stage(0).steps or 1
    phases = [stream.stage(step).task.name for step in range(0, config.steps, steps)]
    return [(name, name) for name in phases], steps


def _rates(options: Options) -> list[float]:
    return [float(str(value)) for value in options.values]


# -- what they need ----------------------------------------------------------------------------------------------------


def _needs_kl(config: Config, options: Options) -> None:
    if not config.evaluation.kl_problems:
        raise ConfigError(
            "evaluation.kl_problems: 0 measures no KL, which this experiment is about: set it to 64 or so"
        )


def _needs_second(config: Config, options: Options) -> None:
    if not any(key.startswith("task") for key in options.second):
        raise ConfigError("--second: name the second task, for example --second task.name=star_graph")


def _needs_stream(config: Config, options: Options) -> None:
    if config.task.name != "stream":
        raise ConfigError(
            f"task.name: {config.task.name!r} is one task: this experiment needs 'stream', see docs/tasks.md"
        )
    steps = int(config.task.options["steps"])
    if config.steps % steps:
        raise ConfigError(f"steps: {config.steps} is no whole number of phases of task.options.steps, {steps}")
    if not config.evaluation.every or steps % config.evaluation.every:
        raise ConfigError(
            f"evaluation.every: {config.evaluation.every} does not measure the end of each phase: take a "
            f"divisor of {steps}"
        )


def _needs_values(config: Config, options: Options) -> None:
    if not options.key or not options.values:
        raise ConfigError("ablate: name what is varied: --key loop.population_size --values 1 2 4 8")


def _needs_rates(config: Config, options: Options) -> None:
    if not options.values:
        raise ConfigError("tune: name the learning rates that are tried: --values 2e-5 5e-5 1e-4")
    if not any(key.startswith("task") for key in options.second):
        raise ConfigError(
            "--second: name the task that learning rates are searched on, which is not reported, for example --second "
            "task.options.answer_format=boxed"
        )
    for value in options.values:
        try:
            rate = float(str(value))
        except ValueError:
            rate = 0.0
        if not rate > 0.0:
            raise ConfigError(f"--values: {value!r} is no learning rate: take positive numbers such as 5e-5")


def _needs_a_budget(config: Config, options: Options) -> None:
    check_arms(config)


STUDIES = {
    "compare": Study("FST, RL alone and GEPA alone over seeds", ("fst", "rl", "prompt"), _compared, _comparison),
    "asymptote": Study("where the learning curves would end", ("fst", "rl"), _compared, _asymptotes),
    "drift": Study("KL to the base against accuracy", ("fst", "rl"), _compared, _drift, _needs_kl),
    "decompose": Study(
        "base and trained weights under the seed and the evolved prompt", ("fst",), _decomposed, _decomposition
    ),
    "plasticity": Study(
        "plain RL on a second task, from the base and from each method's weights",
        ("fst", "rl"),
        _second_task,
        _plasticity,
        _needs_second,
        ("rl",),
    ),
    "continual": Study("one uninterrupted stream of tasks", ("fst", "rl"), _streamed, _continual, _needs_stream),
    "distill": Study(
        "FST-distill (equation 8) beside FST and GEPA alone", ("fst", "distill", "prompt"), _compared, _comparison
    ),
    "tune": Study(
        "each method's learning rate, on a task that is not reported",
        ("fst", "rl"),
        _tuned,
        _rates_chosen,
        _needs_rates,
    ),
    "arms": Study(
        "methods, and methods one after the other, at equal sampled rollouts",
        tuple(ARMS),
        _arms,
        _arm_tables,
        _needs_a_budget,
        tuple(METHODS),
        tuple(ARMS),
    ),
    "ablate": Study("one setting over its values", ("fst",), _varied, _ablation, _needs_values),
}
"""Every experiment by name. Source: arXiv 2605.12484, sections 4 and 5."""
