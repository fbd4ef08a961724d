"""Showing an experiment while it runs: which parts are under way, their last numbers and best prompts, time left."""

import sys
import time
from collections.abc import Callable
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

SILENCE_S = 30.0
"""The longest that a log stays without a new line, in seconds."""


class PlainWatcher:
    """One line whenever a part ends, and one about what runs when nothing was said for long, for logs and pipes."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.said: set[str] = set()
        self._left = _TimeLeft()
        self._now = now
        self._spoke = now()

    def __call__(self, status: Status) -> None:
        left = self._left(status)
        for name in (*status.done, *status.failed):
            if name not in self.said:
                self.said.add(name)
                total = sum(map(len, (status.done, status.failed, status.running, status.waiting)))
                verdict = "failed" if name in status.failed else _last(status.directory / name, "done")
                self._say(f"{status.experiment} {len(self.said)}/{total}: {name}: {verdict} [{left}]")
        if status.running and self._now() - self._spoke >= SILENCE_S:
            under_way = "; ".join(f"{name}: {_last(status.directory / name, 'starting')}" for name in status.running)
            self._say(f"  {under_way} [{left}]")

    def _say(self, line: str) -> None:
        self._spoke = self._now()
        print(line, flush=True)


class LiveWatcher:
    """A panel that stays in place. Use it as a context manager."""

    def __init__(self, *, prompts: bool = True) -> None:
        self.console = Console()
        self.live = Live(console=self.console, refresh_per_second=4)
        self.prompts = prompts
        self._left = _TimeLeft()

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
            f"{status.experiment}: {len(status.done)} done, {len(status.running)} running, {len(status.waiting)} "
            f"waiting{f', {len(status.failed)} failed' if status.failed else ''} | {self._left(status)}"
        )
        # A head without rows says nothing.
        return Group(*([table] if status.running else []), *texts, Text(summary, style="bold"))


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


def _last(run: Path, without: str) -> str:
    """The last numbers of a run; `without` any, what else there is to say."""
    step, rollouts, accuracy, kl, _, _ = _numbers(run)
    return without if step == "-" else f"step {step}, {rollouts} rollouts, accuracy {accuracy}, KL {kl}"


class _TimeLeft:
    """Time left, by the pace of what was done while we watched: there is an estimate before the first part ends.

    The pace counts from when the first of them began: loading is no part of it.
    """

    def __init__(self) -> None:
        self._began = (0.0, -1.0)

    def __call__(self, status: Status) -> str:
        to_go = len(status.running) + len(status.waiting)
        so_far = f"{duration(status.seconds)} so far"
        done = _work_done(status)
        if self._began[1] in (-1.0, done):
            self._began = (status.seconds, done)
        if not to_go:
            return so_far
        seconds, since = status.seconds - self._began[0], done - self._began[1]
        if since <= 0:
            return f"{so_far}, {to_go} runs to go"
        rest = max(0.0, sum(each.work for each in status.planned.values()) - done)
        return f"{so_far}, about {duration(seconds / since * rest)} left"


def _work_done(status: Status) -> float:
    """Of all parts; one that has ended, or failed, has no more to do."""
    done = 0.0
    for name, planned in status.planned.items():
        if name in status.done or name in status.failed:
            done += planned.work
        elif name in status.running and (steps := Run(status.directory / name).steps):
            done += planned.done(steps[-1].number, steps[-1].get(SAMPLED_TOTAL) or 0)
    return done
