"""`fastslow lab`: demo, reproduce, pretrain."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fastslow.errors import ConfigError, positive

EXPERIMENTS = ("compare", "continual", "precision", "ablate", "beyond")
"""The experiments of `worlds.experiments`, named without loading what they are made of."""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The subcommands and their options."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="FST and RL alone side by side, in three minutes on two cores")
    demo.add_argument("--output", type=Path, default=Path("runs/demo"))
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--steps", type=int, help="shorter runs, to try it out")
    demo.add_argument("--workers", type=int, default=2, help="runs side by side, one core each (default: 2)")
    demo.set_defaults(run=_demo)
    reproduce = commands.add_parser("reproduce", help="the paper's comparisons over seeds: hours, resumable")
    reproduce.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which of them: {', '.join(EXPERIMENTS)} (default: all)"
    )
    reproduce.add_argument("--output", type=Path, default=Path("runs/lab"), help="where the runs lie")
    reproduce.add_argument("--results", type=Path, default=Path("experiments/lab"), help="where results are written")
    reproduce.add_argument("--seeds", type=int, default=5)
    reproduce.add_argument("--workers", type=int, default=2, help="runs side by side, one core each (default: 2)")
    reproduce.add_argument("--report", action="store_true", help="only write tables and plots from the results so far")
    reproduce.set_defaults(run=_reproduce)
    pretrain = commands.add_parser("pretrain", help="make the lab's model from nothing, and its card")
    pretrain.add_argument("directory", type=Path, help="where the model is written")
    pretrain.add_argument("--steps", type=int, help="fewer steps in each stage than the recipe's, to try it out")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--threads", type=int, default=2)
    pretrain.add_argument("--floor-samples", type=int, default=16384, help="samples that each floor is measured with")
    pretrain.set_defaults(run=_pretrain)


def _demo(options: argparse.Namespace) -> int:
    from fastslow.lab.demo import run_demo

    run_demo(options.output, seed=options.seed, steps=options.steps, workers=positive("--workers", options.workers))
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from fastslow.lab.reproduce import reproduce

    reproduce(
        options.names,
        runs=options.output,
        results=options.results,
        seeds=positive("--seeds", options.seeds),
        workers=positive("--workers", options.workers),
        report_only=options.report,
    )
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    import torch

    from fastslow.lab import card
    from fastslow.lab.pretrain import Recipe, pretrain

    if options.directory.exists() and any(options.directory.iterdir()):
        raise ConfigError(f"directory: {str(options.directory)!r} is not empty: choose another one")
    torch.set_num_threads(positive("--threads", options.threads))
    changes: dict[str, Any] = {"seed": options.seed}
    if options.steps is not None:
        steps = positive("--steps", options.steps)
        changes |= {"stated_steps": steps, "habit_steps": steps}
    recipe = Recipe(**changes)
    with _Progress(recipe.steps) as progress:
        made = pretrain(recipe, options.directory, progress)
    card.write_phrasebook(options.directory)
    print("measuring accuracy and floors", flush=True)
    card.write_card(options.directory, recipe, made, card.measure(options.directory, options.floor_samples))
    print(f"wrote {options.directory}; its card is {options.directory / 'README.md'}")
    return 0


class _Progress:
    """A bar in a terminal, a line every hundred steps elsewhere; the loss is a mean over the last steps."""

    def __init__(self, steps: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.steps, self.mean = steps, 0.0
        self.bar = None
        if sys.stdout.isatty():
            self.bar = Progress(
                TextColumn("pretraining, loss {task.fields[loss]:.3f}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.task = self.bar.add_task("", total=steps, loss=0.0)

    def __enter__(self) -> "_Progress":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, step: int, loss: float, seconds: float) -> None:
        self.mean = loss if step == 1 else 0.98 * self.mean + 0.02 * loss
        if self.bar is not None:
            self.bar.update(self.task, completed=step, loss=self.mean)
        elif step % 100 == 0 or step == self.steps:
            left = seconds / step * (self.steps - step)
            print(f"pretraining: step {step} of {self.steps}, loss {self.mean:.3f}, {left:.0f} s left", flush=True)
