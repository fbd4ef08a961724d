"""Reflection: a language model reads a parent and its rollouts and writes a child. Shared by every LLM proposer.

A reply is adopted only when it is whole: empty, truncated, too long or unchanged texts are refused and counted, because
a broken prompt would be trained on for a whole cycle (gepa adopts them as they stand, its issue 390).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Example, Proposal, ProposalRequest
from fastslow.fast.proposers.reflection_prompt import CLOSE, OPEN, render_messages
from fastslow.types import Message, Prompt

THOUGHT_END = "</think>"
FINISHED = (None, "stop", "eos", "end_turn")


@dataclass(frozen=True)
class Reply:
    """What a reflection LM said. `usage` has its tokens, price and attempts; `refusal`: why it must not be adopted."""

    text: str
    finish_reason: str | None
    usage: Usage
    refusal: str | None = None


@dataclass(frozen=True)
class Question:
    """One request as a model asks it: rendered to messages at the length that the model can take."""

    request: ProposalRequest
    recipe: str
    max_prompt_chars: int

    @property
    def seed(self) -> int:
        """The request's own: the same question gets the same answer from the policy."""
        return self.request.seed

    def messages(self, example_chars: int) -> list[Message]:
        """The conversation that asks for a new text."""
        return render_messages(
            self.request,
            recipe=self.recipe,
            max_prompt_chars=self.max_prompt_chars,
            example_chars=example_chars,
        )


class ReflectionModel(Protocol):
    """Something that answers questions: a server, or the policy itself."""

    def answer(self, questions: Sequence[Question]) -> list[Reply | ReflectionError]:
        """One reply a question, in order. A call that failed for good is returned as an error, not raised."""
        ...


class ReflectionProposer:
    """Proposes what a reflection LM writes, after checking it."""

    def __init__(self, model: ReflectionModel, *, recipe: str, max_prompt_chars: int) -> None:
        self.model, self.recipe, self.max_prompt_chars = model, recipe, max_prompt_chars

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        """As `propose_batch`, for one request. Raises ReflectionError."""
        outcome = self.propose_batch([ProposalRequest(parent, component, tuple(examples), seed)])[0]
        if isinstance(outcome, ReflectionError):
            raise outcome
        return outcome

    def propose_batch(self, requests: Sequence[ProposalRequest]) -> list[Proposal | ReflectionError]:
        """A proposal or an error for each request, in their order."""
        questions = [Question(request, self.recipe, self.max_prompt_chars) for request in requests]
        replies = self.model.answer(questions)
        return [self._judge(request, reply) for request, reply in zip(requests, replies, strict=True)]

    def _judge(self, request: ProposalRequest, reply: Reply | ReflectionError) -> Proposal | ReflectionError:
        if isinstance(reply, ReflectionError):
            return reply
        text, refusal = read_reply(reply.text, reply.finish_reason)
        refusal = reply.refusal or refusal or self._refusal(text, request.parent.as_dict()[request.component])
        if refusal is None:
            return Proposal(text, reply.usage)
        return ReflectionError(refusal, reply.usage + Usage(refused=1), text or None)

    def _refusal(self, text: str, parent: str) -> str | None:
        if len(text) > self.max_prompt_chars:
            return (
                f"the proposed text has {len(text)} characters, more than fast.proposer.max_prompt_chars = "
                f"{self.max_prompt_chars}"
            )
        if text == parent.strip():
            return "the proposed text is its parent's, unchanged"
        return None


def read_reply(reply: str, finish_reason: str | None) -> tuple[str, str | None]:
    """The new text of a reply, and why it must be refused, None where it is whole. Thoughts before it are left out."""
    body = reply.replace("\r\n", "\n").rpartition(THOUGHT_END)[2].strip()
    _, opened, rest = body.rpartition(OPEN)
    text, closed, _ = (rest if opened else body).partition(CLOSE)
    text = text.strip()
    if finish_reason == "length":
        return text, "the reply was truncated at its token limit: raise fast.proposer.max_tokens if this happens often"
    if finish_reason not in FINISHED:
        return text, f"the reply ended with finish_reason {finish_reason!r}"
    if not body:
        return "", "the reply is empty"
    if not opened:
        return text, f"the reply has no {OPEN} ... {CLOSE}"
    if not closed:
        return text, f"the reply is truncated: {OPEN} is never closed"
    return text, None if text else "the proposed text is empty"
