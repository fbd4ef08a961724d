"""What must be there of a run that is shown, measured, exported or served: a population, a checkpoint, weights."""

from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.runs.checksums import changed_files, torn_weights
from fastslow.runs.files import POPULATION
from fastslow.runs.reader import Run
from fastslow.text import printable, shown
from fastslow.types import Prompt

SHOWN = 5
"""Faults that a message names."""


def needed_population(run: Run) -> list[Prompt]:
    """The current population. Raises ConfigError, with the reason, where there is none."""
    if run.population:
        return run.population
    if run.trained or run.candidates:
        raise ConfigError(
            f"{str(run.path / POPULATION)!r} is missing, and the run is beyond its first cycle: put it back from a "
            f"copy, or go on with the run, which writes it anew: fastslow train --resume {run.path}"
        )
    raise ConfigError(f"{str(run.path)!r} has no population yet: its first cycle has not ended")


def find_weights(run: Run, weights: str, others: str = "") -> Path:
    """The checkpoint that `weights` names, `latest` or `step_N`; `others`: what it might name. Raises ConfigError."""
    known = _checkpoints(run)
    if known and weights == "latest":
        return known[-1]
    for path in known:
        if weights == path.name:
            return path
    there = ", ".join(path.name for path in known) or "no checkpoint yet"
    raise ConfigError(f"weights: {shown(weights)} does not exist: {printable(str(run.path))!r} has {there}{others}")


def check_whole(run: Run, checkpoint: Path, engine: str) -> None:
    """Raises ConfigError, with another to take, where the weights of one are not whole. `engine`: whose they are."""
    faults = _faults(checkpoint, engine)
    if not faults:
        return
    others = (path for path in reversed(_checkpoints(run)) if path != checkpoint)
    whole = next((path.name for path in others if not _faults(path, engine)), None)
    way = f"Take a whole checkpoint, --weights {whole}" if whole else "No other one is whole: put it back from a copy"
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    raise ConfigError(f"weights: {printable(str(checkpoint))!r} is broken: {'; '.join(faults[:SHOWN])}{more}. {way}")


def _checkpoints(run: Run) -> list[Path]:
    return [run.path / "checkpoints" / f"step_{step}" for step in run.checkpoints]


def _faults(checkpoint: Path, engine: str) -> list[str]:
    return changed_files(checkpoint, weights=True) or torn_weights(checkpoint, needed=engine == "local")
