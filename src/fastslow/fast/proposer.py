"""The interface of a proposer: what writes a child prompt after reading the rollouts of its parent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fastslow.fast.optimiser import Usage
from fastslow.types import Prompt


@dataclass(frozen=True)
class Example:
    """One rollout as reflection sees it: the question, what the policy answered, its reward and the verifier's words."""

    question: str
    answer: str
    reward: float
    feedback: str


@dataclass(frozen=True)
class Proposal:
    """A child's text for one component of its parent, and what it cost to write."""

    text: str
    usage: Usage


class Proposer(Protocol):
    """Writes a child. Stateless apart from its connection: the same arguments and seed ask the same question."""

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        """A new text for one component.

        Raises ReflectionError, carrying `usage`, when the call fails for good or its reply is empty, truncated or too long.
        """
        ...
