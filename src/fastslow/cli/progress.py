"""Showing a run while it runs: a live panel in a terminal, plain lines elsewhere, at least one every half minute.

The loop tells an observer what happens; observers show it, or send it on (`training/tracking.py`).
"""

import logging
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from fastslow.cli.notebook import NotebookLive, in_notebook
from fastslow.cli.pace import Pace
from fastslow.experiments.watch import SILENCE_S
from fastslow.runs import metrics as m
from fastslow.runs.reader import Step, kl_mark
from fastslow.text import duration, printable
from fastslow.training.interrupts import MESSAGE

ROWS, PROMPT_LINES, LINES_BESIDE = 8, 6, 4
GAVE_UP = 130


class Display:
    """What every display of the command line has: it can be closed, and it shows each warning once.

    Warnings come as events and from the package's loggers. Those that differ in their numbers alone are one.
    Use it as a context manager.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self.doing = ""
        self.since = time.monotonic()
        self.at: dict[str, Any] = {}
        self.seen: dict[str, str] = {}
        """Each warning, and what it is without its numbers."""
        self._handler = _Forwarder(self.warn)

    def __enter__(self) -> "Display":
        logging.getLogger("fastslow").addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Show nothing more."""
        logging.getLogger("fastslow").removeHandler(self._handler)

    def give_up(self) -> None:
        """End the process at once: a second Ctrl-C was pressed, and the main thread does not come back to hear it."""
        os.write(2, b"\nfastslow: stopped at once: what is not in a checkpoint yet is lost\n")
        os._exit(GAVE_UP)

    def on_event(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Note what happens, and show it."""
        self.pace.on_event(kind, payload)
        if kind == "phase":
            self.doing, self.since, self.at = payload["name"], time.monotonic(), {}
        elif kind == "progress":
            self.at = dict(payload)
        if kind == "warning":
            self.warn(payload["message"], loud=payload.get("loud", False))
        else:
            self.show(kind, payload)

    def warn(self, message: str, *, loud: bool = False) -> None:
        """Show a warning, unless one like it was shown."""
        text = printable(message)
        # Events and loggers say the same.
        if text in self.seen:
            return
        like = re.sub(r"\d+", "#", text)
        known = like in self.seen.values()
        self.seen[text] = like
        if loud or not known:
            self.show_warning(text, loud)

    @property
    def repeated(self) -> list[str]:
        """Of the warnings that came again with other numbers, how often, in words."""
        first: dict[str, str] = {}
        for text, like in self.seen.items():
            first.setdefault(like, text)
        counts = Counter(self.seen.values())
        return [f"{counts[like] - 1} more like: {text}" for like, text in first.items() if counts[like] > 1]

    def status(self) -> str:
        """What the run does now, how far it is, and for how long: "evolving: 340/960 metric calls, ..."."""
        at, words = self.at, []
        if at:
            words.append(f"{at['done']}/{at['total']} {at['unit']}")
        if at.get("candidates") is not None:
            words.append(f"{at['candidates']} prompts")
        if at.get("best") is not None:
            words.append(f"best {at['best']:.3f}")
        words.append(duration(time.monotonic() - self.since))
        return f"{self.doing or 'starting'}: {', '.join(words)}"

    def show(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Show an event that is no warning."""

    def show_warning(self, text: str, loud: bool) -> None:
        """Show a warning."""
        raise NotImplementedError


class WarningsObserver(Display):
    """Shows warnings alone, on stderr."""

    def show_warning(self, text: str, loud: bool) -> None:
        """On stderr."""
        print(f"fastslow: {text}", file=sys.stderr)


class PlainObserver(Display):
    """One line a step, for logs and pipes; where a step takes long, one every `silence_s` seconds."""

    def __init__(self, silence_s: float | None = None) -> None:
        super().__init__()
        self._silence_s, self._lock = SILENCE_S if silence_s is None else silence_s, threading.Lock()
        self._spoke = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> "PlainObserver":
        super().__enter__()
        threading.Thread(target=self._tick, daemon=True, name="progress").start()
        return self

    def close(self) -> None:
        """No more lines."""
        super().close()
        self._over.set()

    def show(self, kind: str, payload: Mapping[str, Any]) -> None:
        """A line for what is worth one."""
        if kind == "start":
            engine = f"; {payload['engine']}" if payload.get("engine") else ""
            self._say(f"run {payload['output']}: from step {payload['step']}{engine}")
        elif kind == "cycle":
            score = payload["best_score"]
            best = "" if score is None else f", best on its anchors {score:.3f}"
            self._say(f"cycle {payload['cycle']}: {payload['metric_calls']} metric calls{best}")
        elif kind == "step":
            self._say(" | ".join(f"{name} {value}" for name, value in summary(payload).items()) + self._left())
        elif kind == "checkpoint":
            self._say(f"saved {payload['path']}")

    def show_warning(self, text: str, loud: bool) -> None:
        """A line of its own."""
        self._say(f"warning: {text}")

    def _left(self) -> str:
        left = self.pace.seconds_left()
        return "" if left is None else f" | {duration(left)} left"

    def _tick(self) -> None:
        while not self._over.wait(max(0.05, self._spoke + self._silence_s - time.monotonic())):
            if time.monotonic() - self._spoke >= self._silence_s:
                self._say(f"  {self.status()}{self._left()}")

    def _say(self, line: str) -> None:
        with self._lock:
            self._spoke = time.monotonic()
            print(line, flush=True)


class LiveObserver(Display):
    """A panel that stays in place: the last numbers, the best prompt, what happens now, and the bar. It is never higher
    than the terminal: the prompt is cut first, then the rows. Warnings scroll above it.
    """

    def __init__(self, *, notebook: bool = False) -> None:
        super().__init__()
        self.console = Console()
        one_line = {"table_column": Column(no_wrap=True)}
        self.progress = Progress(
            TextColumn("{task.description}", **one_line),  # type: ignore[arg-type]
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", **one_line),  # type: ignore[arg-type]
            TimeElapsedColumn(**one_line),
            TextColumn("{task.fields[left]}", **one_line),  # type: ignore[arg-type]
            console=self.console,
        )
        self.bar = self.progress.add_task("starting", total=1, left="")
        self.rows: list[dict[str, str]] = []
        self.prompt = ""
        self.live: Live | NotebookLive = (
            NotebookLive(self._render)
            if notebook
            else Live(console=self.console, get_renderable=self._render, refresh_per_second=4)
        )
        self.begun = False

    def __enter__(self) -> "LiveObserver":
        super().__enter__()
        self.live.start()
        return self

    def close(self) -> None:
        """Leave the panel as it stands, and give the terminal back. Of a run that never began nothing is left."""
        super().close()
        self.live.transient = not self.begun
        self.live.stop()

    def give_up(self) -> None:
        """As `Display.give_up`; the cursor is hidden while the panel lives."""
        os.write(1, b"\x1b[?25h")
        super().give_up()

    def show(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Change the panel."""
        if kind == "start":
            if payload.get("engine"):
                self.console.print(Text(payload["engine"], style="dim"))
            self.begun = True
            self.live.start()
        elif kind == "cycle":
            self.prompt = payload["population"][0].system
        elif kind == "step":
            self.rows = [*self.rows[1 - ROWS :], summary(payload)]
        elif kind in ("end", "abort"):
            self.live.stop()
        if isinstance(self.live, NotebookLive):
            self.live.refresh()

    def show_warning(self, text: str, loud: bool) -> None:
        """Above the panel."""
        style = "bold red" if loud or text == MESSAGE else "yellow"
        self.console.print(Text(f"warning: {text}", style=style))

    def _render(self) -> Group:
        # The bar and the status need two lines, the table its head, and the cursor one below.
        room = max(0, self.console.height - LINES_BESIDE)
        prompt = self._prompt(min(PROMPT_LINES, room // 2))
        left = self.pace.seconds_left()
        # An evaluation alone has no steps.
        alone = self.at if self.at and not self.pace.total else None
        self.progress.update(
            self.bar,
            description=self.doing if alone else f"step {self.pace.step}" if self.pace.total else "starting",
            completed=alone["done"] if alone else self.pace.done,
            total=alone["total"] if alone else self.pace.total or 1,
            left="" if left is None else f"{duration(left)} left",
        )
        status = Text(self.status(), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(*self._table(min(ROWS, room - len(prompt))), *prompt, status, self.progress)

    def _table(self, rows: int) -> list[Table]:
        shown = self.rows[-rows:] if rows > 0 else []
        if not shown:
            return []
        table = Table(box=None, pad_edge=False)
        names, width = list(shown[-1]), 0
        for place, name in enumerate(names):
            # What a narrow terminal does not hold is left out as a whole.
            width += 1 + max(len(name), *(len(row[name]) for row in shown))
            if width > self.console.width + 1:
                names = names[:place]
                break
            table.add_column(name, justify="right", no_wrap=True)
        for row in shown:
            table.add_row(*(row[name] for name in names))
        return [table]

    def _prompt(self, most: int) -> list[Text]:
        """The best prompt in at most so many lines."""
        lines = [line for line in printable(self.prompt).expandtabs(4).splitlines() if line.strip()]
        if not lines or most < 1:
            return []
        lines[0] = f"best prompt: {lines[0]}"
        if len(lines) > most:
            lines = [*lines[: most - 1], f"... and {len(lines) - most + 1} more lines"]
        return [Text(line, style="cyan", no_wrap=True, overflow="ellipsis") for line in lines]


class _Forwarder(logging.Handler):
    """Shows what the package's loggers warn of where the run is shown, and not a second time on stderr."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        """One warning."""
        self._warn(record.getMessage())


def summary(record: Mapping[str, object]) -> dict[str, str]:
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


def make_observer(*, quiet: bool = False) -> Display:
    """What the command line shows. The tracker that a config names is the run's own affair."""
    if quiet:
        return WarningsObserver()
    if in_notebook():
        return LiveObserver(notebook=True)
    return LiveObserver() if sys.stdout.isatty() else PlainObserver()


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
