"""Words and numbers for people: text that cannot steer a terminal, durations, Markdown tables."""

import re
from collections.abc import Iterable, Sequence
from reprlib import Repr
from textwrap import wrap

COLUMNS = 120
"""No line of a page that fastslow writes is longer, unless a cell of a table, a heading or a link needs it."""


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters of a model's or a verifier's words are replaced."""
    if text.isprintable():
        return text
    return "\n".join(line if line.isprintable() else "".join(map(_printable, line)) for line in text.split("\n"))


def _printable(character: str) -> str:
    return character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates, which JSON and Python know and files do not, are replaced."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def control_characters(text: str) -> tuple[str, ...]:
    """The control characters and lone surrogates of a text, each once, in order; line ends and tabs are none."""
    return tuple(dict.fromkeys(_CONTROL.findall(text)))


_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 20
_SHORT.maxlong = 60


def shown(value: object) -> str:
    """A value as an error message repeats it: its `repr`, cut in the middle where it is long, or deep,
    or holds itself.
    """
    try:
        return _SHORT.repr(value)
    except Exception:  # an integer of more digits than Python writes down
        return f"<{type(value).__name__} that cannot be shown>"


def shortened(text: str, characters: int) -> str:
    """At most so many characters of a text: its beginning and its end, with a mark between where some are left out."""
    if len(text) <= characters:
        return text
    half = (characters - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def is_bare_number(line: str) -> bool:
    """Whether a line is only a number, or a name and a number: `0.5`, `short: 0`, `accuracy = 3/4`."""
    return _BARE_NUMBER.fullmatch(line.strip()) is not None


_BARE_NUMBER = re.compile(
    r"(?:[^:=.!?]{1,60}?\s*[:=]\s*|\S+\s+)?"
    r"[-+]?(?:\d[\d.,]*(?:e[-+]?\d+)?|\.\d+|nan|inf|none|true|false)\s*(?:/\s*\d[\d.,]*|%)?\.?",
    re.IGNORECASE,
)


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
