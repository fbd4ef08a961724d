"""Records a command in a terminal as an animated SVG, for a README: what was on the screen, frame by frame.

    pip install pyte
    python tools/record_demo.py docs/images/demo.svg -- fastslow lab demo --output /tmp/demo

The command really runs, in a pseudo-terminal. Its pauses are shortened, so that the film has a given length; the real
time stands in its title. Only its standard output is filmed. `tools/replay_demo.py` shows a demo that has ended once
more, for a machine that has other things to do.
"""

import argparse
import fcntl
import html
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

COLUMNS, ROWS = 100, 34
WIDTH, HEIGHT = 8.4, 17.0
"""Of a character, in units of the picture."""
EDGE, BAR = 14.0, 30.0
SAMPLE_S = 0.2
BACKGROUND, FOREGROUND, RIM = "#16181d", "#d8dade", "#3d434c"
"""The rim tells it from a dark page."""
COLOURS = {
    "default": FOREGROUND, "black": "#5c6370", "red": "#f2777a", "green": "#7fd08a", "brown": "#e6c067",
    "blue": "#69b3f5",
    "magenta": "#d58fd2", "cyan": "#5fcfd6", "white": "#f0f0f0",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What stood on the screen from some second on: rows of (text, colour, bold)."""

    at: float
    rows: tuple[tuple[tuple[str, str, bool], ...], ...]


def record(command: Sequence[str]) -> tuple[list[Frame], float]:
    """The frames of a run of the command, and how long it took in seconds. Raises SystemExit where it fails."""
    import pyte

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    started = time.monotonic()
    child = subprocess.Popen(  # noqa: S603  the caller's own command
        list(command), stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=environment, close_fds=True
    )
    os.close(slave)
    frames: list[Frame] = []
    while _feed(master, stream):
        rows = tuple(_row(screen.buffer[y]) for y in range(ROWS))
        if not frames or frames[-1].rows != rows:
            frames.append(Frame(time.monotonic() - started, rows))
    if child.wait() != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}")
    return frames, time.monotonic() - started


def _feed(master: int, stream: Any) -> bool:
    """Read what comes within a sample's time; whether there may be more."""
    until = time.monotonic() + SAMPLE_S
    while (left := until - time.monotonic()) > 0:
        if select.select([master], [], [], left)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # Linux says so when the other end is closed
                return False
            if not data:
                return False
            stream.feed(data)
    return True


def _row(cells: Any) -> tuple[tuple[str, str, bool], ...]:
    """The parts of a row that look the same, without the spaces at its end."""
    parts: list[tuple[str, str, bool]] = []
    for x in range(COLUMNS):
        cell = cells[x]
        look = (COLOURS.get(cell.fg, f"#{cell.fg}" if len(cell.fg) == 6 else FOREGROUND), bool(cell.bold))
        if parts and parts[-1][1:] == look:
            parts[-1] = (parts[-1][0] + cell.data, *look)
        else:
            parts.append((cell.data, *look))
    while parts and not parts[-1][0].strip():
        parts.pop()
    return (*parts[:-1], (parts[-1][0].rstrip(), *parts[-1][1:])) if parts else ()


def film(frames: Sequence[Frame], seconds: float, length: float, last: float, most: int) -> list[tuple[float, Frame]]:
    """When each frame is shown in a film of `length` seconds, of at most so many frames; the last for `last` more."""
    if len(frames) > most:
        frames = [frames[round(index * (len(frames) - 1) / (most - 1))] for index in range(most)]
    longest = seconds / 40  # a pause says nothing, however long it was
    pauses = [min(after.at - before.at, longest) for before, after in pairwise(frames)]
    scale = (length - last) / sum(pauses) if pauses else 1.0
    shown, at = [], 0.0
    for frame, pause in zip(frames, [*pauses, last / scale], strict=True):
        shown.append((at, frame))
        at += pause * scale
    return shown


def picture(shown: Sequence[tuple[float, Frame]], length: float, title: str) -> str:
    """The film as SVG, as high as its fullest frame. Rows that stand in several frames are written once."""
    filled = max((y + 1 for _, frame in shown for y, row in enumerate(frame.rows) if row), default=1)
    width, height = COLUMNS * WIDTH + 2 * EDGE, filled * HEIGHT + 2 * EDGE + BAR
    rows: dict[object, int] = {}
    groups, rules = [], []
    for index, (at, frame) in enumerate(shown):
        end = shown[index + 1][0] if index + 1 < len(shown) else length
        uses = "".join(
            f'<use href="#r{rows.setdefault(row, len(rows))}" y="{BAR + EDGE + HEIGHT * (y + 0.8):.1f}"/>'
            for y, row in enumerate(frame.rows)
            if row
        )
        groups.append(f'<g class="f" style="animation-name:k{index}">{uses}</g>')
        a, b = 100 * at / length, 100 * end / length
        hidden = "" if b >= 100 else f"{b:.3f}%,to{{visibility:hidden}}"
        before = "" if a <= 0 else "0%{visibility:hidden}"
        rules.append(f"@keyframes k{index}{{{before}{a:.3f}%{{visibility:visible}}{hidden}}}")
    texts = "".join(f'<g id="r{number}">{"".join(_text(row))}</g>' for row, number in rows.items())
    dots = "".join(
        f'<circle cx="{20 + 18 * at}" cy="17" r="5.5" fill="{colour}"/>'
        for at, colour in enumerate(("#f2777a", "#e6c067", "#7fd08a"))
    )
    style = (
        f"text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}"
        f".f{{visibility:hidden;animation-duration:{length}s;"
        "animation-timing-function:step-end;animation-iteration-count:infinite}"
        "@media (prefers-reduced-motion:reduce){.f{animation:none}.f:last-of-type{visibility:visible}}"
    )
    name = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{name}">'
        f"<title>{name}</title><style>{style}{''.join(rules)}</style><defs>{texts}</defs>"
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="{BACKGROUND}"/>'
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="9.5" fill="none" '
        f'stroke="{RIM}"/>{dots}'
        f'<text x="{width / 2:.0f}" y="21" fill="#8b909a" text-anchor="middle">{name}</text>{"".join(groups)}</svg>\n'
    )


def _text(row: Sequence[tuple[str, str, bool]]) -> Iterator[str]:
    """The parts of a row, each at its place: no font has to have the width that we count with."""
    column = 0
    for text, colour, bold in row:
        if text.strip():
            left = len(text) - len(text.lstrip())
            shown = text.strip()
            weight = ' font-weight="700"' if bold else ""
            yield (
                f'<text x="{EDGE + WIDTH * (column + left):.1f}" textLength="{WIDTH * len(shown):.1f}" '
                f'lengthAdjust="spacingAndGlyphs" fill="{colour}"{weight}>{html.escape(shown)}</text>'
            )
        column += len(text)


def main() -> int:
    """Record, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--length", type=float, default=24.0, help="of the film, in seconds")
    parser.add_argument("--last", type=float, default=7.0, help="how long the last frame stays, in seconds")
    parser.add_argument("--frames", type=int, default=90, help="at most so many")
    parser.add_argument("--title", help="what stands above the film (default: the command, and how long it took)")
    parser.add_argument("command", nargs="+", help="behind --")
    options = parser.parse_args()
    frames, seconds = record(options.command)
    shown = film(frames, seconds, options.length, options.last, options.frames)
    told = options.command[: options.command.index("--output")] if "--output" in options.command else options.command
    title = options.title or f"$ {' '.join([Path(told[0]).name, *told[1:]])}   ({seconds / 60:.0f} min, shortened)"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture(shown, options.length, title), encoding="utf-8")
    print(f"wrote {options.output} ({options.output.stat().st_size / 1000:.0f} kB, {len(shown)} frames)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
