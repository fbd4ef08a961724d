"""What becomes of an exception of a scorer or an environment: a failure in words, and its place in the log."""

import logging
import traceback
from dataclasses import dataclass

from fastslow import threads
from fastslow.errors import ElsewhereError, LateError, in_words
from fastslow.text import printable, shortened, storable

LONGEST_REASON = 2_000
"""Characters of an error's words that are kept: all of them are written down."""
logger = logging.getLogger(__name__)
_told_places: set[str] = set()


@dataclass(frozen=True)
class ScoringFailure:
    """Scoring broke for a reason that is not the model's doing. The rollout is masked, never scored 0."""

    reason: str


def reason_of(error: BaseException) -> str:
    """An exception of a scorer in words that a file can hold."""
    told = str(error) if isinstance(error, LateError | ElsewhereError) else f"{type(error).__name__}: {in_words(error)}"
    return shortened(storable(told), LONGEST_REASON)


def place_of(error: BaseException) -> str:
    """The file and line where a scorer raised, or was interrupted; empty where they are not known."""
    if isinstance(error, ElsewhereError):
        return error.place
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != threads.__file__]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def failure_of(error: BaseException) -> ScoringFailure:
    """The failure that an exception of a scorer stands for. Where it was raised is logged, once for each place."""
    reason, place = reason_of(error), place_of(error)
    if place and place not in _told_places:
        _told_places.add(place)
        logger.warning("a scorer broke, and its rollout is masked: %s (%s)", printable(reason), place)
    return ScoringFailure(reason)
