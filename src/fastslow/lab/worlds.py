"""Which tasks of the lab are compared and how: the parts of every experiment, made from what tuning chose.

`tune` comes first: every method that moves weights gets the same search over learning rates, on a task that is not
reported and with seeds that are not used again. The other experiments take what it chose. Deviations from the paper:
the proposer is the lesson proposer with a phrase book, no LLM; the model is the lab's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.experiments.designs import compare, continual, plasticity, vary
from fastslow.experiments.parts import Measure, Part
from fastslow.experiments.records import Line, Settings
from fastslow.lab.demo import follow
from fastslow.lab.tasks import WORLDS
from fastslow.measuring.statistics import area, chosen_rate
from fastslow.runs.files import read_lines


@dataclass(frozen=True)
class Size:
    """How much is run: steps of each experiment's runs, and what is smaller than in `lab.yaml` and the task itself.

    `settings` are dotted keys over the config, `options` those of every task.
    """

    steps: int = 60
    second_steps: int = 40
    stream_steps: int = 40
    ablation_steps: int = 40
    cycles: int = 12
    tuning_seeds: tuple[int, ...] = (100, 101)
    settings: Settings = field(default_factory=dict)
    options: Settings = field(default_factory=dict)


FULL = Size()
QUICK = Size(
    steps=10,
    second_steps=10,
    stream_steps=10,
    ablation_steps=10,
    cycles=2,
    tuning_seeds=(100,),
    settings={
        "loop.problems_per_step": 8,
        "fast.anchor_problems": 16,
        "fast.metric_calls": 128,
        "evaluation.problems": 16,
        "evaluation.k": 2,
        "evaluation.kl_problems": 8,
    },
    options={"validation": 16, "test": 16},
)
"""Goes through every experiment in minutes: a test of the chain, whose numbers mean nothing."""

TUNED_ON = "cedar"
LEARNING_RATES = {"3e-5": 3e-5, "1e-4": 1e-4, "3e-4": 3e-4, "1e-3": 1e-3}
COMPARED = ("amber", "birch", "dogwood", "fir", "hazel")
FIRST, SECOND = "amber", "birch"
STARTS = ("fst", "rl")
"""Plasticity: what the weights have been through on the first task before plain RL on the second."""
STREAM = ("amber", "elm", "birch")
ABLATED = "amber"
PRECISE, PRECISION = "amber", "bfloat16"
"""FST and RL alone once more, with weights and arithmetic of another precision than elsewhere, float32."""
FOLLOWED = ("cedar", "ginkgo")

POPULATION = Measure("population", prompt="population")
"""Where problems come in slices: the whole population, each problem under the prompt that serves it best."""

ABLATIONS: dict[str, dict[str, dict[str, object]]] = {
    "K": {str(k): {"loop.population_size": k} for k in (1, 2, 4, 8)},
    "T": {str(t): {"loop.steps_per_cycle": t} for t in (2, 5, 10, 20)},
    "baseline": {name: {"loop.baseline": name} for name in ("problem", "prompt")},
    "recipe": {
        "light": {},
        "full": {"fast.proposer.recipe": "full", "loop.population_size": 1, "fast.metric_calls": 768},
    },
    "reuse": {"on": {}, "off": {"loop.reuse_max_age": 0}},
    "anchors": {"looked ahead": {}, "from the store": {"fast.anchors_from_store": 1.0}},
    "search": {"when it pays": {}, "every cycle": {"fast.max_backoff": 0}},
    "learning-rate": {name: {"slow.learning_rate": rate} for name, rate in LEARNING_RATES.items()},
}

BARE: dict[str, object] = {"slow.gradient_context": "bare", "slow.learning_rate": 3e-4}
BEYOND: dict[str, tuple[str, str, dict[str, object]]] = {
    "default": ("FST as it is", "fst", {}),
    "bare-member": ("bare gradient (seed prompt a member)", "fst", {**BARE, "slow.bare_member": True}),
    "rollouts": ("RL's rollouts score prompts", "fst", {"fast.scores": "rollouts", "fast.max_backoff": 0}),
    "distilled": (
        "distillation",
        "distill",
        {"distill.cycles": 2, "slow.learning_rate": 3e-4},
    ),
    "rl": ("RL alone", "rl", {}),
    "bare": ("bare gradient", "fst", BARE),
    "held-out": ("quarter of the anchors held out", "fst", {"fast.held_out": 0.25}),
    "ties": ("ties compared problem by problem", "fst", {"fast.ties": "problems"}),
    "bare-sampler": (
        "bare gradient (ratio to the sampler)",
        "fst",
        {**BARE, "slow.bare_behaviour": "sampler"},
    ),
    "two-each": ("two of the four prompts a problem", "fst", {"loop.prompts_per_problem": 2}),
}
"""Options of FST that go beyond the paper, and what stands beside them at about the same rollouts: title, method,
settings.

All weights are measured under the seed prompt, too. Distillation ends with the rollouts of FST's 40 steps.
"""

ROLLOUTS_A_STEP = 16 * 8
"""Problems and rollouts of a step in `lab.yaml`."""
Methods = Mapping[str, Settings]


def world(name: str, size: Size = FULL) -> dict[str, object]:
    """The settings that choose a task of the lab."""
    return {"task.name": "lab", "task.options": {"world": name, **size.options}}


def measures(name: str, size: Size = FULL) -> tuple[Measure, ...]:
    """What every compared run on a task is measured by, on the test split."""
    return (
        Measure("test", kl=True),
        Measure("trained weights, seed prompt", {"evaluation.k": 1}, prompt="seed"),
        Measure("base weights, best prompt", {"evaluation.k": 1}, weights="base"),
        *(follow(other, size.options) for other in FOLLOWED),
        *((POPULATION,) if len(WORLDS[name].slices) > 1 else ()),
    )


def experiments(seeds: int, size: Size = FULL) -> dict[str, Callable[[Methods], list[Part]]]:
    """Every experiment by name; each makes its parts from what tuning chose."""
    numbers = range(seeds)
    return {
        "compare": lambda methods: _compared(numbers, methods, size),
        "continual": lambda methods: continual(
            [{"name": "lab", "options": world(name, size)["task.options"]} for name in STREAM],
            size.stream_steps,
            numbers,
            {name: {**methods[name], "evaluation.every": 10} for name in ("fst", "rl")},
        ),
        "precision": lambda methods: compare(
            {PRECISE: {**world(PRECISE, size), "steps": size.steps, "model.dtype": PRECISION}},
            numbers,
            {name: methods[name] for name in ("fst", "rl")},
            {PRECISE: measures(PRECISE, size)},
        ),
        "ablate": lambda methods: [
            part
            for key, values in ABLATIONS.items()
            for part in vary(
                {**world(ABLATED, size), **methods["fst"], "steps": size.ablation_steps}, numbers, "fst", key, values
            )
        ],
        "beyond": lambda methods: [part for seed in numbers for part in _beyond(seed, methods, size)],
    }


def _compared(seeds: Sequence[int], methods: Methods, size: Size) -> list[Part]:
    """The methods side by side, and plain RL on a second task afterwards."""
    return [
        *compare(
            {name: {**world(name, size), "steps": size.steps} for name in COMPARED},
            seeds,
            methods,
            {name: measures(name, size) for name in COMPARED},
        ),
        *plasticity(
            {**world(SECOND, size), "steps": size.second_steps},
            seeds,
            {method: f"{FIRST}-{method}-{{seed}}" for method in STARTS},
            methods["rl"],
        ),
    ]


def _beyond(seed: int, methods: Methods, size: Size) -> list[Part]:
    """The options that go beyond the paper from one seed."""
    task = {**world(ABLATED, size), "steps": size.ablation_steps, "evaluation.seed_prompt": True}
    # The rollouts of FST's steps and searches, whatever of them the search for a teacher takes.
    distilled = {"max_rollouts": size.ablation_steps * ROLLOUTS_A_STEP + 512, "steps": size.steps}
    return [
        part
        for label, (_, method, settings) in BEYOND.items()
        for part in vary(
            {**task, **methods.get(method, {}), **(distilled if label == "distilled" else {})},
            [seed],
            method,
            "beyond",
            {label: settings},
        )
    ]


def tuning(size: Size = FULL) -> list[Part]:
    """The same search over learning rates for FST and for RL alone."""
    values = {name: {"slow.learning_rate": rate} for name, rate in LEARNING_RATES.items()}
    task = {**world(TUNED_ON, size), "steps": size.steps}
    return [part for method in ("fst", "rl") for part in vary(task, size.tuning_seeds, method, "learning-rate", values)]


def chosen_methods(lines: Sequence[Line], size: Size = FULL) -> dict[str, dict[str, object]]:
    """Each method's settings: the learning rate that the search takes by mean accuracy over the run (`chosen_rate`)."""
    methods: dict[str, dict[str, object]] = {}
    for method in ("fst", "rl"):
        areas = {
            rate: [area(line["curve"], "step") for line in lines if _is(line, method, name)]
            for name, rate in LEARNING_RATES.items()
        }
        methods[method] = {"slow.learning_rate": chosen_rate(areas)}
    methods["prompt"] = {"steps": size.cycles, "evaluation.every": 1, "fast.max_backoff": 0}
    return methods


def _is(line: Line, method: str, value: str) -> bool:
    labels = line["labels"]
    return (labels["method"], labels["value"]) == (method, value)


def results_file(results: Path, name: str) -> Path:
    """Where an experiment's lines are kept."""
    return results / f"{name}.jsonl"


def read(results: Path, name: str) -> list[Line]:
    """The lines of an experiment so far, the last of each part."""
    return list({line["part"]: line for line in read_lines(results_file(results, name))}.values())
