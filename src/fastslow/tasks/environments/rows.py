"""The problems of an environment: rows of data that it is reset with, or seeds where it makes its tasks itself."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastslow.errors import ConfigError, TaskError
from fastslow.seeding import derive_seed
from fastslow.tasks.base import SPLITS, Split
from fastslow.tasks.records import ROLES, cut
from fastslow.tasks.sources import read_source
from fastslow.tasks.tables import Row, check_text
from fastslow.types import Message, Problem

FIRST: Mapping[Split, int] = {"test": 0, "validation": 100_000, "train": 200_000}
"""The number of a split's first seed, so that splits share none and another size changes no problem."""
A_SEED = 1_000_000
"""How many numbers a task's seed has for itself."""
EMPTY: tuple[Message, ...] = ({"role": "user", "content": ""},)
"""The question of an environment that says itself what it asks for."""


def numbers_of(sizes: Mapping[Split, int], seed: int) -> dict[Split, range]:
    """The seeds of each split's problems; no two splits share one. Raises ConfigError for a size that is too large."""
    ends = {"test": FIRST["validation"], "validation": FIRST["train"], "train": A_SEED}
    found = {}
    for split in SPLITS:
        start = FIRST[split]
        if not 0 <= sizes[split] <= ends[split] - start:
            raise ConfigError(f"task.options.{split}: {sizes[split]} problems: give 0 to {ends[split] - start}")
        found[split] = range(seed * A_SEED + start, seed * A_SEED + start + sizes[split])
    return found


def seeded(name: str, sizes: Mapping[Split, int], seed: int, names: Sequence[str]) -> dict[Split, list[Problem]]:
    """Problems without data. Several environments take turns."""
    return {
        split: [
            Problem(
                f"{name}-{number}",
                EMPTY,
                {"row": {}, "seed": number, "environment": names[number % len(names)]},
                names[number % len(names)],
            )
            for number in numbers
        ]
        for split, numbers in numbers_of(sizes, seed).items()
    }


def read_rows(
    name: str,
    data: str | dict[str, str],
    splits: dict[str, str | int] | None,
    cut_from: str,
    subset: str | None,
    revision: str | None,
    *,
    names: Sequence[str],
    seed: int,
) -> dict[Split, list[Problem]]:
    """Problems from rows of data. Rows that are equal are told apart by their number, which their seed comes from.

    Raises: TaskError for a row that is none, ConfigError for data and splits that do not go together.
    """
    rows = read_source(data, splits, cut_from, subset, revision)
    seen: dict[str, int] = {}
    if not isinstance(rows, dict):
        return cut([_problem(name, row, names, seed, seen) for row in rows], splits or {}, seed)
    return {split: [_problem(name, row, names, seed, seen) for row in rows.get(split, [])] for split in SPLITS}


def _problem(name: str, row: Row, names: Sequence[str], seed: int, seen: dict[str, int]) -> Problem:
    where, record = row
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    seen[digest] = seen.get(digest, 0) + 1
    identity = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    chosen: Any = record.get("environment") if len(names) > 1 else names[0]
    if chosen not in names:
        raise TaskError(f"{where}: column 'environment' holds {chosen!r}: one of {', '.join(names)} is needed")
    data = {"row": record, "seed": derive_seed(seed, name, identity), "environment": chosen}
    return Problem(f"{name}-{identity}", _messages(where, record), data, chosen)


def _messages(where: str, record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The chat of the column `prompt`; without one the environment says itself what it asks for."""
    prompt = record.get("prompt", list(EMPTY))
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt or not all(_is_message(message) for message in prompt):
        raise TaskError(
            f"{where}: column 'prompt' must hold a text or a list of chat messages ({{role, content}}, roles "
            f"{', '.join(ROLES)}), not {prompt!r}"
        )
    if prompt[-1]["role"] != "user":
        raise TaskError(f"{where}: column 'prompt' ends with the role {prompt[-1]['role']!r}: the user must speak last")
    for message in prompt:
        check_text(where, "prompt", message["content"])
    return tuple({"role": message["role"], "content": message["content"]} for message in prompt)


def _is_message(message: object) -> bool:
    if not isinstance(message, Mapping):
        return False
    return message.get("role") in ROLES and isinstance(message.get("content"), str)
