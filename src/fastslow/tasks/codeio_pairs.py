"""Make the input/output pairs that the task `codeio` reads, once, from reasoning-gym's bundled functions.

    python -m fastslow.tasks.codeio_pairs PAIRS.jsonl [--per-function 3] [--functions N] [--jobs N]

reasoning-gym bundles about 3,000 functions with input generators, written by an LLM from curated code, and no
pairs: they must be run. Each function runs in a process of its own: no inherited environment, an empty working
directory that is deleted, limits on CPU seconds, memory, file size and open files, a wall-clock limit, and an audit
hook that refuses network, process starts, writing and native code. That stops accidents; it is not a jail for
hostile code. Kept is what JSON can hold, what two calls agree on, and what is short enough to be a question.
Skipped functions are counted by reason.
"""

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

WALL_S = 30
LIMITS = {"RLIMIT_CPU": 10, "RLIMIT_AS": 2 << 30, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0}
FIELDS = ("task_description", "input_output_spec", "code_sample")

WORKER = r"""
import json, os, random, resource, sys
result = os.fdopen(os.dup(1), "w", encoding="utf-8")
sys.stdout = sys.stderr = open(os.devnull, "w")
job = json.loads(sys.stdin.read())
for kind, value in job["limits"].items():
    resource.setrlimit(getattr(resource, kind), (value, value))
random.seed(job["seed"])
for module in ("numpy", "numpy.random"):  # imported before the hook, which refuses native code
    if "numpy" in job["code"]:
        __import__(module)
if "numpy" in job["code"]:
    sys.modules["numpy"].random.seed(job["seed"])
REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename",
           "os.rmdir", "os.mkdir", "os.chmod", "os.kill", "shutil.", "ctypes.dlopen", "pty.", "urllib.", "ftplib.")
def refuse(event, arguments):
    writes = event == "open" and arguments[1] is not None and set(str(arguments[1])) & set("wax+")
    if writes or event.startswith(REFUSED):
        raise PermissionError(event)
sys.addaudithook(refuse)
names = {"__name__": "codeio", "Random": random.Random}
exec(compile(job["code"], "codeio", "exec"), names)
rng = random.Random(job["seed"])
pairs, seen = [], set()
for _ in range(4 * job["pairs"]):
    if len(pairs) == job["pairs"]:
        break
    given = json.dumps(names["generate_inputs"](rng), allow_nan=False)
    if given in seen:
        continue
    seen.add(given)
    try:
        outputs = {json.dumps(names["main_solution"](**json.loads(given)), allow_nan=False) for _ in range(2)}
    except PermissionError:
        raise
    except Exception:
        continue
    if len(outputs) == 1:
        pairs.append([json.loads(given), json.loads(outputs.pop())])
result.write(json.dumps(pairs))
result.flush()
os._exit(0)
"""


def bundled_functions() -> list[dict[str, Any]]:
    """reasoning-gym's CodeIO functions. The package is found, not imported: importing it is not needed."""
    from importlib.util import find_spec

    spec = find_spec("reasoning_gym")
    if spec is None or spec.origin is None:
        raise SystemExit("reasoning-gym is not installed: pip install 'fastslow[tasks]'")
    return read_functions(Path(spec.origin).parent / "data" / "codeio.jsonl.gz")


def read_functions(path: Path) -> list[dict[str, Any]]:
    """The functions of a .jsonl.gz file, each once."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        functions = [json.loads(line) for line in lines]
    return list({function["code_sample"]: function for function in functions}.values())


def run_function(function: Mapping[str, Any], pairs: int) -> tuple[list[Any], str]:
    """Pairs of one function, and "ok" or why there are none."""
    code = f"{function['code_sample']}\n\n{function['input_generator']}"
    seed = int(hashlib.sha256(code.encode()).hexdigest()[:8], 16)
    with tempfile.TemporaryDirectory() as directory:
        try:
            done = subprocess.run(  # noqa: S603 (this interpreter, on the worker above)
                [sys.executable, "-s", "-P", "-c", WORKER],
                input=json.dumps({"code": code, "seed": seed, "pairs": pairs, "limits": LIMITS}).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=directory,
                env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HOME": directory},
                start_new_session=True,
                timeout=WALL_S,
            )
        except subprocess.TimeoutExpired:
            return [], "took too long"
    if done.returncode:
        return [], "raised or hit a limit"
    made = json.loads(done.stdout)
    return made, "ok" if made else "gave no stable JSON output"


def make_pairs(function: Mapping[str, Any], pairs: int, max_chars: int, max_output_chars: int) -> tuple[list[Any], str]:
    """Lines for the pairs file, and "ok" or why there are none."""
    size = sum(len(function[field]) for field in FIELDS)
    if size > max_chars:
        return [], "too long"
    made, reason = run_function(function, pairs)
    lines = [
        {**{field: function[field] for field in FIELDS}, "input": given, "output": output}
        for given, output in made
        if size + len(json.dumps(given)) <= max_chars and len(json.dumps(output)) <= max_output_chars
    ]
    return lines, "too long" if made and not lines else reason


def write_pairs(arguments: argparse.Namespace) -> Counter[str]:
    """Write the file, atomically and in the functions' order. Returns functions by outcome."""
    functions = bundled_functions()[: arguments.functions]
    outcomes: Counter[str] = Counter()
    partial = arguments.output.with_name(f"{arguments.output.name}.partial")
    with partial.open("w", encoding="utf-8") as file, ThreadPoolExecutor(arguments.jobs) as pool:
        results: Iterator[tuple[list[Any], str]] = pool.map(
            lambda f: make_pairs(f, arguments.per_function, arguments.max_chars, arguments.max_output_chars), functions
        )
        for number, (lines, reason) in enumerate(results, start=1):
            outcomes[reason] += 1
            outcomes["pairs"] += len(lines)
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            if number % 100 == 0 or number == len(functions):
                print(f"{number} of {len(functions)} functions, {outcomes['pairs']} pairs", flush=True)
    partial.replace(arguments.output)
    return outcomes


def main(argv: list[str] | None = None) -> None:
    """Make the file, and say what became of the functions."""
    parser = argparse.ArgumentParser(
        prog="python -m fastslow.tasks.codeio_pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--per-function", type=int, default=3, metavar="N")
    parser.add_argument("--functions", type=int, metavar="N", help="only the first N (default: all)")
    parser.add_argument("--max-chars", type=int, default=8000, help="leave longer questions out (default: 8000)")
    parser.add_argument("--max-output-chars", type=int, default=1000, help="leave longer outputs out (default: 1000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    arguments = parser.parse_args(argv)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for reason, count in write_pairs(arguments).most_common():
        print(f"{count:6d} {reason if reason == 'pairs' else f'functions: {reason}'}")


if __name__ == "__main__":
    main()
