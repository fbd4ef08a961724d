"""The demo: FST and RL alone side by side on one task, then a second task under plain RL; a table of what happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastslow.errors import ConfigError
from fastslow.experiments.parts import Experiment, Measure, Part
from fastslow.experiments.plots import ACCURACY, KL, ROLLOUTS, SECONDS, draw
from fastslow.experiments.records import Line, Measured
from fastslow.experiments.runner import run_experiment
from fastslow.experiments.tables import NAMES
from fastslow.experiments.watch import LiveWatcher, PlainWatcher
from fastslow.lab.rules import SEED_PROMPT
from fastslow.lab.tasks import WORLDS, right_prompts
from fastslow.measuring.statistics import final_accuracy, kl, reached
from fastslow.resources import resolve_path
from fastslow.text import printable

CONFIG = "package:fastslow.lab/lab.yaml"
FIRST, SECOND, OTHERS = "amber", "birch", ("dogwood", "ginkgo")
THRESHOLD = 0.9
STEPS, SECOND_STEPS = 80, 40
RATES = {"fst": 1e-4, "rl": 3e-4}
"""Each method's learning rate: where its final accuracy, or its curve, was best in `fastslow lab reproduce`, `tune`."""


@dataclass(frozen=True)
class Compared:
    """A line of the final table: numbers of FST and of RL alone, and which is better."""

    what: str
    fst: float | None
    rl: float | None
    digits: int
    smaller_is_better: bool
    note: str = ""

    def verdict(self) -> str:
        """fst, rl or even. What was never reached loses against what was."""
        if self.fst is None or self.rl is None:
            return "even" if self.fst is self.rl else "rl" if self.fst is None else "fst"
        gap = round(self.fst, self.digits) - round(self.rl, self.digits)
        if gap == 0:
            return "even"
        return "fst" if (gap < 0) == self.smaller_is_better else "rl"

    def text(self, value: float | None) -> str:
        """One of its numbers as it stands in the table."""
        return "never" if value is None else f"{value:.{self.digits}f}"


def base_config() -> dict[str, Any]:
    """The lab's config as a tree."""
    tree: dict[str, Any] = yaml.safe_load(Path(resolve_path(CONFIG, "config file")).read_text(encoding="utf-8"))
    return tree


def follow(world: str, options: Mapping[str, object] = MappingProxyType({})) -> Measure:
    """How well weights follow the prompt that states another task's rules: what training has not destroyed.

    `options` are further ones of that task.
    """
    (prompt,) = right_prompts(WORLDS[world]).values()
    settings = {"task.options": {"world": world, **options}, "evaluation.k": 1}
    return Measure(f"follow-{world}", settings, prompt=prompt.system)


def demo_experiment(seed: int, steps: int | None = None) -> Experiment:
    """Both methods on the first task, then plain RL on the second from each, and from the base for comparison."""
    measures = tuple(follow(world) for world in OTHERS)
    base_measures = tuple(Measure(f"base-{m.name}", m.settings, m.prompt, weights="base") for m in measures)
    first = {
        method: {
            "method": method,
            "seed": seed,
            "slow.learning_rate": rate,
            "steps": steps or STEPS,
            "checkpoint_every": steps or STEPS,
        }
        for method, rate in RATES.items()
    }
    second: dict[str, Any] = {
        **first["rl"],
        "task.options": {"world": SECOND},
        "steps": steps or SECOND_STEPS,
    }
    return Experiment(
        "demo",
        base_config(),
        (
            Part("fst", first["fst"], measures=measures),
            Part("rl", first["rl"], measures=(*measures, *base_measures)),
            Part("second-after-fst", second, start="fst"),
            Part("second-after-rl", second, start="rl"),
            Part("second-after-nothing", second),
        ),
    )


def run_demo(directory: Path, *, seed: int = 0, steps: int | None = None, workers: int = 2) -> None:
    """Run it, show it, and say what happened."""
    console = Console()
    experiment = demo_experiment(seed, steps)
    introduce(console)
    if console.is_terminal:
        with LiveWatcher() as watcher:
            lines = run_experiment(experiment, directory, workers=workers, watcher=watcher)
    else:
        lines = run_experiment(experiment, directory, workers=workers, watcher=PlainWatcher())
    by_part = {line["part"]: line for line in lines}
    report(console, by_part, directory)


def introduce(console: Console) -> None:
    """What is going to be seen."""
    console.print(
        Text(
            f"A small model, and a task ({FIRST}) whose rules only the verifier knows. FST and RL alone start from the "
            f"same weights and the same prompt: “{SEED_PROMPT}”",
        )
    )


def report(console: Console, parts: Mapping[str, Line], directory: Path) -> None:
    """The table, what FST lost on, the prompt, and where everything is."""
    rows = table_lines(parts)
    table = Table(box=None, pad_edge=False, title="What happened", title_justify="left", title_style="bold")
    for name in ("", "FST", "RL alone", "better", "note"):
        table.add_column(name, justify="left" if name in ("", "better", "note") else "right")
    names = {**NAMES, "even": "even"}
    for row in rows:
        table.add_row(Text(row.what), row.text(row.fst), row.text(row.rl), names[row.verdict()], Text(row.note))
    console.print()
    console.print(table)
    lost = [row.what for row in rows if row.verdict() == "rl"]
    console.print(Text(f"\nFST lost on: {', '.join(lost) if lost else 'nothing, in this run with this seed'}."))
    console.print(Text("One seed is an illustration, not evidence: `fastslow lab reproduce` runs five and more.\n"))
    console.print(Text("The prompt that FST evolved:", style="bold"))
    console.print(Text(printable(parts["fst"]["prompt"] or ""), style="cyan"))
    # Not wrapped, so that paths can be copied.
    console.print(Text(f"\nRuns: {directory}/{{{','.join(parts)}}}"), soft_wrap=True)
    console.print(Text(f"Plots: {_plot(parts, directory)}"), soft_wrap=True)
    console.print(Text(f"Every prompt that was tried: fastslow prompts {directory / 'fst'} --all"), soft_wrap=True)


def _plot(parts: Mapping[str, Line], directory: Path) -> str:
    """Where the plot is, or why there is none: the numbers above do not depend on it."""
    picture = directory / "curves.png"
    curves = {"FST": [parts["fst"]["curve"]], "RL alone": [parts["rl"]["curve"]]}
    try:
        draw(curves, [(ROLLOUTS, ACCURACY), (SECONDS, ACCURACY), (ACCURACY, KL)], f"task {FIRST}, one seed", picture)
    except ConfigError as error:
        return str(error)
    return str(picture)


def table_lines(parts: Mapping[str, Line]) -> list[Compared]:
    """The comparison, in the order in which it is shown."""
    fst, rl = parts["fst"], parts["rl"]
    ends = [final_accuracy(part["curve"]) for part in (fst, rl)]
    level = THRESHOLD if min(ends) >= THRESHOLD else round(min(ends), 2)
    to_90 = [reached(part["curve"], THRESHOLD) for part in (fst, rl)]
    equal = [reached(part["curve"], level) for part in (fst, rl)]
    percent = f"{THRESHOLD:.0%}"
    base = _following(rl["measures"], "base")
    second = {name: final_accuracy(parts[f"second-after-{name}"]["curve"]) for name in ("fst", "rl", "nothing")}

    def line(what: str, values: Sequence[float | None], digits: int, smaller: bool, note: str = "") -> Compared:
        return Compared(what, values[0], values[1], digits, smaller, note)

    return [
        line(f"RL steps to {percent}", [p.step if p else None for p in to_90], 0, True),
        line(
            f"sampled rollouts to {percent}",
            [p.rollouts if p else None for p in to_90],
            0,
            True,
            "the search's included",
        ),
        line(f"training seconds to {percent}", [p.seconds if p else None for p in to_90], 1, True, "on one core each"),
        line("accuracy at the end", ends, 3, False, "mean of the last three"),
        line(f"KL at {level:.0%} accuracy", [p.kl if p else None for p in equal], 3, True, "nats a token"),
        line("KL at the end", [kl(part["curve"][-1]) for part in (fst, rl)], 3, True, "nats a token"),
        line(
            "following other prompts",
            [_following(part["measures"], "latest") for part in (fst, rl)],
            3,
            False,
            f"before training: {base:.3f}",
        ),
        line(
            f"second task ({SECOND}) under RL",
            [second["fst"], second["rl"]],
            3,
            False,
            f"from the base weights: {second['nothing']:.3f}",
        ),
    ]


def _following(measures: Mapping[str, Measured], weights: str) -> float:
    """Mean accuracy under the other tasks' right prompts."""
    found = [measures[f"follow-{world}" if weights == "latest" else f"base-follow-{world}"]["mean"] for world in OTHERS]
    return sum(found) / len(found)
