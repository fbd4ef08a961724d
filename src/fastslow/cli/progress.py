"""Showing a run while it runs: a live panel in a terminal, one plain line a step elsewhere.

The loop tells an observer what happens; observers show it, or send it on (`training/tracking.py`).
"""

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fastslow.cli.notebook import NotebookLive, in_notebook
from fastslow.runs import metrics as m
from fastslow.runs.reader import Step, kl_mark
from fastslow.text import duration, printable
from fastslow.training.observer import Observer


class WarningsObserver:
    """Shows warnings alone, on stderr."""

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "warning":
            print(f"fastslow: {printable(payload['message'])}", file=sys.stderr)


class PlainObserver:
    """One line a step, for logs and pipes."""

    def __init__(self) -> None:
        self.clock = _Clock()

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        self.clock.on_event(kind, payload)
        if kind == "start":
            engine = f"; {payload['engine']}" if payload.get("engine") else ""
            self._say(f"run {payload['output']}: from step {payload['step']}{engine}")
        elif kind == "cycle":
            score = payload["best_score"]
            best = "" if score is None else f", best on its anchors {score:.3f}"
            self._say(f"cycle {payload['cycle']}: {payload['metric_calls']} metric calls{best}")
        elif kind == "step":
            left = self.clock.seconds_left()
            eta = "" if left is None else f" | {duration(left)} left"
            self._say(" | ".join(f"{name} {value}" for name, value in summary(payload).items()) + eta)
        elif kind == "warning":
            self._say(f"warning: {printable(payload['message'])}")
        elif kind == "checkpoint":
            self._say(f"saved {payload['path']}")

    @staticmethod
    def _say(line: str) -> None:
        print(line, flush=True)


class LiveObserver:
    """A panel that stays in place: progress, the last numbers, the best prompt; warnings scroll above it."""

    def __init__(self, *, notebook: bool = False) -> None:
        self.clock = _Clock()
        self.console = Console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.bar = self.progress.add_task("starting", total=1)
        self.rows: list[dict[str, str]] = []
        self.prompt = ""
        self.live: Live | NotebookLive = (
            NotebookLive(self._render)
            if notebook
            else Live(console=self.console, get_renderable=self._render, refresh_per_second=4)
        )

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        self.clock.on_event(kind, payload)
        if kind == "start":
            total = payload["max_rollouts"] or payload["steps"]
            self.progress.update(self.bar, total=total)
            if payload.get("engine"):
                self.console.print(Text(payload["engine"], style="dim"))
            self.live.start()
        elif kind == "phase":
            self.progress.update(self.bar, description=payload["name"])
        elif kind == "cycle":
            self.prompt = payload["population"][0].system
        elif kind == "step":
            done = payload[m.SAMPLED_TOTAL.name] if self.clock.max_rollouts else payload["step"]
            self.progress.update(self.bar, completed=done)
            self.rows = [*self.rows[-7:], summary(payload)]
        elif kind == "warning":
            self.console.print(Text(f"warning: {printable(payload['message'])}", style="yellow"))
        elif kind in ("end", "abort"):
            self.live.stop()
        if isinstance(self.live, NotebookLive):
            self.live.refresh()

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in self.rows[-1] if self.rows else ():
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(*row.values())
        prompt = Text(f"best prompt: {printable(self.prompt)}", style="cyan") if self.prompt else Text("")
        return Group(table, prompt, self.progress)


class _Clock:
    """How long the rest will take, by the pace so far."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.total = self.first = self.done = 0
        self.max_rollouts: int | None = None

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "start":
            self.max_rollouts = payload["max_rollouts"]
            self.total = self.max_rollouts or payload["steps"]
            self.first = self.done = payload["rollouts"] if self.max_rollouts else payload["step"]
            self.started = time.monotonic()
        elif kind == "step":
            self.done = payload[m.SAMPLED_TOTAL.name] if self.max_rollouts else payload["step"]

    def seconds_left(self) -> float | None:
        made = self.done - self.first
        if made <= 0:
            return None
        return (time.monotonic() - self.started) / made * max(0, self.total - self.done)


def summary(record: dict[str, object]) -> dict[str, str]:
    """The numbers of a step that people watch, as text."""
    step = Step(record)
    found = step.evaluation
    sampling_s = step.amount(m.SAMPLE_S) + step.amount(m.EVOLVE_S)
    rate = step.amount(m.SAMPLED) / sampling_s if sampling_s else None
    return {
        "step": str(step.number),
        "reward": _number(step.get(m.REWARD_MEAN)),
        "val": _number(found.accuracy),
        "KL": _number(found.kl) + kl_mark([found]),
        "loss": _number(step.get(m.LOSS)),
        "rollouts": str(step.get(m.SAMPLED_TOTAL)),
        "reused": str(step.get(m.REUSED)),
        "rollouts/s": _number(rate, 1),
        "s": _number(step.get(m.STEP_S), 1),
    }


def make_observer(*, quiet: bool = False) -> Observer:
    """What the command line shows. The tracker that a config names is the run's own affair."""
    if quiet:
        return WarningsObserver()
    if in_notebook():
        return LiveObserver(notebook=True)
    return LiveObserver() if sys.stdout.isatty() else PlainObserver()


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
