"""The run directory: what a run leaves behind. The format is a contract, described in docs/run-directory.md.

Whole files are written beside their place and moved there; lines are appended with one write each. A process that is
killed at any moment leaves at most one torn last line, which readers skip and a resumed run cuts away.
"""

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from fastslow.config import Config, with_overrides
from fastslow.errors import ConfigError, ResumeError
from fastslow.fast.optimiser import Candidate, Reflection
from fastslow.given import resume_line
from fastslow.runs.checksums import write_sums
from fastslow.runs.config_text import config_text
from fastslow.runs.files import (
    CONFIG,
    LIBRARY,
    LOST,
    METRICS,
    POPULATION,
    PROMPTS,
    REFLECTIONS,
    SAMPLES,
    checkpoint_steps,
    read_config,
    sample_files,
    step_of,
)
from fastslow.runs.owner import is_own, leave_mark
from fastslow.runs.reflections import reflection_line
from fastslow.runs.samples import Told, sample_line
from fastslow.runs.storage import is_storage_trouble, storage_error
from fastslow.text import shown, storable
from fastslow.types import Prompt, Rollout

APPENDED = (METRICS, PROMPTS, REFLECTIONS)
# A scorer that was too slow, or crashed, may get more time or a process of its own.
RESUMABLE_KEYS = ("steps", "max_rollouts", "tracker", "threads", "task.timeout_s", "task.isolate", "task.memory_gib")
# A server may come back at another address, and a tracker may be turned on later.
RESUMABLE_PREFIXES = ("tinker.", "tracking.")


class RunDirectory:
    """One run on disk. Whoever writes holds its lock, from `create` or `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.way_on = f"fastslow train --resume {path}"
        """How the run is resumed: a command, or Python where it takes objects."""
        self._lock: IO[str] | None = None

    # -- opening -------------------------------------------------------------------------------------------------------

    def check_free(self) -> None:
        """Raises ConfigError where a run lies here already, or none can be written."""
        existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            what = "is no directory" if not existing.is_dir() else "cannot be written to"
            raise ConfigError(
                f"output: {str(self.path)!r} cannot be made, since {str(existing)!r} {what}: take another path"
            )
        if (self.path / CONFIG).exists():
            raise ConfigError(
                f"output: {str(self.path)!r} already holds a run: choose another directory, delete it, or go on with "
                f"it: fastslow train --resume {self.path}"
            )

    def create(self, config: Config) -> None:
        """Start a run: make the directory, lock it, write config.yaml as resolved, with versions."""
        self.check_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"output: {str(self.path)!r} cannot be made: {error.strerror}. Take another path"
            ) from error
        self._take_lock()
        self._set_way_on(config)
        write_atomically(self.path / CONFIG, config_text(config))
        leave_mark(self.path)

    def open(self, config: Config) -> None:
        """Take a run up again. Raises ResumeError where there is none, or where `config` would make it another run."""
        before = read_config(self.path)
        changed = _differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        forbidden = [key for key in changed if not _may_change(key) and key != "output"]
        if forbidden:
            raise ResumeError(
                f"{str(self.path)!r} was started with another {', '.join(forbidden)}: a resumed run keeps its options; "
                f"only {', '.join(RESUMABLE_KEYS)} and the sections tinker and tracking may change"
            )
        if "steps" in changed and config.slow.schedule != "constant" and config.slow.schedule_steps is None:
            raise ResumeError(
                f"steps: {config.steps} instead of {before.steps} would bend the learning rate of slow.schedule: "
                f"{config.slow.schedule}, whose length is the run's: resume with {before.steps}; a run that may grow "
                "is started with slow.schedule_steps"
            )
        self._take_lock()
        self._set_way_on(config)
        if changed:
            own = is_own(self.path)
            write_atomically(self.path / CONFIG, config_text(config))
            if own:
                leave_mark(self.path)

    def _set_way_on(self, config: Config) -> None:
        self.way_on = resume_line(config.model_dump(mode="json"), self.path) or self.way_on

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        try:
            self._lock = (self.path / ".lock").open("w", encoding="utf-8")
        except OSError as error:
            raise ResumeError(
                f"{str(self.path / '.lock')!r} cannot be opened: {error.strerror}. It is an empty file that says who "
                "writes: move away what lies there, and make the run a place that this user can write to"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ResumeError(f"another process is writing to {str(self.path)!r}: stop it first") from error

    # -- writing -------------------------------------------------------------------------------------------------------

    def append_metrics(self, record: Mapping[str, object]) -> None:
        """One line of metrics.jsonl; NaN and infinities, which JSON lacks, become null."""
        self._append(METRICS, [record])

    def append_candidates(
        self, cycle: int, candidates: Sequence[Candidate], ids: Sequence[int]
    ) -> list[dict[str, Any]]:
        """One line of prompts.jsonl for every candidate that a cycle proposed or scored; the lines."""
        records: list[dict[str, Any]] = [
            {
                "id": number,
                "hash": candidate.prompt.hash,
                "parent": candidate.parent_hash,
                "cycle": cycle,
                "components": candidate.prompt.as_dict(),
                "accepted": candidate.accepted,
                "reason": candidate.reason,
                "mean": _mean(candidate.scores),
                "scores": candidate.scores,
                "feedback": list(candidate.feedback),
            }
            for number, candidate in zip(ids, candidates, strict=True)
        ]
        self._append(PROMPTS, records)
        return records

    def append_reflections(self, cycle: int, reflections: Sequence[Reflection]) -> None:
        """A line of reflections.jsonl for each question that a cycle asked of a language model; no file without any."""
        if reflections:
            self._append(REFLECTIONS, [reflection_line(cycle, each) for each in reflections])

    def write_population(
        self,
        cycle: int,
        step: int,
        prompts: Sequence[Prompt],
        scores: Mapping[str, Mapping[str, float]],
        by_kind: Mapping[str, str] | None = None,
    ) -> None:
        """population.json: the current K prompts, best first; `by_kind`: the hash of each kind's best."""
        members = [{"hash": p.hash, "components": p.as_dict(), "mean": _mean(scores.get(p.hash, {}))} for p in prompts]
        record: dict[str, Any] = {"cycle": cycle, "step": step, "population": members}
        if by_kind:
            record["by_kind"] = dict(by_kind)
        write_atomically(self.path / POPULATION, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def write_library(self, populations: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
        """library.json: of a stream, the population that each task was left with, best first."""
        record = {
            task: [{"hash": Prompt.from_dict(item).hash, "components": dict(item)} for item in population]
            for task, population in populations.items()
        }
        write_atomically(self.path / LIBRARY, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def write_rollout_samples(
        self, step: int, rollouts: Sequence[Rollout], limit: int, told: Told = lambda rollout: {}
    ) -> list[dict[str, object]]:
        """rollouts/step_N.jsonl: up to `limit` of the step's rollouts, spread evenly, to be read by people; its lines.

        `told` gives what a line says besides its rollout: the question, the reference answer, the prompt's text.
        """
        if not limit or not rollouts:
            return []
        stride = max(1, len(rollouts) // limit)
        records = [sample_line(rollout, told(rollout)) for rollout in rollouts[::stride][:limit]]
        (self.path / SAMPLES).mkdir(exist_ok=True)
        write_atomically(self.path / SAMPLES / f"step_{step}.jsonl", "".join(map(_line, records)))
        return records

    def _append(self, name: str, records: Sequence[Mapping[str, object]]) -> None:
        try:
            with (self.path / name).open("ab") as file:
                file.write("".join(map(_line, records)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self.path / name, error) from error

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint_dir(self, step: int) -> Path:
        """checkpoints/step_N."""
        return self.path / "checkpoints" / f"step_{step}"

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """A directory to write a checkpoint into; it takes its name only when it is complete and on disk.

        Raises StorageError where the disk does not take it; every earlier checkpoint stands then as before.
        """
        final = self.checkpoint_dir(step)
        temporary = final.with_name(f".tmp-{final.name}")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            write_sums(temporary)
            for path in [*temporary.rglob("*"), temporary]:
                _sync(path)
            replaced = final.with_name(f".old-{final.name}")
            shutil.rmtree(replaced, ignore_errors=True)
            if final.exists():
                final.replace(replaced)
            temporary.replace(final)
            _sync(final.parent)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)  # half a checkpoint only takes room
            if is_storage_trouble(error):
                raise storage_error(final, error) from error
            raise
        shutil.rmtree(replaced, ignore_errors=True)

    def set_aside(self, checkpoint: Path) -> Path:
        """Take a broken checkpoint out of the way of those that a run goes on with; its new place."""
        return checkpoint.rename(_free(checkpoint.with_name(f"broken-{checkpoint.name}")))

    def set_record_aside(self) -> Path:
        """Take the record of a run that begins again out of the way of the new one; its new place."""
        place = _free(self.path / LOST)
        place.mkdir()
        # The metrics go last: after a kill in between they still say that there is a record.
        for name in (LIBRARY, POPULATION, SAMPLES, REFLECTIONS, PROMPTS, METRICS):
            if (self.path / name).exists():
                (self.path / name).rename(place / name)
        return place

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint that can be resumed from, or None."""
        resumable = [step for step in checkpoint_steps(self.path) if (self.checkpoint_dir(step) / "resume").is_dir()]
        return self.checkpoint_dir(resumable[-1]) if resumable else None

    def prune(self, resumable: int = 1, kept: int | None = None) -> None:
        """The newest `kept` checkpoints stay (None: all), and in the newest `resumable` what only resuming needs."""
        steps = checkpoint_steps(self.path)
        for step in steps[:-resumable]:
            shutil.rmtree(self.checkpoint_dir(step) / "resume", ignore_errors=True)
        for path in map(self.checkpoint_dir, steps[:-kept] if kept is not None else ()):
            with suppress(OSError):  # as a whole: a kill leaves no half of it under its name
                shutil.rmtree(path.replace(path.with_name(f".old-{path.name}")))

    def samples(self, step: int | None = None) -> list[Path]:
        """The files in rollouts/, ascending; up to a step where one is given."""
        return [path for path in sample_files(self.path) if step is None or step_of(path) <= step]

    def positions(self) -> dict[str, int]:
        """Sizes in bytes of the files that lines are appended to."""
        return {name: file_size(self.path / name) for name in APPENDED}

    def rewind(self, positions: Mapping[str, int] | None, step: int) -> None:
        """Take back what was written after the checkpoint of `step`; everything where `positions` is None."""
        for name in APPENDED:
            path, size = self.path / name, (positions or {}).get(name, 0)
            if file_size(path) > size:
                with path.open("r+b") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
        for path in self.samples():
            if positions is None or step_of(path) > step:
                path.unlink()
        for newer in checkpoint_steps(self.path):
            if positions is None or newer > step:
                place = self.checkpoint_dir(newer)
                # What a link leads to is not this run's to take away.
                place.unlink() if place.is_symlink() else shutil.rmtree(place)
        for left in (self.path / "checkpoints").glob(".???-step_*"):  # of saving or pruning that was killed
            shutil.rmtree(left, ignore_errors=True)
        if positions is None:
            (self.path / POPULATION).unlink(missing_ok=True)


def resumed_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The config to go on with. Only how long a run goes on and how it is shown may change: anything else would make it
    another run. Raises ConfigError for other overrides, ResumeError where there is no run.
    """
    config = read_config(run)
    for override in overrides:
        key = override.partition("=")[0]
        if not _may_change(key):
            # A key that was pasted into api_key_env, or stands in an address, is not repeated.
            named = key if key.endswith(("_env", "_url")) else override
            raise ConfigError(
                f"--set {shown(named)}: a resumed run keeps its options; only {', '.join(RESUMABLE_KEYS)} and the "
                "sections tinker and tracking may change"
            )
    return with_overrides(config, overrides)


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file so that a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(storable(text))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def _line(record: Mapping[str, object]) -> str:
    return storable(json.dumps(finite(record), ensure_ascii=False, allow_nan=False)) + "\n"


def finite(value: object) -> Any:
    """Plain values with None for every number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _may_change(key: str) -> bool:
    return key in RESUMABLE_KEYS or key.startswith(RESUMABLE_PREFIXES)


def _differences(before: Mapping[str, object], after: Mapping[str, object], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    keys: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            keys.append(f"{prefix}{key}")
    return keys


def _free(path: Path) -> Path:
    """A name that is not taken: the path, or with a number behind it."""
    names = (path.with_name(f"{path.name}{f'.{number}' if number else ''}") for number in count())
    return next(name for name in names if not os.path.lexists(name))


def _mean(scores: Mapping[str, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None


def file_size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
