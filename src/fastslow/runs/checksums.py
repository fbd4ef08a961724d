"""Checksums of a checkpoint: written when it is saved, compared before a run goes on from it.

The file has the form of `sha256sum`, so that `sha256sum -c SHA256SUMS` in a checkpoint checks it as well.
"""

import hashlib
from pathlib import Path

SUMS = "SHA256SUMS"


def write_sums(directory: Path) -> None:
    """Write the checksum of every file below a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / SUMS)
    lines = [f"{_sum(path)}  {path.relative_to(directory).as_posix()}\n" for path in files]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def changed_files(directory: Path) -> list[str]:
    """What is no longer as it was written, in words; [] where all is, or where a checkpoint of before has no checksums."""
    path = directory / SUMS
    if not path.is_file():
        return []
    found = []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        file = directory / name
        if not name or ".." in Path(name).parts or Path(name).is_absolute():
            found.append(f"{SUMS} is broken")
        elif not file.is_file():
            found.append(f"{name} is gone")
        elif _sum(file) != digest:
            found.append(f"{name} is not what was written")
    return found


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
