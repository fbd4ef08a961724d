"""`fastslow --print-completion SHELL`: completion for bash, zsh and tcsh, which shtab writes."""

import argparse
from pathlib import Path

import shtab

FILES = ("config", "target")
"""Arguments that are files or directories, though their type does not say so."""


def add_completion(parser: argparse.ArgumentParser) -> None:
    """The option, and what it completes: commands, options, choices, files."""
    shtab.add_argument_to(parser, ["--print-completion"], help="print a script that completes commands in this shell")
    _complete_files(parser)


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _complete_files(each)
        elif action.choices is None and (action.type is Path or action.dest in FILES):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
