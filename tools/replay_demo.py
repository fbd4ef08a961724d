"""Shows a finished `fastslow lab demo` again, in seconds: what its terminal said, from its run directories.

    fastslow lab demo --output /tmp/demo
    title="fastslow lab demo"
    python tools/record_demo.py docs/images/demo.svg --title "$title" -- python tools/replay_demo.py /tmp/demo

Every number, prompt and table is the demo's own, and the code that draws them is the demo's too. Only the time is
shortened: the runs are shown as they stood at some moments of the demo.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fastslow.experiments.runner import Status
from fastslow.experiments.watch import LiveWatcher
from fastslow.lab.demo import demo_experiment, introduce, report
from fastslow.runs.directory import write_atomically
from fastslow.runs.family import populations
from fastslow.runs.files import CONFIG, METRICS, POPULATION, read_lines
from fastslow.runs.metrics import STEP_S
from fastslow.runs.reader import Run

WORKERS = 2


@dataclass(frozen=True)
class Played:
    """A run of the demo, and when it began and ended, in seconds since the demo's start."""

    name: str
    run: Run
    begin: float
    end: float


def schedule(directory: Path) -> list[Played]:
    """When each part ran: as many side by side as there are workers, in the demo's order, after what it starts from."""
    free, ends, played = [0.0] * WORKERS, dict[str, float](), []
    for part in demo_experiment(0).parts:
        run = Run(directory / part.name)
        worker = min(range(WORKERS), key=free.__getitem__)
        begin = max(free[worker], ends.get(part.start or "", 0.0))
        ends[part.name] = free[worker] = begin + sum(step.amount(STEP_S) for step in run.steps)
        played.append(Played(part.name, run, begin, free[worker]))
    return played


def stand(part: Played, at: float, folder: Path) -> None:
    """Write a run's directory as it stood so many seconds after the demo's start."""
    target = folder / part.name
    target.mkdir(exist_ok=True)
    shutil.copyfile(part.run.path / CONFIG, target / CONFIG)
    lines, clock = [], part.begin
    for step in part.run.steps:
        clock += step.amount(STEP_S)
        if clock <= at:
            lines.append(dict(step.values))
    write_atomically(target / METRICS, "".join(json.dumps(line) + "\n" for line in lines))
    members = _members(part.run, int(lines[-1]["cycle"]) if lines else 0)
    if members:
        write_atomically(target / POPULATION, json.dumps({"population": members}))


def _members(run: Run, cycle: int) -> Sequence[Mapping[str, Any]]:
    """The population that a cycle brought: what the next search started from, after the last search the final one."""
    if not cycle:
        return []
    texts = {line["hash"]: line["components"] for line in run.candidates}
    for later, hashes in sorted(populations(run.candidates).items()):
        if later > cycle:
            return [{"hash": hash_, "components": texts[hash_], "mean": None} for hash_ in hashes]
    return run.members


def main() -> int:
    """Show the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="what `fastslow lab demo --output` wrote")
    parser.add_argument("--moments", type=int, default=40, help="how many moments are shown")
    parser.add_argument("--pause", type=float, default=0.4, help="seconds between two moments")
    options = parser.parse_args()
    played = schedule(options.demo)
    total = max(part.end for part in played)
    planned = {part.name: part.run.config.steps for part in played}
    console = Console()
    introduce(console)
    with tempfile.TemporaryDirectory() as place, LiveWatcher() as watcher:
        folder = Path(place)
        for moment in range(1, options.moments + 1):
            at = total * moment / options.moments
            running = [part for part in played if part.begin <= at < part.end]
            done = [part for part in played if part.end <= at]
            for part in running:
                stand(part, at, folder)
            names = [tuple(part.name for part in some) for some in (running, done)]
            waiting = tuple(part.name for part in played if part.begin > at)
            watcher(Status("demo", folder, names[0], waiting, names[1], (), at, len(done), planned))
            time.sleep(options.pause)
    lines = {line["part"]: line for line in read_lines(options.demo / "results.jsonl")}
    report(console, {part.name: lines[part.name] for part in demo_experiment(0).parts}, options.demo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
