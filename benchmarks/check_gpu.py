"""Everything about a GPU that only a GPU can show, in one command of less than nine minutes, without a network.

    python benchmarks/check_gpu.py                        # or: make check-gpu
    python benchmarks/check_gpu.py --device cpu --tiny    # its logic, on a CPU

What is right or wrong: the engine's contract in float32 and bfloat16, the decoder for a GPU against the other one, a
run that is cut and resumed. What is fast or slow: one RL step of random models of 0.6, 1.7 and 8 billion parameters,
for the smallest of them beside `generate`, `generate_batch` and, where it is installed, TRL. It needs torch >= 2.11,
transformers >= 5.17, numpy and pydantic; what peft and trl are needed for is left out without them, and said.

Each part runs in a process of its own with a time limit, and writes each result down as it comes, so that neither a
crash nor a cut takes the others along. The exit status is 1 where a check fails or a part breaks.
"""

import argparse
import datetime
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]
RESULTS = HERE / "results" / "check_gpu.json"
NEEDED = ("torch", "transformers", "numpy", "pydantic", "tokenizers", "safetensors")
TOTAL_S = 530
# Parts and the seconds that each may take. What a part does not need is left for those after it.
BUDGETS = {"machine": 40, "contract": 150, "resume": 90, "0.6B": 230, "1.7B": 120, "8B": 150}
# Products of cuBLAS have one order of sums only with a workspace of fixed size.
ENVIRONMENT = {"resume": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}}


def parts() -> dict[str, Callable[..., None]]:
    """What each part runs."""
    from gpu_checks import check_contract, check_resume
    from gpu_steps import measure_machine, measure_steps

    steps = {shape: measure_steps(shape) for shape in ("0.6B", "1.7B", "8B")}
    return {"machine": measure_machine, "contract": check_contract, "resume": check_resume, **steps}


def run_here(part: str, options: argparse.Namespace, into: Path) -> None:
    """Run a part in this process; every result is a line of JSON."""
    from gpu_checks import Options

    def record(**found: Any) -> None:
        with into.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")

    parts()[part](Options(options.device, options.tiny), record)


def run_apart(part: str, options: argparse.Namespace, into: Path, seconds: float) -> tuple[str, str]:
    """Run a part in a process of its own: `done`, `cut` or `failed`, and its last words."""
    command = [sys.executable, str(Path(__file__).resolve()), "--run-part", part, "--into", str(into)]
    command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **ENVIRONMENT.get(part, {})}
    # In a session of its own, so that a cut takes the processes along that the part has started.
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "cut", f"not done after {seconds:.0f} s"
    return ("done", "") if process.returncode == 0 else ("failed", "\n".join(said.splitlines()[-15:]))


def run_part(part: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """One part's outcome and its records."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        into = Path(directory) / "lines"
        if seconds < 5:
            outcome = "cut", "no time was left"
        elif options.in_process:
            try:
                run_here(part, options, into)
                outcome = "done", ""
            except Exception as error:
                outcome = "failed", f"{type(error).__name__}: {error}"
        else:
            outcome = run_apart(part, options, into, seconds)
        records = _read_lines(into)
    return {"outcome": outcome[0], "why": outcome[1], "seconds": time.monotonic() - started, "records": records}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """What a part has written so far; a line that was cut off ends it."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


# -- the results -------------------------------------------------------------------------------------------------------


def failures(result: dict[str, Any]) -> list[str]:
    """Every check that fails, and every part that broke; a part that was cut fails where it checks."""
    found = []
    for part, done in result["parts"].items():
        found += [f"{part}: {r['name']}: {r.get('why', '')}" for r in done["records"] if r.get("ok") is False]
        if done["outcome"] == "failed" or (done["outcome"] == "cut" and part in ("contract", "resume")):
            found.append(f"{part}: {done['outcome']}: {done['why']}")
    return found


def tables(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [f"Device `{result['device']}`.", ""]
    speeds = [(part, r) for part, done in result["parts"].items() for r in done["records"] if r["what"] == "speed"]
    if speeds:
        lines += _table(
            ["model", "case", "part", "side", "s", "tok/s", "peak GiB", "limit s", "of the limit"],
            [
                [part, r["case"], r["part"], r["side"], f"{r['seconds']:.3g}", f"{r['tokens_a_second']:.0f}",
                 "-" if r["peak_gib"] is None else f"{r['peak_gib']:.1f}", f"{r['limit_s']:.3g}",
                 f"{r['share_of_limit']:.0%}"]
                for part, r in speeds
            ],
        )  # fmt: skip
    lines += ratios(speeds)
    rows = []
    for part, done in result["parts"].items():
        checks = [r for r in done["records"] if "ok" in r]
        held = f"{sum(r['ok'] for r in checks)} of {len(checks)}" if checks else "-"
        measured = [done["at"], done["revision"]]
        rows.append([part, done["outcome"], f"{done['seconds']:.0f}", held, *measured])
    lines += _table(["part", "outcome", "s", "checks that hold", "measured", "revision"], rows)
    told = [(part, r) for part, done in result["parts"].items() for r in done["records"]]
    lines += [f"- {part}: left out: {r['name']}: {r['why']}" for part, r in told if r["what"] == "left out"]
    lines += [f"- FAILS: {line.splitlines()[0]}" for line in failures(result)]
    return "\n".join(lines) + "\n"


def ratios(speeds: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """How many times longer the others take: TRL for a whole step, transformers for its sampling."""
    seconds = {(model, r["case"], r["part"], r["side"]): r["seconds"] for model, r in speeds}
    rows = []
    for model, case in dict.fromkeys((model, case) for model, case, _, _ in seconds):

        def of(part: str, side: str, model: str = model, case: str = case) -> float:
            return float(seconds.get((model, case, part, side), "nan"))

        sampling = of("sampling", "fastslow, static")
        step = sampling + of("training", "fastslow")
        trl = of("sampling", "TRL") + of("training", "TRL")
        sides = ("fastslow, growing", "fastslow, not fused", "generate", "generate_batch")
        others = [of("sampling", side) / sampling for side in sides]
        cells = [f"{value:.3g}" for value in (step, trl / step, *others)]
        rows.append([model, case, *(cell.replace("nan", "-") for cell in cells)])
    header = [
        "model",
        "case",
        "step s",
        "TRL / step",
        "growing / static",
        "not fused / static",
        "generate / static",
        "generate_batch / static",
    ]
    return _table(header, rows) if rows else []


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [*(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]), ""]


def save(path: Path, result: dict[str, Any]) -> None:
    """Put it beside those of other devices, atomically, with its tables. Parts that were not run stay as they were."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before = results.get(result["device"], {"parts": {}})["parts"]
    parts = {part: result["parts"].get(part, before.get(part)) for part in BUDGETS}
    results[result["device"]] = {**result, "parts": {part: done for part, done in parts.items() if done}}
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, text in (
        (path, json.dumps(results, indent=1, sort_keys=True) + "\n"),
        (
            path.with_suffix(".md"),
            "\n".join(f"## {name}\n\n{tables(found)}" for name, found in sorted(results.items())),
        ),
    ):
        temporary = target.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)


def device_name(device: str) -> str:
    """The card's name, or the device's type."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def revision() -> str:
    """The commit that is measured, marked where the working tree differs from it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts one after the other; the results file is written after each."""
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    about = {"at": at, "revision": options.revision or revision()}
    result: dict[str, Any] = {"device": device_name(options.device), "tiny": options.tiny, "parts": {}}
    deadline = time.monotonic() + options.seconds
    for part in options.parts:
        done = run_part(part, options, min(BUDGETS[part], deadline - time.monotonic()))
        result["parts"][part] = about | done
        print(f"{part}: {done['outcome']} after {done['seconds']:.0f} s {done['why']}", flush=True)
        save(options.output, result)
    return result


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the logic")
    parser.add_argument("--tiny", action="store_true", help="models of two layers in every part")
    parser.add_argument("--parts", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="what is not done by then is left out")
    parser.add_argument("--output", type=Path, default=RESULTS, help="results as JSON; a table is written beside it")
    parser.add_argument("--revision", help="the commit that is measured, where the tree has no .git")
    parser.add_argument("--in-process", action="store_true", help="no process for each part")
    parser.add_argument("--run-part", choices=list(BUDGETS), help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_options(arguments)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    if options.run_part:
        run_here(options.run_part, options, options.into)
        return 0
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU is at hand: --device cpu --tiny tries the logic on a CPU", file=sys.stderr)
        return 2
    result = check(options)
    print(tables(result))
    return 1 if failures(result) else 0


if __name__ == "__main__":
    sys.exit(main())
