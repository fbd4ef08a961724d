"""Words and numbers for people: text that cannot steer a terminal, durations, Markdown tables."""

from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters of a model's or a verifier's words are replaced."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, an empty one behind it. A bar within a cell does not end it."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    head, *body = [f"| {' | '.join(row)} |" for row in escaped]
    return [head, "|---" * len(header) + "|", *body, ""]
