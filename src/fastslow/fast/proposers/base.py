"""The interface of a proposer: what writes a child prompt after reading the rollouts of its parent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Reflection, Usage
from fastslow.text import control_characters, printable
from fastslow.types import Prompt


@dataclass(frozen=True)
class Example:
    """One rollout as reflection sees it: the question, what the policy answered, its reward and the verifier's words.

    `turns` is the transcript of an episode of several turns, as (speaker, text) after the question; () where there is
    one answer. `reference` is the right answer where the task's data have one, "" otherwise.
    """

    question: str
    answer: str
    reward: float
    feedback: str
    turns: tuple[tuple[str, str], ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class Attempt:
    """An edit that the search refused: the lines it added and took out, with their sign, and why it was refused."""

    change: str
    reason: str


@dataclass(frozen=True)
class Proposal:
    """A child's text for one component of its parent, and what it cost to write.

    `reflection`: of a proposer that asks a language model, what was asked and what it thought of it, for the record.
    """

    text: str
    usage: Usage
    reflection: Reflection | None = None


@dataclass(frozen=True)
class ProposalRequest:
    """What one call of `Proposer.propose` is asked. `max_chars`: about what fits into the policy's context; None:
    anything.

    `attempts`: edits of this text that the search has refused in this cycle, oldest first, as many as the proposer's
    own attribute `attempts` says; none where it has no such attribute.
    """

    parent: Prompt
    component: str
    examples: tuple[Example, ...]
    seed: int
    max_chars: int | None = None
    attempts: tuple[Attempt, ...] = ()


class Proposer(Protocol):
    """Writes a child. Stateless apart from its connection: the same arguments and seed ask the same question."""

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        """A new text for one component.

        Raises ReflectionError, carrying `usage`, when the call fails for good or its reply is empty,
        truncated or too long.
        """
        ...


@runtime_checkable
class BatchProposer(Protocol):
    """A proposer that answers many requests at once: calls side by side, or one batch of the policy."""

    def propose_batch(self, requests: Sequence[ProposalRequest]) -> list[Proposal | ReflectionError]:
        """One outcome a request, in order. Errors are returned, so that one failure costs one child only."""
        ...


def propose_all(proposer: Proposer, requests: Sequence[ProposalRequest]) -> list[Proposal | ReflectionError]:
    """One outcome a request, in order; in one batch where the proposer knows how.

    A text that a prompt must not hold, whoever wrote it, becomes a refusal: a control character can steer a
    terminal, ends texts in some programs, and is nothing that a model was trained to read; a lone surrogate
    cannot be written to a file.
    """
    if isinstance(proposer, BatchProposer):
        outcomes = proposer.propose_batch(requests)
    else:
        outcomes = [_outcome(proposer, request) for request in requests]
    return [_clean(outcome) for outcome in outcomes]


def _clean(outcome: Proposal | ReflectionError) -> Proposal | ReflectionError:
    found = control_characters(outcome.text) if isinstance(outcome, Proposal) else ()
    if isinstance(outcome, ReflectionError) or not found:
        return outcome
    codes = ", ".join(f"U+{ord(character):04X}" for character in found[:5])
    return ReflectionError(
        f"the proposed text holds control characters or surrogates ({codes})",
        outcome.usage + Usage(refused=1),
        printable(outcome.text),
        outcome.reflection,
    )


def _outcome(proposer: Proposer, request: ProposalRequest) -> Proposal | ReflectionError:
    try:
        return proposer.propose(request.parent, request.component, request.examples, seed=request.seed)
    except ReflectionError as error:
        return error
