"""One RL step (sampling and update) of fastslow's local engine against TRL's GRPOTrainer, side by side in one run.

    python benchmarks/step_vs_trl.py --model DIR --trl-python .venv-trl/bin/python --threads 2
    python benchmarks/step_vs_trl.py --report

Each side lives in a process of its own and takes its turn; steps alternate, so that a change of the machine's mood hits
all sides. Every step is written to the results file as it ends. What is equal and what is not: docs/performance.md.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from step_report import write_report
from workload import CASES, MARK, Settings, Workload

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "step_vs_trl.json"
PRECISIONS = ("float32", "bfloat16")
# By the flags of /proc/cpuinfo, the widest first.
ARITHMETIC = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2"}
# glibc otherwise hands every large tensor back to the system; fastslow tells it so itself, TRL's fastest gets it here.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


@dataclass(frozen=True)
class Side:
    """One competitor: its script, whether it runs in TRL's environment, its variant and extra environment variables."""

    script: str
    in_trl: bool = False
    variant: str = ""
    environment: tuple[tuple[str, str], ...] = ()


SIDES = {
    "products": Side("arithmetic.py"),
    "trl": Side("trl_step.py", True, "masters"),
    "trl_fastest": Side("trl_step.py", True, "weights", tuple(KEEP_MEMORY.items())),
    "fastslow": Side("fastslow_step.py"),
    "plain": Side("fastslow_step.py", variant="plain"),
}
SIDES_BY_DEFAULT = [name for name in SIDES if name != "plain"]


class Worker:
    """A side's process. It answers each order with one event."""

    def __init__(self, side: Side, python: str, settings: Settings) -> None:
        threads = str(settings.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", **dict(side.environment)}
        self.name = side.script
        self.process = subprocess.Popen(
            [python, str(HERE / side.script), settings.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.ready = self._answer()

    def step(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        load = os.getloadavg()[0]
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return {**self._answer(), "load_average": load, "at": at}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return dict(json.loads(line.removeprefix(MARK)))
        raise RuntimeError(f"{self.name} ended with status {self.process.wait()}: its last words are above")


def main() -> None:
    options = parse_options()
    if not options.report:
        for case in options.cases:
            for precision in options.precisions:
                measure(options, case, precision)
    print(write_report(options.results))


def measure(options: argparse.Namespace, case: str, precision: str) -> None:
    """All sides on one case in one precision; leaves the record in the results file, step by step."""
    workload = Workload(
        case, options.problems, options.group, options.prompts if case == "b" else 1, options.new_tokens
    )
    common = Settings(workload, options.model, precision, options.threads, options.clock, "", 0)
    record = {
        "case": case,
        "precision": precision,
        "threads": options.threads,
        "clock": options.clock,
        "one_at_a_time": options.one_at_a_time,
        "workload": asdict(workload),
        "machine": machine(),
        "revision": revision(),
        "sides": {},
    }
    ready: dict[str, dict[str, Any]] = {}
    for names in [[name] for name in options.sides] if options.one_at_a_time else [options.sides]:
        workers: dict[str, Worker] = {}
        try:
            for name in names:
                workers[name] = start(name, options, common)
                ready[name] = workers[name].ready
                record["sides"][name] = {"steps": [], "warmup": [], **about(ready[name])}
            record["flops"] = count_flops(options.model, ready, workload.new_tokens)
            take_turns(options, workers, record)
        finally:
            for worker in workers.values():
                worker.close()


def take_turns(options: argparse.Namespace, workers: dict[str, Worker], record: dict[str, Any]) -> None:
    """Step after step, a step of each side before the next of any."""
    for turn in range(-options.warmup, options.repeats):
        for name, worker in workers.items():
            record["sides"][name]["warmup" if turn < 0 else "steps"].append(worker.step())
            print(progress(record, name, turn), flush=True)
            save(options.results, key_of(record), record)


def start(name: str, options: argparse.Namespace, common: Settings) -> Worker:
    side = SIDES[name]
    microbatch = options.trl_rows if side.in_trl else options.microbatch_tokens
    python = options.trl_python if side.in_trl else sys.executable
    return Worker(side, python, replace(common, variant=side.variant, microbatch=microbatch))


def about(ready: dict[str, Any]) -> dict[str, Any]:
    """What a side said of itself, its contexts aside."""
    return {key: value for key, value in ready.items() if key not in ("contexts", "event", "peak_rss_bytes")}


def count_flops(model: str, ready: dict[str, dict[str, Any]], new_tokens: int) -> dict[str, int]:
    """Operations of a step with and without sharing. Raises RuntimeError where the sides see different tokens."""
    from arithmetic import Network, step_flops

    seen = {name: said["contexts"] for name, said in ready.items() if "contexts" in said}
    if not seen:
        return {}
    contexts = next(iter(seen.values()))
    if any(other != contexts for other in seen.values()):
        raise RuntimeError(f"the sides do not have the same contexts: {', '.join(seen)}")
    network = Network(model)
    flops = {name: step_flops(network, contexts, new_tokens, name == "shared") for name in ("shared", "unshared")}
    return {**flops, "context_tokens": sum(len(context) for context in contexts)}


def progress(record: dict[str, Any], name: str, turn: int) -> str:
    last = record["sides"][name]["warmup" if turn < 0 else "steps"][-1]
    times = [f"{key} {value:.4g}" for key, value in last.items() if isinstance(value, float)]
    return f"{record['case']} {record['precision']} {name} {'warm-up' if turn < 0 else turn + 1}: {', '.join(times)}"


def save(path: Path, key: str, record: dict[str, Any]) -> None:
    """Put one record into the results file, atomically."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[key] = record
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def key_of(record: dict[str, Any]) -> str:
    """What a record is kept under: the same measurement on another processor is another record."""
    measured = (record["case"], record["precision"], record["threads"])
    return "/".join([record["machine"]["arithmetic"], *map(str, measured)])


def machine() -> dict[str, Any]:
    """The processor, and the widest products that it has: a virtual machine's name alone says little."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    about = {line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    flags = set(about.get("flags", "").split())
    return {
        "cpu": about.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "arithmetic": next((name for flag, name in ARITHMETIC.items() if flag in flags), platform.machine()),
    }


def revision() -> str:
    """The commit that is measured, marked where the working tree differs from it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory of the model; needed unless --report is given")
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="python of TRL's environment")
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the tables from the results")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=SIDES_BY_DEFAULT)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3, help="measured steps of each side")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each side before them")
    parser.add_argument("--one-at-a-time", action="store_true", help="sides in turn, where memory holds no two of them")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="rollouts of a problem, G")
    parser.add_argument("--prompts", type=int, default=8, help="system prompts of case b, K; must divide G")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--trl-rows", type=int, default=8, help="rows of a TRL micro-batch")
    parser.add_argument("--microbatch-tokens", type=int, default=0, help="fastslow's micro-batch; 0: its default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.report and not options.model:
        parser.error("--model is missing: give the directory of a model, or --report")
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu: with more than one thread waiting counts as CPU time; use --threads 1")
    return options


if __name__ == "__main__":
    main()
