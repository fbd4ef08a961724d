"""Words and numbers for people: text that cannot steer a terminal, durations, Markdown tables."""

from collections.abc import Iterable, Sequence
from textwrap import wrap

COLUMNS = 120
"""No line of a page that fastslow writes is longer, unless a cell of a table, a heading or a link needs it."""


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters of a model's or a verifier's words are replaced."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def wrapped(lines: Iterable[str]) -> list[str]:
    """Markdown with its prose cut into lines of at most `COLUMNS`; tables, headings and pictures stay as they are."""
    return [
        short
        for line in lines
        for short in (
            [line]
            if len(line) <= COLUMNS or line.startswith(("|", "#", "!["))
            else wrap(line, COLUMNS, break_long_words=False, break_on_hyphens=False)
        )
    ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, an empty one behind it. A bar within a cell does not end it."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    head, *body = [f"| {' | '.join(row)} |" for row in escaped]
    return [head, "|---" * len(header) + "|", *body, ""]
