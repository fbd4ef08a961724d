"""How much of a text and of a number the page shows, and how many bytes that takes at least."""

import math
from collections.abc import Iterable

from fastslow.report.data import Number

LONGEST_COMPLETION = 8_000
LONGEST_FEEDBACK = 2_000
LONGEST_TURN = 4_000
LONGEST_QUESTION = 6_000
LONGEST_PROMPT = 20_000


def clip(text: str, longest: int) -> str:
    """The beginning of a long text, and how much more there is."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"


def digits(value: object) -> Number:
    """Six significant digits are more than a page can show, and a third of the bytes."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def least_bytes(texts: Iterable[str], longest: int) -> int:
    """Bytes that texts take in the page at least, each cut at `longest` characters."""
    return sum(min(len(text), longest) for text in texts)
