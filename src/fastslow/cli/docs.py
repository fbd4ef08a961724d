"""`fastslow docs`: the pages and configs that messages name, from an installed package as from a checkout."""

import argparse
import difflib
import sys
from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.resources import KINDS, pages


def add_docs(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow docs`."""
    parser.add_argument(
        "name", nargs="?", help="a page or a config as messages name it, such as docs/engine.md or engine"
    )
    parser.set_defaults(run=_docs)


def find(name: str) -> Path:
    """The file of a page or config. Raises ConfigError with the names that come close."""
    known = pages()
    for spelled in (name, *(f"{folder}/{name}{suffix}" for folder, suffix in KINDS.items())):
        if spelled in known:
            return known[spelled]
    short = {Path(each).stem: each for each in known}
    if name in short:
        return known[short[name]]
    close = [short[each] for each in difflib.get_close_matches(Path(name).stem, short, n=3)]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(f"docs: there is no {name!r}. {hint}`fastslow docs` lists them")


def _docs(options: argparse.Namespace) -> int:
    if options.name is None:
        for name, path in pages().items():
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            print(f"{name:<32} {first.lstrip('# ').rstrip()}")
        return 0
    path = find(options.name)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md" and sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        with (console := Console()).pager(styles=True):
            console.print(Markdown(text))
    else:
        sys.stdout.write(text)
    return 0
