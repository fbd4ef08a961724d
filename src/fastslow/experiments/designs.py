"""The paper's comparisons as lists of parts: for any base config, tasks, methods and seeds."""

from collections.abc import Mapping, Sequence
from itertools import product

from fastslow.experiments.parts import Measure, Part
from fastslow.experiments.records import Settings


def compare(
    tasks: Mapping[str, Settings],
    seeds: Sequence[int],
    methods: Mapping[str, Settings],
    measures: Mapping[str, Sequence[Measure]] | None = None,
) -> list[Part]:
    """Every method on every task from the same seeds. `tasks` and `methods` map names to settings; `methods` are FST,
    RL alone and GEPA alone (`method: prompt`) each with what its search over settings chose.
    """
    return [
        Part(
            "-".join(filter(None, (task, method, str(seed)))),
            {**tasks[task], **settings, "method": method, "seed": seed},
            {"task": task, "method": method, "seed": seed},
            measures=tuple((measures or {}).get(task, ())),
        )
        for seed, task, (method, settings) in product(seeds, tasks, methods.items())
    ]


def vary(
    task: Settings,
    seeds: Sequence[int],
    method: str,
    key: str,
    values: Mapping[str, Settings],
) -> list[Part]:
    """One setting over its values, all else equal: ablations, and the search over learning rates."""
    return [
        Part(
            f"{key}-{label}-{method}-{seed}",
            {**task, **settings, "method": method, "seed": seed},
            {"key": key, "value": label, "method": method, "seed": seed},
        )
        for seed, (label, settings) in product(seeds, values.items())
    ]


def plasticity(second: Settings, seeds: Sequence[int], starts: Mapping[str, str], rl: Settings) -> list[Part]:
    """Plain RL on a second task, from the base and from the last weights of other parts of the experiment.

    `starts` maps what the weights have been through to the name of that part, `{seed}` standing for the seed.
    Source: arXiv 2605.12484, section 4.4.
    """
    return [
        Part(
            f"second-{label}-{seed}",
            {**second, **rl, "method": "rl", "seed": seed},
            {"after": label, "seed": seed},
            start=name.format(seed=seed) if name else None,
        )
        for seed, (label, name) in product(seeds, {"base": "", **starts}.items())
    ]


def continual(
    tasks: Sequence[Settings], steps: int, seeds: Sequence[int], methods: Mapping[str, Settings]
) -> list[Part]:
    """One uninterrupted run over tasks that take turns, `steps` RL steps each. `tasks` are {name, options}."""
    stream = {
        "task.name": "stream",
        "task.options": {"tasks": [dict(task) for task in tasks], "steps": steps},
        "steps": steps * len(tasks),
    }
    return [
        Part(
            f"stream-{method}-{seed}",
            {**stream, **settings, "method": method, "seed": seed},
            {"method": method, "seed": seed},
        )
        for seed, (method, settings) in product(seeds, methods.items())
    ]
