"""What a cycle's reflection was asked and brought, for the record and for the requests that come later in the cycle."""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Candidate, Reflection
from fastslow.fast.proposers.base import Attempt, Proposal
from fastslow.types import Prompt


class ReflectionBook:
    """Each question of a cycle and what became of its answer; `refusals` counts the reasons, `proposed` the adopted."""

    def __init__(self) -> None:
        self.reflections: list[Reflection | None] = []
        self.refusals: Counter[str] = Counter()
        self.proposed = 0

    def add(self, outcome: Proposal | ReflectionError) -> None:
        """Book one answer."""
        reflection = outcome.reflection if isinstance(outcome.reflection, Reflection) else None
        if isinstance(outcome, ReflectionError):
            reason = " ".join(str(outcome).split())
            self.refusals[reason] += 1
            # A text that no prompt may hold is found after its proposer let it through.
            if reflection is not None and reflection.outcome == "proposed":
                reflection = replace(reflection, outcome="refused", reason=reason)
        self.reflections.append(reflection)

    def judged(self, answers: int, child: Prompt, refusal: str | None) -> None:
        """The newest answers make a child together; `refusal`: why it is none."""
        if refusal is None:
            self.proposed += 1
        else:
            self.refusals[refusal] += 1
        for index in range(len(self.reflections) - answers, len(self.reflections)):
            found = self.reflections[index]
            if found is not None:
                outcome = found.outcome if refusal is None else "refused"
                self.reflections[index] = replace(found, child=child.hash, outcome=outcome, reason=refusal or "")

    @property
    def kept(self) -> tuple[Reflection, ...]:
        """Those that are to be written down."""
        return tuple(each for each in self.reflections if each is not None)


def attempts(parent: Prompt, component: str, candidates: Iterable[Candidate], most: int) -> tuple[Attempt, ...]:
    """The newest edits of a parent's text that were refused or turned out no better, `most` of them, oldest first."""
    if not most:
        return ()
    before = parent.as_dict()[component]
    found = []
    for candidate in candidates:
        after = candidate.prompt.as_dict().get(component, before)
        if candidate.parent_hash == parent.hash and not candidate.accepted and after != before:
            found.append(Attempt(_change(before, after), candidate.reason))
    return tuple(dict.fromkeys(found))[-most:]


def _change(before: str, after: str) -> str:
    old, new = before.splitlines(), after.splitlines()
    opcodes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changes = [(op, old[a:b], new[c:d]) for op, a, b, c, d in opcodes if op != "equal"]
    return "\n".join(
        f"{sign} {line}" for _, gone, came in changes for sign, part in (("-", gone), ("+", came)) for line in part
    )
