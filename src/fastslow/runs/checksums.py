"""Checksums of a checkpoint: written when it is saved, compared before a run goes on from it.

The file has the form of `sha256sum`, so that `sha256sum -c SHA256SUMS` in a checkpoint checks it as well.
"""

import hashlib
import os
from pathlib import Path

from fastslow.text import printable, shortened

SUMS = "SHA256SUMS"
RESUME = "resume"
WEIGHTS = (".safetensors", ".bin")
READ = (*WEIGHTS, ".json", ".jsonl")
"""What loading reads: such a file not in the list is not what was written; a note of somebody's may lie there."""


def write_sums(directory: Path) -> None:
    """Write the checksum of every file below a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / SUMS)
    lines = [f"{_sum(path)}  {path.relative_to(directory).as_posix()}\n" for path in files]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def changed_files(directory: Path, *, weights: bool = False) -> list[str]:
    """What is no longer as it was written, in words; [] where all is, or where a checkpoint of before has no checksums.

    `weights`: what only a resumed run needs is left out, as it is taken away of older checkpoints.
    """
    path = directory / SUMS
    if not path.is_file():
        return []
    found, listed = [], set()
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        listed.add(name)
        if not name or ".." in Path(name).parts or Path(name).is_absolute():
            found.append(f"{SUMS} is broken")
        elif not (weights and name.startswith(f"{RESUME}/")) and (fault := _fault(directory / name, digest)):
            found.append(f"{shortened(printable(name), 200)} {fault}")
    there = (file.relative_to(directory) for file in sorted(directory.rglob("*")) if file.suffix in READ)
    unlisted = [name for name in there if name.as_posix() not in listed and not (weights and name.parts[0] == RESUME)]
    return found + [f"{printable(str(name))} is not in {SUMS}" for name in unlisted]


def torn_weights(directory: Path, *, needed: bool) -> list[str]:
    """Which weights are no whole files, in words, also where there are no checksums. `needed`: there must be some, as
    there need not of an engine that keeps them elsewhere.
    """
    files = sorted(path for path in directory.iterdir() if path.suffix in WEIGHTS)
    if needed and not files:
        return ["there are no weights in it"]
    return [f"{path.name} is no whole file of weights" for path in files if not _opens(path)]


def _fault(path: Path, digest: str) -> str | None:
    if not os.path.isfile(path):  # unlike Path.is_file, also for a name that is too long for any file
        return "is gone"
    try:
        return None if _sum(path) == digest else "is not what was written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _opens(path: Path) -> bool:
    """Whether the header of a safetensors file can be read, and all that it names is there."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="numpy"):
            return True
    except Exception:  # the library has an error of its own
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
