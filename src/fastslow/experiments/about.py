"""experiment.json: which experiments the results in a directory belong to, so that a report can say what they ask."""

import json
from collections.abc import Mapping
from pathlib import Path

from fastslow.errors import ConfigError
from fastslow.runs.directory import write_atomically
from fastslow.runs.files import read_record

FILE = "experiment.json"
KEY = "key"
"""The label of what an ablation varies."""


def write_about(directory: Path, name: str, told: Mapping[str, str]) -> None:
    """Add an experiment to the file: several may share their runs."""
    directory.mkdir(parents=True, exist_ok=True)
    known = read_about(directory)
    if known.get(name) != dict(told):
        text = json.dumps({**known, name: dict(told)}, indent=2, ensure_ascii=False)
        write_atomically(directory / FILE, text + "\n")


def read_about(directory: Path) -> dict[str, dict[str, str]]:
    """By name, what each experiment was told; {} where there is no such file, or not one of fastslow's."""
    try:
        found = read_record(directory / FILE)
    except ConfigError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(name): {str(key): str(value) for key, value in told.items()}
        for name, told in found.items()
        if isinstance(told, dict)
    }
