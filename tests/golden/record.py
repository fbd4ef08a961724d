"""Golden runs: what they gave is in `records/`, and this makes it again.

    python tests/golden/record.py              record every run anew
    python tests/golden/record.py fst rl       record these anew

A record is made on purpose, after a change that is meant to change results; `git diff` then shows what the change did.
It asks the package for nothing but `parse_config` and `train`, and reads files as they lie on disk, so that no change
within the package can move both sides of the comparison.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import load_file

import fastslow

HERE = Path(__file__).parent
RECORDS = HERE / "records"
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases import FIXTURES, NAMES, RESUMED, config_tree  # noqa: E402

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "gepa", "numpy")


# -- running -----------------------------------------------------------------------------------------------------------


def run_case(name: str, directory: Path) -> dict[str, Any]:
    """Run one case within `directory`, and what it left behind."""
    with one_thread():
        if name in RESUMED:
            return outcome(_go_on(name.removeprefix("resumed-"), RESUMED[name], directory))
        fastslow.train(fastslow.parse_config({**config_tree(name), "output": str(directory / name)}))
        return outcome(directory / name)


def _go_on(run: str, steps: int, directory: Path) -> Path:
    """Resume a copy of an old run; the paths in it are relative to where it lies."""
    shutil.copytree(FIXTURES, directory, dirs_exist_ok=True)
    path = Path("runs") / run
    with chdir(directory):
        tree = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        del tree["versions"]
        fastslow.train(fastslow.parse_config({**tree, "steps": steps}), resume=path, trust_code=True)
    return directory / path


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are taken in the order of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def outcome(run: Path) -> dict[str, Any]:
    """What two equal runs share to the last bit: everything that a run directory holds but clocks and versions."""
    return {
        "metrics": [_timeless(line) for line in _lines(run / "metrics.jsonl")],
        "prompts": [_timeless(line) for line in _lines(run / "prompts.jsonl")],
        "population": _json(run / "population.json"),
        "library": _json(run / "library.json"),
        "rollouts": {path.stem: _lines(path) for path in sorted((run / "rollouts").glob("*.jsonl"))},
        "weights": _weights(run),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not key.startswith("time")}


def _weights(run: Path) -> dict[str, Any]:
    """Of the newest checkpoint: a hash of every tensor's name, type and bytes, and the norm of all of them together."""
    newest = max((run / "checkpoints").glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    digest, squares = hashlib.sha256(), 0.0
    for path in sorted(newest.glob("*.safetensors")):
        for name, tensor in sorted(load_file(path).items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
            squares += float(np.square(tensor.astype(np.float64)).sum())
    return {"checkpoint": newest.name, "sha256": digest.hexdigest(), "norm": squares**0.5}


# -- where it was recorded ---------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What bits depend on: libraries, the processor's instructions, and what arithmetic gives here."""
    return {
        **{package: _version(package) for package in PACKAGES},
        "python": ".".join(platform.python_version_tuple()[:2]),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "arithmetic": _arithmetic(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _arithmetic() -> str:
    """A hash of products, exponentials and attention: processors with the same instructions may still differ."""
    with one_thread():
        drawn = torch.from_numpy(np.random.Generator(np.random.Philox(0)).standard_normal((4, 37, 192), np.float32))
        mixed = torch.softmax(drawn @ drawn.transpose(1, 2) / 14, dim=-1) @ drawn
        attended = torch.nn.functional.scaled_dot_product_attention(drawn, mixed, drawn, is_causal=True)
        logits = torch.nn.functional.silu(attended.reshape(-1, 192) @ drawn[0].T)
        result = logits.log_softmax(dim=-1).cumsum(dim=0).neg().rsqrt()
    return hashlib.sha256(result.numpy().tobytes()).hexdigest()[:16]


# -- records -----------------------------------------------------------------------------------------------------------


def record_path(name: str) -> Path:
    """Where a case's record lies."""
    return RECORDS / f"{name}.json"


def read_record(name: str) -> dict[str, Any]:
    """`machine` and `outcome`, as recorded."""
    record: dict[str, Any] = json.loads(record_path(name).read_text(encoding="utf-8"))
    return record


def write_record(name: str, result: dict[str, Any]) -> None:
    """One value a line, so that a difference in one metric is a difference in one line."""
    text = json.dumps({"machine": machine(), "outcome": result}, indent=1, ensure_ascii=False)
    record_path(name).write_text(text + "\n", encoding="utf-8")


def main(names: list[str]) -> int:
    """Record the named cases, or all. 2 where a name is unknown."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"unknown: {', '.join(unknown)}. There are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    RECORDS.mkdir(exist_ok=True)
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as directory:
            result = run_case(name, Path(directory))
        before = read_record(name)["outcome"] if record_path(name).exists() else None
        write_record(name, result)
        print(f"{name}: {'new' if before is None else 'unchanged' if before == result else 'CHANGED'}", flush=True)
    for path in RECORDS.glob("*.json"):
        if path.stem not in NAMES:
            path.unlink()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    raise SystemExit(main(sys.argv[1:]))
