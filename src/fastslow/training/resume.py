"""What a checkpoint holds for resuming beside the engine's state, and whether the run is still the one it knows."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.errors import FastslowError, ResumeError
from fastslow.rollouts.store import RolloutStore
from fastslow.runs.checksums import changed_files, torn_weights
from fastslow.runs.directory import RunDirectory, file_size
from fastslow.runs.files import METRICS, checkpoint_steps, count_lines, read_config, step_of
from fastslow.slow.engine import PolicyEngine
from fastslow.text import shortened, shown
from fastslow.training.state import LoopState

LOOP, STORE = "loop.json", "store.jsonl"
# Missing files that a message names.
SHOWN = 5
LONGEST = 500
"""Characters of a library's words about a broken file."""


def write_resume(
    run: RunDirectory, directory: Path, step: int, loop: Mapping[str, object], store: Sequence[Mapping[str, object]]
) -> None:
    """Write the loop's record, the store's, and the lengths of files, into a checkpoint's directory after `step`."""
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
    """Where a run goes on: its newest whole checkpoint, None where it begins again; `broken`: newer ones,
    and their faults.
    """

    checkpoint: Path | None
    broken: tuple[tuple[Path, str], ...] = ()
    lost: str = ""
    """What is to be said of a record whose checkpoints are gone."""

    @property
    def complaints(self) -> list[str]:
        """What somebody should know, in words."""
        if self.checkpoint is None:
            return [self.lost] if self.lost else []
        return [f"{path} {fault}: the run goes back to {self.checkpoint.name}" for path, fault in self.broken]


def find_checkpoint(run: RunDirectory, known: Sequence[tuple[Path, str]] = ()) -> Found:
    """The newest whole checkpoint of a run; `known`: newer ones that turned out broken, and their faults.
    Changes nothing.

    Raises: ResumeError where there are checkpoints and none is whole,
    or where something else is missing that the newest whole one knows of.
    """
    _check_place(run.path / "checkpoints")
    broken, local = list(known), read_config(run.path).engine == "local"
    for step in reversed(checkpoint_steps(run.path)):
        checkpoint = run.checkpoint_dir(step)
        if checkpoint in dict(known):
            continue
        if broken and not (checkpoint / "resume").is_dir():
            continue  # its resume state was taken away when newer ones were whole
        fault = _fault(checkpoint, local=local)
        if fault is None:
            _check_record(run, checkpoint)
            return Found(checkpoint, tuple(broken))
        broken.append((checkpoint, fault))
    if broken:
        told = "; ".join(f"{path if number == 0 else path.name} {fault}" for number, (path, fault) in enumerate(broken))
        raise ResumeError(f"{told}. {_ways(broken[0][0])}")
    _check_samples(run, 0)
    return Found(None, lost=_lost(run.path))


def load_newest(engine: PolicyEngine, run: RunDirectory, found: Found) -> Found:
    """Load the weights and the engine's state, of the next whole checkpoint where one without
    checksums turns out broken.

    Returns where the run goes on. Raises ResumeError where no checkpoint can be loaded.
    """
    while found.checkpoint is not None:
        try:
            engine.load(found.checkpoint)
            break
        except (FastslowError, MemoryError):
            raise
        except Exception as error:  # whatever a library makes of a broken file
            if "out of memory" in str(error).lower():
                raise
            fault = f"cannot be loaded: {type(error).__name__}: {shortened(str(error), LONGEST)}"
            found = find_checkpoint(run, (*found.broken, (found.checkpoint, fault)))
    return found


def _check_place(checkpoints: Path) -> None:
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        raise ResumeError(
            f"{str(checkpoints)!r} is no directory, and that is where the checkpoints of a run lie: put them back, or "
            "move away what lies there, and the run begins again"
        )


def _check_samples(run: RunDirectory, step: int) -> None:
    """Raises ResumeError where going back to this step would meet what no run has written."""
    for path in run.samples():
        if step_of(path) > step and path.is_dir():
            raise ResumeError(
                f"{str(path)!r} is a directory, and resuming would take away what was written after step {step}: "
                "move it out of the run"
            )


def _lost(run: Path) -> str:
    """What is to be said where a run begins again that has steps on record."""
    steps = (
        count_lines(run / METRICS) - 1 if (run / METRICS).is_file() else 0
    )  # the first line is of before the first step
    if steps < 1:
        return ""
    return (
        f"{run / 'checkpoints'} holds no checkpoint to go on from, and {run / METRICS} has a record of {steps} steps: "
        "the run begins again at step 0. Where checkpoints were deleted or moved, put them back instead"
    )


def _fault(checkpoint: Path, *, local: bool) -> str | None:
    """What is broken in a checkpoint, in words that follow its name; None where it is whole."""
    if not (checkpoint / "resume").is_dir():
        return "holds no resume state"
    try:
        loop, store = read_resume(checkpoint)
        after = LoopState.from_json(loop["state"]).step
        positions, size = dict(loop["positions"]), int(loop.get("store_bytes", 0))
        if not all(isinstance(length, int) for length in positions.values()):
            raise TypeError("positions are no numbers")
    except ResumeError as error:
        return f"holds no resume state that can be read: {error}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"holds no resume state that can be read: {LOOP}: {type(error).__name__}: {error}"
    if after != step_of(checkpoint):
        return f"holds the state after step {shown(after)}"
    found = file_size(checkpoint / "resume" / STORE)
    if found < size:
        return f"is broken: resume/{STORE} has {found} bytes of {size}"
    try:
        RolloutStore(0).restore(store)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return f"holds no resume state that can be read: {STORE}: {type(error).__name__}: {error}"
    changed = changed_files(checkpoint) or torn_weights(checkpoint, needed=local)
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"is broken: {'; '.join(changed[:SHOWN])}{more}" if changed else None


def _check_record(run: RunDirectory, checkpoint: Path) -> None:
    loop, _ = read_resume(checkpoint)
    _check_samples(run, step_of(checkpoint))
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
        "Put it back from a copy of the run, or start a new run with another output: fastslow evaluate and export "
        f"still take the weights in {checkpoint}, and model.name does where no LoRA adapter is trained"
    )
