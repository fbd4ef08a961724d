"""Seconds and memory of each command on a large run and a large data set: both are made here, by a seed.

    python benchmarks/load.py --work DIRECTORY [--steps 10000] [--prompts 20000] [--rows 200000]
    python benchmarks/load.py --work DIRECTORY --before OTHER/src     # an older version beside it, on the same files
    python benchmarks/load.py --report                                # the tables of docs/performance.md alone
    python benchmarks/load.py --work DIRECTORY --train 100            # the memory of a run, step by step

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
from typing import Any

from fastslow.config import load_config, parse_config
from fastslow.runs.checksums import changed_files, write_sums
from fastslow.runs.directory import RunDirectory
from fastslow.runs.files import METRICS, POPULATION, PROMPTS
from fastslow.runs.files import SAMPLES as ROLLOUTS
from fastslow.runs.record import StepRecord
from fastslow.text import markdown_table
from fastslow.types import Prompt

RESULTS = Path(__file__).parent / "results"
ANCHORS, LINES, SAMPLES = 16, 24, 16
"""Scores of a candidate, lines of its text, and kept rollouts of a step (the default of `rollout_samples`)."""
MARK = "load"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
SOURCE = Path(__file__).resolve().parents[1] / "src"


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
    shutil.copyfile(config, path / "config.yaml")  # an older version knows no options that came later
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
    (path / ROLLOUTS).mkdir(exist_ok=True)
    for step in range(1, steps + 1):
        lines = [_sample(step, number, prompt, draw) for number in range(SAMPLES)]
        (path / ROLLOUTS / f"step_{step}.jsonl").write_text("".join(lines), encoding="utf-8")


def _sample(step: int, number: int, prompt: Prompt, draw: random.Random) -> str:
    question = f"Problem {step}.{number}: what is {draw.getrandbits(20)} plus {draw.getrandbits(20)}?"
    line = {
        "problem": f"p-{step}-{number}",
        "prompt": prompt.hash,
        "question": [{"role": "user", "content": question}],
        "reference": str(draw.getrandbits(21)),
        "text": f"{draw.getrandbits(256):x}",
        "reward": draw.random(),
        "feedback": "Say it in one number.",
        "failure": None,
        "finish_reason": "stop",
        "source": "rl",
        "policy_version": step,
    }
    return json.dumps(line) + "\n"


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


def measure(command: Sequence[str], log: Path, source: Path = SOURCE) -> dict[str, object]:
    """CPU seconds and peak MB of a command, and how it ended, with the package as it lies in a directory."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastslow", *command], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
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
    from fastslow.loop import train  # the tables alone need no torch

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


def measure_commands(options: argparse.Namespace) -> dict[str, object]:
    """Every command on the run and on the data, in both versions where there is another one, and on next to nothing."""
    work, few = options.work, options.work / "few"
    run, html = work / "run", str(work / "report.html")
    for path, steps, prompts in ((run, options.steps, options.prompts), (few / "run", 1, 2)):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make_run(path, steps, prompts)
    data, small = make_data(work, options.rows), make_data(few, 300)
    sources = {"now": SOURCE} if options.before is None else {"before": options.before, "now": SOURCE}
    rows = []
    for name, command in commands(run, data, html).items():
        if options.only in name:
            found = {version: measure(command, work / "log", source) for version, source in sources.items()}
            least = measure(commands(few / "run", small, html)[name], work / "log")
            rows.append({"command": name, **found, "least": least})
            print(rows[-1], flush=True)
    sizes = {"steps": options.steps, "prompts": options.prompts, "samples": SAMPLES, "rows": options.rows}
    disk = {name: round(bytes_in(run / name) / 1e6, 1) for name in (METRICS, PROMPTS, ROLLOUTS)}
    return {**sizes, "disk_mb": disk, "commands": rows}


def bytes_in(path: Path) -> int:
    """Bytes of a file, or of all files of a directory."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))


def commands(run: Path, data: Path, html: str) -> dict[str, list[str]]:
    """What is measured."""
    return {
        "prompts": ["prompts", str(run)],
        "prompts --best": ["prompts", str(run), "--best"],
        "prompts --all": ["prompts", str(run), "--all"],
        "prompts --tree": ["prompts", str(run), "--tree"],
        "prompts --rollouts": ["prompts", str(run), "--rollouts"],
        "report": ["report", str(run), "--output", html],
        "train --dry-run": ["train", str(data), "--dry-run"],
    }


def report(found: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    header = ("command", "before: CPU s, MB", "now: CPU s, MB", "of these, start-up")
    rows = [
        [f"`{each['command']}`", *(_told(each.get(version)) for version in ("before", "now", "least"))]
        for each in found["commands"]
    ]
    lines = [
        f"A run of {found['steps']:,} steps with {found['prompts']:,} prompts and {found['samples']} kept rollouts a "
        f"step, and {found['rows']:,} rows of data:",
        "",
        *markdown_table(header, rows),
    ]
    if "disk_mb" in found:
        sizes = ", ".join(f"{size:g} MB ({name})" for name, size in found["disk_mb"].items())
        lines += [f"Its lines take {sizes} on the disk.", ""]
    memory = found.get("training")
    if memory is not None:
        at = [memory["mb"][step - 1] for step in memory["shown"]]
        lines += [
            f"Memory after steps of {memory['rollouts']:,} rollouts each, the lab's model trained:",
            "",
            *markdown_table(("step", *map(str, memory["shown"])), [["MB", *(f"{value:,}" for value in at)]]),
        ]
    return "\n".join(lines).rstrip()


def _told(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['cpu_s']:.1f}, {found['peak_mb']}" + ("" if found["status"] == 0 else ", failed")


def write_tables(results: Path) -> None:
    """Put the tables of what was measured into the page."""
    text = report(json.loads(results.read_text(encoding="utf-8")))
    begin, end = f"<!-- {MARK}: begin, made by benchmarks/{MARK}.py --report -->", f"<!-- {MARK}: end -->"
    page = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(f"{page.split(begin)[0]}{begin}\n\n{text}\n\n{end}{page.split(end)[1]}", encoding="utf-8")
    print(text)


def keep(results: Path, found: Mapping[str, object]) -> None:
    """Put what was measured beside what the file has."""
    known = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    results.write_text(json.dumps({**known, **found}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Make the run and the data, run every command, print a table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the tables from the results")
    parser.add_argument("--work", type=Path, help="a directory for what is made")
    parser.add_argument("--before", type=Path, metavar="SRC", help="the src/ of another version, measured as well")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", default="", help="commands with this word in them")
    parser.add_argument("--json", type=Path, default=RESULTS / "load.json")
    parser.add_argument("--checksums", type=int, metavar="MB", help="measure only what checksums of so many MB cost")
    parser.add_argument("--train", type=int, metavar="STEPS", help="measure only the memory of a run of so many steps")
    parser.add_argument("--rollouts", type=int, default=2000, help="of --train, a step")
    options = parser.parse_args()
    if not options.report:
        if options.work is None:
            parser.error("--work is missing: it names a directory for what is made")
        options.work.mkdir(parents=True, exist_ok=True)
        if options.checksums:
            print(json.dumps(measure_checksums(options.work, options.checksums)))
            return
        if options.train:
            memory = measure_training(options.work, options.train, options.rollouts)
            shown = sorted({1, 2, *(max(1, options.train * part // 10) for part in (1, 2, 5, 7, 10))})
            mb = [each["mb"] for each in memory]
            keep(options.json, {"training": {"rollouts": options.rollouts, "shown": shown, "mb": mb}})
        else:
            keep(options.json, measure_commands(options))
    if options.json == RESULTS / "load.json":
        write_tables(options.json)


if __name__ == "__main__":
    main()
