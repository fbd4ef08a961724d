"""`fastslow.json` of an exported directory: what `fastslow serve` needs to use the model as it was trained."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.config import Config, parse_config
from fastslow.errors import ConfigError
from fastslow.runs.directory import write_atomically
from fastslow.runs.files import EXPORT
from fastslow.text import printable
from fastslow.types import Prompt

FORMAT = 1
KEPT = ("engine", "engine_options", "model", "task", "sampling", "evaluation")
"""The parts of a run's config that say how its weights are used, without where it lay and how it was trained."""


@dataclass(frozen=True)
class ExportRecord:
    """What an export says of itself. `prompt` is the one that its weights answer under, `members` the population, best
    first, and `by_kind` maps kinds of problems to the hash of the member for each.
    """

    config: Config
    step: int
    prompt: Prompt
    members: tuple[Prompt, ...]
    by_kind: Mapping[str, str]


def write_record(directory: Path, record: ExportRecord) -> None:
    """Write it into the directory."""
    tree = record.config.model_dump(mode="json", exclude_defaults=True)
    values = {
        "format": FORMAT,
        "config": {name: tree[name] for name in KEPT if name in tree},
        "step": record.step,
        "prompt": record.prompt.as_dict(),
        "population": [member.as_dict() for member in record.members],
        "by_kind": dict(record.by_kind),
    }
    write_atomically(directory / EXPORT, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_record(directory: Path) -> ExportRecord:
    """What an export says of itself. Raises ConfigError where it says nothing, or nothing that can be read."""
    path = directory / EXPORT
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise ValueError(f"its format is {values.get('format')!r}, and this fastslow reads {FORMAT}")
        return ExportRecord(
            parse_config(values["config"]),
            int(values["step"]),
            _prompt(values["prompt"]),
            tuple(_prompt(each) for each in values["population"]),
            {str(kind): str(hash_) for kind, hash_ in values["by_kind"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{printable(str(path))!r} is no record of an export: {printable(str(error))}. Export the run again: "
            "fastslow export RUN DIRECTORY"
        ) from error


def _prompt(components: Mapping[str, Any]) -> Prompt:
    if not components or not all(isinstance(text, str) for text in components.values()):
        raise ValueError("a prompt is no map of names to texts")
    return Prompt.from_dict(components)
