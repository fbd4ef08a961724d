"""Showing an experiment while it runs: which parts are under way, their last numbers and best prompts, time left."""

import sys
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fastslow.experiments.parts import Experiment
from fastslow.experiments.records import Line
from fastslow.experiments.runner import Status, run_experiment
from fastslow.runs.metrics import REWARD_MEAN, SAMPLED_TOTAL
from fastslow.runs.reader import Run, kl_mark
from fastslow.text import duration, printable


class PlainWatcher:
    """One line whenever a part ends, for logs and pipes."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, status: Status) -> None:
        for name in (*status.done, *status.failed):
            if name not in self.said:
                self.said.add(name)
                total = sum(map(len, (status.done, status.failed, status.running, status.waiting)))
                verdict = "failed" if name in status.failed else _last(status.directory / name)
                print(f"{status.experiment} {len(self.said)}/{total}: {name}: {verdict} [{_left(status)}]", flush=True)


class LiveWatcher:
    """A panel that stays in place. Use it as a context manager."""

    def __init__(self, *, prompts: bool = True) -> None:
        self.console = Console()
        self.live = Live(console=self.console, refresh_per_second=4)
        self.prompts = prompts

    def __enter__(self) -> "LiveWatcher":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, status: Status) -> None:
        self.live.update(self._render(status))

    def _render(self, status: Status) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("run", "step", "rollouts", "accuracy", "KL", "training reward", ""):
            table.add_column(name, justify="left" if name in ("run", "") else "right")
        texts = []
        for name in status.running:
            run = status.directory / name
            table.add_row(Text(name), *_numbers(run))
            best = Run(run).population[:1] if self.prompts else []
            texts += [Text(f"{name}, best prompt: {printable(' '.join(p.system.split()))}", style="cyan") for p in best]
        summary = (
            f"{status.experiment}: {len(status.done)} done, {len(status.running)} running, {len(status.waiting)} waiting"
            f"{f', {len(status.failed)} failed' if status.failed else ''} | {_left(status)}"
        )
        return Group(table, *texts, Text(summary, style="bold"))


def run_watched(experiment: Experiment, directory: Path, *, workers: int, results: Path) -> list[Line]:
    """`run_experiment`, shown while it runs."""
    watcher = make_watcher()
    with watcher if isinstance(watcher, LiveWatcher) else nullcontext():
        return run_experiment(experiment, directory, workers=workers, watcher=watcher, results=results)


def make_watcher() -> "LiveWatcher | PlainWatcher":
    """A live panel in a terminal, lines elsewhere."""
    return LiveWatcher() if sys.stdout.isatty() else PlainWatcher()


def bar(share: float, width: int = 20) -> str:
    """A bar of blocks."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "·" * (width - full)


def _numbers(path: Path) -> tuple[str, ...]:
    run = Run(path)
    if not run.steps:
        return ("-", "-", "-", "-", "-", "")
    evaluations = [point.evaluation for point in reversed(run.curve)]
    accuracy = next((found.accuracy for found in evaluations if found.accuracy is not None), None)
    kl = next((f"{found.kl:.3f}{kl_mark([found])}" for found in evaluations if found.kl is not None), "-")
    reward = run.steps[-1].get(REWARD_MEAN)
    return (
        str(run.steps[-1].number),
        str(run.steps[-1].get(SAMPLED_TOTAL)),
        "-" if accuracy is None else f"{accuracy:.3f}",
        kl,
        "-" if reward is None else f"{reward:.3f}",
        "" if accuracy is None else bar(accuracy),
    )


def _last(run: Path) -> str:
    step, rollouts, accuracy, kl, _, _ = _numbers(run)
    return f"step {step}, {rollouts} rollouts, accuracy {accuracy}, KL {kl}"


def _left(status: Status) -> str:
    """Time left, by the pace of the parts that ended while we watched."""
    left = len(status.running) + len(status.waiting)
    so_far = f"{duration(status.seconds)} so far"
    if not left:
        return so_far
    if not status.ended:
        return f"{so_far}, {left} runs to go"
    return f"{so_far}, about {duration(status.seconds / status.ended * left)} left"
