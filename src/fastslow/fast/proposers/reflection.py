"""Reflection: a language model reads a parent and its rollouts and writes a child. Shared by every LLM proposer.

A reply is adopted only when it is whole: empty, truncated, too long or unchanged texts are refused and counted, because
a broken prompt would be trained on for a whole cycle (gepa adopts them as they stand, its issue 390).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Reflection, Usage
from fastslow.fast.proposers.base import Example, Proposal, ProposalRequest
from fastslow.fast.proposers.clipping import THOUGHT_END, clip
from fastslow.fast.proposers.reflection_prompt import CLOSE, OPEN, Wording, render_messages
from fastslow.fast.proposers.secrets import known_secrets, redact
from fastslow.types import Message, Prompt

FINISHED = (None, "stop", "eos", "end_turn")


@dataclass(frozen=True)
class Reply:
    """What a reflection LM said. `usage` has its tokens, price and attempts; `refusal`: why it must not be adopted."""

    text: str
    finish_reason: str | None
    usage: Usage
    refusal: str | None = None


@dataclass
class Question:
    """One request as a model asks it: rendered to messages at the length that the model can take.

    `asked` is what was rendered last: the question as it went out.
    """

    request: ProposalRequest
    wording: Wording
    asked: str = ""

    @property
    def seed(self) -> int:
        """The request's own: the same question gets the same answer from the policy."""
        return self.request.seed

    def messages(self, request_chars: int) -> list[Message]:
        """The conversation that asks for a new text, with about so many characters of examples."""
        messages = render_messages(self.request, self.wording, request_chars)
        self.asked = "\n\n".join(message["content"] for message in messages)
        return messages


class ReflectionModel(Protocol):
    """Something that answers questions: a server, or the policy itself."""

    def answer(self, questions: Sequence[Question]) -> list[Reply | ReflectionError]:
        """One reply a question, in order. A call that failed for good is returned as an error, not raised."""
        ...


class ReflectionProposer:
    """Proposes what a reflection LM writes, after checking it.

    `log_chars`: what is kept of a request and of a diagnosis, in characters; 0: nothing. `api_key`:
    what must not be kept.
    """

    def __init__(
        self, model: ReflectionModel, wording: Wording, *, log_chars: int = 0, api_key: str | None = None
    ) -> None:
        self.model, self.wording, self.log_chars = model, wording, log_chars
        self._secrets = known_secrets(api_key)

    @property
    def attempts(self) -> int:
        """How many refused edits a request shows: no more need be looked up."""
        return self.wording.attempts

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        """As `propose_batch`, for one request. Raises ReflectionError."""
        outcome = self.propose_batch([ProposalRequest(parent, component, tuple(examples), seed)])[0]
        if isinstance(outcome, ReflectionError):
            raise outcome
        return outcome

    def propose_batch(self, requests: Sequence[ProposalRequest]) -> list[Proposal | ReflectionError]:
        """A proposal or an error for each request, in their order."""
        questions = [Question(request, self.wording) for request in requests]
        replies = self.model.answer(questions)
        return [self._judge(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def _judge(self, question: Question, reply: Reply | ReflectionError) -> Proposal | ReflectionError:
        if isinstance(reply, ReflectionError):
            spent = reply.usage if isinstance(reply.usage, Usage) else Usage()
            reply.reflection = self._record(question, "", spent, "failed", str(reply))
            return reply
        request = question.request
        text, refusal = read_reply(reply.text, reply.finish_reason)
        refusal = reply.refusal or refusal or self._refusal(text, request.parent.as_dict()[request.component])
        if refusal is None:
            return Proposal(text, reply.usage, self._record(question, reply.text, reply.usage, "proposed", ""))
        spent = reply.usage + Usage(refused=1)
        return ReflectionError(
            refusal, spent, text or None, self._record(question, reply.text, spent, "refused", refusal)
        )

    def _record(
        self,
        question: Question,
        reply: str,
        usage: Usage,
        outcome: Literal["proposed", "refused", "failed"],
        reason: str,
    ) -> Reflection | None:
        if not self.log_chars:
            return None
        request = question.request
        # Blotted out before it is cut: half a key is one, too.
        asked, diagnosis = (redact(text, self._secrets) for text in (question.asked, read_diagnosis(reply)))
        return Reflection(
            request.parent.hash,
            request.component,
            clip(asked, self.log_chars),
            clip(diagnosis, self.log_chars),
            usage,
            outcome,
            reason,
        )

    def _refusal(self, text: str, parent: str) -> str | None:
        if len(text) > self.wording.max_prompt_chars:
            return (
                f"the proposed text has {len(text)} characters, more than fast.proposer.max_prompt_chars = "
                f"{self.wording.max_prompt_chars}"
            )
        if text == parent.strip():
            return "the proposed text is its parent's, unchanged"
        return None


def read_reply(reply: str, finish_reason: str | None) -> tuple[str, str | None]:
    """The new text of a reply, and why it must be refused, None where it is whole. Thoughts before it are left out."""
    body = _body(reply)
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


def read_diagnosis(reply: str) -> str:
    """What a reply says beside its new text, without its thoughts; of one without a new text, all of it."""
    body = _body(reply)
    before, opened, rest = body.rpartition(OPEN)
    return "\n".join(part for part in (before.strip(), rest.partition(CLOSE)[2].strip()) if part) if opened else body


def _body(reply: str) -> str:
    return reply.replace("\r\n", "\n").rpartition(THOUGHT_END)[2].strip()
