"""Which checkpoint of a run is meant, and whether its weights are whole: before it is exported, measured or served."""

from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.runs.checksums import changed_files, torn_weights
from fastslow.runs.reader import Run
from fastslow.text import printable, shown

SHOWN = 5
"""Faults that a message names."""


def checkpoint_of(run: Run, weights: str, *, engine: str, others: str = "") -> Path:
    """The checkpoint that `weights` names, `latest` or `step_N`; `engine` is the one that its weights are for.

    `others` is what else may be named. Raises: ConfigError where there is none, or its weights are not whole.
    """
    checkpoints = {path.name: path for path in (run.path / "checkpoints" / f"step_{step}" for step in run.checkpoints)}
    if weights != "latest" and weights not in checkpoints or not checkpoints:
        known = ", ".join(checkpoints) or "no checkpoint yet"
        raise ConfigError(f"weights: {shown(weights)} does not exist: {printable(str(run.path))!r} has {known}{others}")
    found = [*checkpoints.values()][-1] if weights == "latest" else checkpoints[weights]
    if faults := _faults(found, engine):
        others_there = (path for path in reversed(checkpoints.values()) if path != found)
        other = next((path.name for path in others_there if not _faults(path, engine)), None)
        way = (
            f"Take a whole checkpoint, --weights {other}" if other else "No other one is whole: put it back from a copy"
        )
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ConfigError(f"weights: {printable(str(found))!r} is broken: {'; '.join(faults[:SHOWN])}{more}. {way}")
    return found


def _faults(checkpoint: Path, engine: str) -> list[str]:
    return changed_files(checkpoint, weights=True) or torn_weights(checkpoint, needed=engine == "local")
