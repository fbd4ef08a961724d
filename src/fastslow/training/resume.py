"""What a checkpoint holds for resuming beside the engine's state, and whether the run is still what the checkpoint knows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.errors import ResumeError
from fastslow.runs.directory import RunDirectory, file_size
from fastslow.runs.files import checkpoint_steps

LOOP, STORE = "loop.json", "store.jsonl"
# Missing files that a message names.
SHOWN = 5


def write_resume(
    run: RunDirectory, directory: Path, step: int, loop: Mapping[str, object], store: Sequence[Mapping[str, object]]
) -> None:
    """Write the loop's record, the store's, and the lengths of files, into the directory of a checkpoint after `step`."""
    resume = directory / "resume"
    resume.mkdir(exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in store).encode()
    (resume / STORE).write_bytes(lines)
    samples = {path.name: file_size(path) for path in run.samples(step)}
    record = {**loop, "store_bytes": len(lines), "rollouts": samples}
    (resume / LOOP).write_text(json.dumps(record), encoding="utf-8")


def read_resume(checkpoint: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The loop's record and the store's. Raises ResumeError where one of them cannot be read."""
    try:
        loop = json.loads((checkpoint / "resume" / LOOP).read_text(encoding="utf-8"))
        with (checkpoint / "resume" / STORE).open(encoding="utf-8") as file:
            return dict(loop), [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise ResumeError(
            f"{checkpoint} holds no resume state that can be read: {error}. {_ways(checkpoint)}"
        ) from error


def check_complete(run: RunDirectory) -> None:
    """Raises ResumeError where something is missing that the newest checkpoint knows of. Changes nothing."""
    checkpoint, steps = run.latest_checkpoint(), checkpoint_steps(run.path)
    if checkpoint is None:
        if steps:
            newest = run.checkpoint_dir(steps[-1])
            raise ResumeError(f"{newest} holds no resume state. {_ways(newest)}")
        return
    loop, _ = read_resume(checkpoint)
    known = {run.path / name: size for name, size in loop["positions"].items()}
    # Checkpoints of earlier versions do not know the lengths of these.
    known |= {run.path / "rollouts" / name: size for name, size in loop.get("rollouts", {}).items()}
    known[checkpoint / "resume" / STORE] = loop.get("store_bytes", 0)
    missing = [_missing(run, path, size) for path, size in known.items() if file_size(path) < size]
    if missing:
        more = [f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
        raise ResumeError(
            f"{str(run.path)!r} has lost a part of its record since {checkpoint.name}: "
            f"{'; '.join([*missing[:SHOWN], *more])}. {_ways(checkpoint)}"
        )


def _missing(run: RunDirectory, path: Path, size: int) -> str:
    name = path.relative_to(run.path)
    return f"{name} has {file_size(path)} bytes of {size}" if path.exists() else f"{name} ({size} bytes) is gone"


def _ways(checkpoint: Path) -> str:
    return (
        "Put it back from a copy of the run, or start a new run with another output: fastslow evaluate and export still take "
        f"the weights in {checkpoint}, and model.name does where no LoRA adapter is trained"
    )
