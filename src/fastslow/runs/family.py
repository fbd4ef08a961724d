"""The family tree of a run's prompts: who came from whom, and what each changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any


@dataclass(frozen=True)
class Member:
    """One prompt of the tree: its record as in prompts.jsonl, and its children in the order in which they were proposed.

    `changes` against the parent are lines: (sign, text), the sign "+" or "-".
    """

    record: Mapping[str, Any]
    changes: tuple[tuple[str, str], ...]
    children: tuple["Member", ...]


def family_tree(candidates: Sequence[Mapping[str, Any]]) -> list[Member]:
    """The roots: prompts that came from no other. A prompt that was scored again stands once, with its last score.

    Of a prompt that two parents led to, the first is its parent.
    """
    records: dict[str, dict[str, Any]] = {}
    for line in candidates:
        known = records.setdefault(line["hash"], dict(line))
        if line["mean"] is not None:
            known |= {"mean": line["mean"], "scores": line["scores"]}
        known["accepted"] = known["accepted"] or line["accepted"]
        if (
            known["parent"] is None
            and line["parent"] is not None
            and not _descends(records, line["parent"], line["hash"])
        ):
            known |= {name: line[name] for name in ("parent", "cycle", "reason", "feedback")}
    children: dict[str | None, list[str]] = {}
    for hash_, record in records.items():
        children.setdefault(record["parent"] if record["parent"] in records else None, []).append(hash_)

    def member(hash_: str) -> Member:
        record = records[hash_]
        before = records.get(record["parent"], {}).get("components", {})
        changed = changes(before, record["components"]) if before else ()
        return Member(record, changed, tuple(member(child) for child in children.get(hash_, [])))

    return [member(hash_) for hash_ in children.get(None, [])]


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Lines that went and lines that came, component by component, in the order of the text."""
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, "").splitlines(), after.get(name, "").splitlines()
        for kind, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind != "equal":
                found += [("-", line) for line in old[start:end]] + [("+", line) for line in new[first:last]]
    return tuple(found)


def _descends(records: Mapping[str, Mapping[str, Any]], hash_: str, ancestor: str) -> bool:
    """Whether a prompt comes from another, so that a loop would close."""
    current: str | None = hash_
    while current is not None:
        if current == ancestor:
            return True
        current = records.get(current, {}).get("parent")
    return False
