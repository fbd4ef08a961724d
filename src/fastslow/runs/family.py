"""The family of a run's prompts: every candidate once, who came from whom, what each changed and what became of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import accumulate
from typing import NamedTuple

from fastslow.fast.optimiser import MEMBER
from fastslow.runs.files import CandidateLine


@dataclass
class Event:
    """What a cycle said of a prompt; `count` times in the same words."""

    cycle: int
    accepted: bool
    reason: str
    mean: float | None
    count: int = 1


@dataclass
class Member:
    """One prompt. `parent` is its hash, None where the prompt came from no other; `cycle`, `reason` and `feedback` are
    those that led to it; `mean` and `scores` (by problem) are its last. `accepted` is whether it ever was.

    `before` are the components of the parent that it is shown under.
    """

    hash: str
    parent: str | None
    cycle: int
    components: Mapping[str, str]
    reason: str
    accepted: bool = False
    mean: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    feedback: Sequence[str] = ()
    events: list[Event] = field(default_factory=list)
    children: list["Member"] = field(default_factory=list)
    before: Mapping[str, str] | None = None

    @property
    def changes(self) -> tuple[tuple[str, str], ...]:
        """Lines against the parent: (sign, text), the sign "+" or "-"; none without a parent."""
        return () if self.before is None else changes(self.before, self.components)


def family(candidates: Iterable[CandidateLine]) -> list[Member]:
    """Every prompt once, parents before children, otherwise in the order in which they came.

    A prompt that was scored again has its last score. Of a prompt that two parents led to, the first is its parent; one
    that came from no other at first, and from a parent later, has that parent unless a loop would close.
    """
    members: dict[str, Member] = {}
    events: dict[tuple[object, ...], Event] = {}
    named: set[str] = set()
    for line in candidates:
        _add(members, line, events, named)
    ordered: dict[str, Member] = {}
    for member in members.values():
        line_up = []
        while member.hash not in ordered:
            line_up.append(member)
            if member.parent not in members:
                member.parent = None
                break
            member = members[member.parent]
        ordered |= {each.hash: each for each in reversed(line_up)}
    for member in ordered.values():
        if member.parent is not None:
            parent = ordered[member.parent]
            parent.children.append(member)
            member.before = parent.components
    return list(ordered.values())


def roots(members: Iterable[Member]) -> list[Member]:
    """Those that came from no other."""
    return [member for member in members if member.parent is None]


def scores_by_cycle(candidates: Iterable[CandidateLine]) -> dict[int, dict[str, Mapping[str, float]]]:
    """By cycle and hash, the rewards on the anchors by problem, of the prompts that were scored."""
    found: dict[int, dict[str, Mapping[str, float]]] = {}
    for line in candidates:
        if line["scores"]:
            found.setdefault(line["cycle"], {})[line["hash"]] = line["scores"]
    return found


def populations(candidates: Iterable[CandidateLine]) -> dict[int, list[str]]:
    """By cycle in which a search was made, the hashes of the population that it started from."""
    found: dict[int, list[str]] = {}
    for line in candidates:
        if line["reason"].startswith(MEMBER) and line["hash"] not in found.setdefault(line["cycle"], []):
            found[line["cycle"]].append(line["hash"])
    return {cycle: hashes for cycle, hashes in found.items() if hashes}


def difference(before: Sequence[str], after: Sequence[str]) -> list[tuple[str, str]]:
    """All lines in the order of the text, each with its sign: "-" for one gone, "+" for one new, " " otherwise."""
    found: list[tuple[str, str]] = []
    done = 0
    for edit in edits(before, after):
        found += [(" ", line) for line in before[done : edit.start]]
        found += [("-", line) for line in before[edit.start : edit.end]]
        found += [("+", line) for line in after[edit.first : edit.last]]
        done = edit.end
    return found + [(" ", line) for line in before[done:]]


class Edit(NamedTuple):
    """Items [start, end) of what was before became items [first, last) of what came after."""

    start: int
    end: int
    first: int
    last: int


def edits(before: Sequence[str], after: Sequence[str]) -> list[Edit]:
    """What changed, in order; what lies between is equal."""
    opcodes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [Edit(*places) for kind, *places in opcodes if kind != "equal"]


def word_edits(before: str, after: str) -> list[Edit] | None:
    """What changed within a line that was rewritten, by characters (code points), whole words at a time;
    None where the two have no word in common.
    """
    words, others = ([word for word in re.split(r"(\s+)", line) if word] for line in (before, after))
    if not {word for word in words if word.strip()} & set(others):
        return None
    at, other_at = ([0, *accumulate(map(len, parts))] for parts in (words, others))
    return [Edit(at[a], at[b], other_at[c], other_at[d]) for a, b, c, d in edits(words, others)]


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Lines that went and lines that came, component by component, in the order of the text."""
    return tuple(
        (sign, line)
        for name in dict.fromkeys([*before, *after])
        for sign, line in difference(before.get(name, "").splitlines(), after.get(name, "").splitlines())
        if sign != " "
    )


def _add(
    members: dict[str, Member], line: CandidateLine, events: dict[tuple[object, ...], Event], named: set[str]
) -> None:
    """Take one line of prompts.jsonl in. `events` are those so far, by what they say, and `named` all parents."""
    hash_, parent = line["hash"], line["parent"]
    known = members.get(hash_)
    # Only what has been somebody's parent can be its own ancestor: long lines of descent are not walked for nothing.
    if parent is not None and (parent == hash_ or hash_ in named) and (known is None or known.parent is None):
        parent = None if _descends(members, parent, hash_) else parent
    if parent is not None:
        named.add(parent)
    if known is None:
        known = members[hash_] = Member(hash_, parent, line["cycle"], line["components"], line["reason"])
    elif known.parent is None and parent is not None:
        known.parent, known.cycle, known.reason = parent, line["cycle"], line["reason"]
        known.feedback = line["feedback"]
    known.feedback = known.feedback or line["feedback"]
    known.accepted = known.accepted or bool(line["accepted"])
    if line["mean"] is not None:
        known.mean, known.scores = line["mean"], line["scores"]
    event = Event(line["cycle"], bool(line["accepted"]), line["reason"], line["mean"])
    before = events.setdefault((hash_, event.cycle, event.accepted, event.reason, event.mean), event)
    if before is event:
        known.events.append(event)
    else:
        before.count += 1


def _descends(members: Mapping[str, Member], hash_: str, ancestor: str) -> bool:
    """Whether a prompt comes from another, so that a loop would close."""
    current: str | None = hash_
    while current is not None:
        if current == ancestor:
            return True
        current = members[current].parent if current in members else None
    return False
