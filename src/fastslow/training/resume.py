"""What a checkpoint holds for resuming beside the engine's state, and whether the run is still what the checkpoint knows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.errors import FastslowError, ResumeError
from fastslow.runs.checksums import changed_files
from fastslow.runs.directory import RunDirectory, file_size
from fastslow.runs.files import checkpoint_steps
from fastslow.slow.engine import PolicyEngine
from fastslow.training.state import LoopState

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
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ResumeError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Found:
    """Where a run goes on: its newest whole checkpoint, None where it begins again; `broken`: newer ones, and their faults."""

    checkpoint: Path | None
    broken: tuple[tuple[Path, str], ...] = ()

    @property
    def complaints(self) -> list[str]:
        """What somebody should know, in words."""
        back = f"the run goes back to {self.checkpoint.name}" if self.checkpoint is not None else ""
        return [f"{path} {fault}: {back}" for path, fault in self.broken]


def find_checkpoint(run: RunDirectory) -> Found:
    """The newest whole checkpoint of a run. Changes nothing.

    Raises: ResumeError where there are checkpoints and none is whole, or where something else is missing that the newest
    whole one knows of.
    """
    broken: list[tuple[Path, str]] = []
    for step in reversed(checkpoint_steps(run.path)):
        checkpoint = run.checkpoint_dir(step)
        if broken and not (checkpoint / "resume").is_dir():
            continue  # its resume state was taken away when newer ones were whole
        fault = _fault(checkpoint)
        if fault is None:
            _check_record(run, checkpoint)
            return Found(checkpoint, tuple(broken))
        broken.append((checkpoint, fault))
    if broken:
        told = "; ".join(f"{path if number == 0 else path.name} {fault}" for number, (path, fault) in enumerate(broken))
        raise ResumeError(f"{told}. {_ways(broken[0][0])}")
    return Found(None)


def load(engine: PolicyEngine, checkpoint: Path) -> None:
    """Load the weights and the engine's state. Raises ResumeError where a checkpoint without checksums turns out broken."""
    try:
        engine.load(checkpoint)
    except (FastslowError, MemoryError):
        raise
    except Exception as error:  # whatever a library makes of a broken file
        if "out of memory" in str(error).lower():
            raise
        raise ResumeError(
            f"{checkpoint} cannot be loaded: {type(error).__name__}: {error}. {_ways(checkpoint)}"
        ) from error


def _fault(checkpoint: Path) -> str | None:
    """What is broken in a checkpoint, in words that follow its name; None where it is whole."""
    if not (checkpoint / "resume").is_dir():
        return "holds no resume state"
    try:
        loop, _ = read_resume(checkpoint)
        LoopState.from_json(loop["state"])
        positions, size = dict(loop["positions"]), int(loop.get("store_bytes", 0))
        if not all(isinstance(length, int) for length in positions.values()):
            raise TypeError("positions are no numbers")
    except ResumeError as error:
        return f"holds no resume state that can be read: {error}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"holds no resume state that can be read: {LOOP}: {type(error).__name__}: {error}"
    found = file_size(checkpoint / "resume" / STORE)
    if found < size:
        return f"is broken: resume/{STORE} has {found} bytes of {size}"
    changed = changed_files(checkpoint)
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"is broken: {'; '.join(changed[:SHOWN])}{more}" if changed else None


def _check_record(run: RunDirectory, checkpoint: Path) -> None:
    loop, _ = read_resume(checkpoint)
    known = {run.path / name: size for name, size in loop["positions"].items()}
    # Checkpoints of earlier versions do not know the lengths of these.
    known |= {run.path / "rollouts" / name: size for name, size in loop.get("rollouts", {}).items()}
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
