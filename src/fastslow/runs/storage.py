"""What a disk says when it takes no more, in words that name the way out."""

import errno
import os
from pathlib import Path

from fastslow.errors import StorageError

WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "the file would be larger than the limit on files (ulimit -f, or the file system's own)",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this user may not write there",
    errno.EIO: "the disk reports a fault",
}
# Libraries that write weights say it in texts of their own.
TELLTALES = ("os error", "no space left", "file too large", "file write failed", "disk quota", "read-only file system")


def is_storage_trouble(error: Exception) -> bool:
    """Whether a disk is behind an error: an OSError, or what a library made of one."""
    return isinstance(error, OSError) or any(word in str(error).lower() for word in TELLTALES)


def storage_error(path: Path, error: Exception) -> StorageError:
    """The error in words: what could not be written, why, how much room is left, and what to do."""
    if isinstance(error, StorageError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    reason = WORDS.get(number or 0) or getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    full = number in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = (
        "Make room or lift the limit: of a run's checkpoints, all but the newest ones only hold weights that are "
        "not needed to go on"
        if full
        else "Make it a place that can be written to"
    )
    return StorageError(
        f"{str(path)!r} could not be written: {reason} ({_room(path)}). Everything that was saved "
        f"before stands. {advice}"
    )


def _room(path: Path) -> str:
    try:
        found = os.statvfs(next(parent for parent in path.absolute().parents if parent.exists()))
    except (OSError, StopIteration):
        return "how much room there is is not known"
    return f"{found.f_bavail * found.f_frsize / 1e6:.1f} MB are free on the disk"
