"""Seconds and memory of each command on a large run and a large data set: both are made here, by a seed.

    python benchmarks/load.py --work DIRECTORY [--steps 10000] [--prompts 20000] [--rows 200000]

The run has the files of a real one, with a lineage as deep as it has cycles. Seconds are CPU seconds of the command's
process, the import of its libraries included, so that other work on the machine does not count; memory is its peak.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastslow.config import load_config, parse_config
from fastslow.loop import train
from fastslow.runs.checksums import changed_files, write_sums
from fastslow.runs.directory import RunDirectory
from fastslow.runs.files import METRICS, POPULATION, PROMPTS, SAMPLES
from fastslow.runs.record import StepRecord
from fastslow.text import markdown_table
from fastslow.types import Prompt

RESULTS = Path(__file__).parent / "results"
ANCHORS, LINES = 16, 24


def make_run(path: Path, steps: int, prompts: int, seed: int = 0) -> None:
    """A run directory with so many steps and candidates. Half of the candidates make one line of descent."""
    draw = random.Random(seed)
    config = path.parent / "config.yaml"
    config.write_text(
        f"model: {{name: package:fastslow.lab/model}}\ntask: {{name: lab, options: {{world: amber}}}}\nsteps: {steps}\n"
        f"output: {path}\nsampling: {{max_tokens: 24}}\n",
        encoding="utf-8",
    )
    run = RunDirectory(path)
    run.create(load_config(config))
    run.close()
    _write_metrics(path, steps, draw)
    last = _write_prompts(path, prompts, max(1, steps // max(1, prompts)), draw)
    member = {"hash": last.hash, "components": last.as_dict(), "mean": 0.5}
    (path / POPULATION).write_text(json.dumps({"population": [member]}), encoding="utf-8")
    _write_samples(path, steps, last, draw)


def _write_metrics(path: Path, steps: int, draw: random.Random) -> None:
    with (path / METRICS).open("w", encoding="utf-8") as file:
        for step in range(steps + 1):
            record = StepRecord()
            line = record.finish(
                step=step, cycle=step, policy_version=step, usd_total=0.0, sampled_total=step * 64, population_size=4
            )
            for name in line:
                if name.startswith(("slow/", "reward/")) and line[name] is None:
                    line[name] = draw.random()
            if step % 10 == 0:
                line |= {"val/mean@4": draw.random(), "val/best@4": draw.random(), "kl/base": draw.random()}
            file.write(json.dumps(line) + "\n")


def _write_prompts(path: Path, prompts: int, step: int, draw: random.Random) -> Prompt:
    """Each second candidate is accepted, and the parent of the next two."""
    lines, parent = ["Answer."], None
    best = Prompt.of(lines[0])
    with (path / PROMPTS).open("w", encoding="utf-8") as file:
        for number in range(prompts):
            accepted = number % 2 == 0
            texts = [*lines, f"Rule {number}: {draw.getrandbits(64):x} before {draw.getrandbits(64):x}."][-LINES:]
            child = Prompt.of("\n".join(texts))
            scores = {f"p-{problem}": draw.random() for problem in range(ANCHORS)} if accepted else {}
            line = {
                "id": number,
                "hash": child.hash,
                "parent": parent,
                "cycle": 1 + number * step // 2,
                "components": child.as_dict(),
                "accepted": accepted,
                "reason": "better on its minibatch: 0.000 -> 0.333 of 3" if accepted else "not better",
                "mean": sum(scores.values()) / ANCHORS if scores else None,
                "scores": scores,
                "feedback": [f"The rule {number} was broken."],
            }
            file.write(json.dumps(line) + "\n")
            if accepted:
                lines, parent, best = texts, child.hash, child
    return best


def _write_samples(path: Path, steps: int, prompt: Prompt, draw: random.Random) -> None:
    (path / SAMPLES).mkdir(exist_ok=True)
    for step in range(1, steps + 1):
        line = {
            "problem": f"p-{step}",
            "prompt": prompt.hash,
            "text": f"{draw.getrandbits(256):x}",
            "reward": draw.random(),
            "feedback": "",
            "failure": None,
            "finish_reason": "stop",
            "source": "rl",
            "policy_version": step,
        }
        (path / SAMPLES / f"step_{step}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")


def make_data(path: Path, rows: int, seed: int = 0) -> Path:
    """A data set of sums, and a config that trains on it."""
    draw = random.Random(seed)
    with (path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            a, b = draw.randrange(10**6), draw.randrange(10**6)
            question = f"Problem {number}: what is {a} plus {b}? Say it in one number, without a word beside it."
            file.write(json.dumps({"question": question, "answer": a + b}) + "\n")
    config = path / "data.yaml"
    options = f"data: {path / 'rows.jsonl'}, prompt: question, answer: answer, scorer: number"
    config.write_text(
        f"model: {{name: package:fastslow.lab/model}}\noutput: {path / 'never'}\nsampling: {{max_tokens: 24}}\n"
        f"task: {{name: records, options: {{{options}, splits: {{train: rest, validation: 100}}}}}}\n",
        encoding="utf-8",
    )
    return config


def measure(command: Sequence[str], log: Path) -> dict[str, object]:
    """CPU seconds, wall seconds and peak MB of a command."""
    begin = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "fastslow", *command], stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    return {
        "command": " ".join(command),
        "status": os.waitstatus_to_exitcode(status),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_s": round(time.monotonic() - begin, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "output_bytes": log.stat().st_size,
    }


def measure_checksums(work: Path, megabytes: int) -> dict[str, float]:
    """What checksums of a checkpoint of so many MB cost, beside writing and reading it; CPU seconds."""
    directory = work / "checkpoint"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    piece = random.Random(0).randbytes(1 << 20)

    def write() -> None:
        with (directory / "model.safetensors").open("wb") as file:
            for _ in range(megabytes):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def read() -> None:
        with (directory / "model.safetensors").open("rb") as file:
            while file.read(1 << 20):
                pass

    found = {"megabytes": float(megabytes)}
    sums = {"sums at save": lambda: write_sums(directory), "read": read, "sums at load": lambda: check(directory)}
    for name, step in {"write": write, **sums}.items():
        before = time.process_time()
        step()
        found[name] = round(time.process_time() - before, 3)
    shutil.rmtree(directory)
    return found


def check(directory: Path) -> None:
    """Compare the checksums, as `--resume` does before a model loads."""
    changed = changed_files(directory)
    if changed:
        raise RuntimeError(f"{directory} changed: {changed}")


def measure_training(work: Path, steps: int, rollouts: int) -> list[dict[str, float]]:
    """The resident memory after each step of a run of the lab's model with so many rollouts a step, in MB."""
    options = {
        "model": {"name": "package:fastslow.lab/model"},
        "task": {"name": "lab", "options": {"world": "amber"}},
        "method": "rl",
        "steps": steps,
        "threads": 1,
        "output": str(work / "long"),
        "checkpoint_every": max(1, steps // 4),
        "kept_checkpoints": 2,
        "loop": {"group_size": 8, "population_size": 1, "problems_per_step": rollouts // 8, "steps_per_cycle": 1},
        "sampling": {"max_tokens": 24},
        "evaluation": {"every": 0},
    }
    shutil.rmtree(work / "long", ignore_errors=True)
    memory: list[dict[str, float]] = []

    class Watch:
        def on_event(self, kind: str, values: Mapping[str, object]) -> None:
            if kind == "step":
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                memory.append(
                    {"step": float(str(values["step"])), "mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)}
                )

    train(parse_config(options), observer=Watch())
    return memory


def main() -> None:
    """Make the run and the data, run every command, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", default="", help="commands with this word in them")
    parser.add_argument("--json", type=Path, default=RESULTS / "load.json")
    parser.add_argument("--checksums", type=int, metavar="MB", help="measure only what checksums of so many MB cost")
    parser.add_argument("--train", type=int, metavar="STEPS", help="measure only the memory of a run of so many steps")
    parser.add_argument("--rollouts", type=int, default=2000, help="of --train, a step")
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    if options.checksums or options.train:
        found: object = measure_checksums(work, options.checksums) if options.checksums else None
        found = found or measure_training(work, options.train, options.rollouts)
        print(json.dumps(found))
        return
    run = work / "run"
    if not run.exists():
        make_run(run, options.steps, options.prompts)
    data = make_data(work, options.rows)
    html = str(work / "report.html")
    commands = {
        "--help": ["--help"],
        "prompts": ["prompts", str(run)],
        "prompts --best": ["prompts", str(run), "--best"],
        "prompts --all": ["prompts", str(run), "--all"],
        "prompts --tree": ["prompts", str(run), "--tree"],
        "prompts --rollouts": ["prompts", str(run), "--rollouts"],
        "report": ["report", str(run), "--output", html],
        "train --dry-run": ["train", str(data), "--dry-run"],
    }
    rows = []
    for name, command in commands.items():
        if options.only in name:
            rows.append({**measure(command, work / "log"), "command": name})
            print(rows[-1], flush=True)
    sizes = {"steps": options.steps, "prompts": options.prompts, "rows": options.rows}
    options.json.write_text(json.dumps({**sizes, "commands": rows}, indent=1) + "\n", encoding="utf-8")
    header = ("command", "CPU s", "peak MB", "status")
    print(
        "\n".join(
            markdown_table(header, [[str(row[k]) for k in ("command", "cpu_s", "peak_mb", "status")] for row in rows])
        )
    )


if __name__ == "__main__":
    main()
