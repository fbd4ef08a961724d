"""An OpenAI-compatible endpoint on this machine alone, which puts the evolved prompt in by itself.

It has the protocol of agents' endpoints (`tasks/agents`): one session, whose calls are answered in waves.
What waits together is sampled together.
"""

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from fastslow.deploy.prompts import Prompts
from fastslow.deploy.settings import AT_ONCE, MAX_REQUEST_BYTES
from fastslow.errors import FastslowError
from fastslow.rollouts.answering import chosen, cut
from fastslow.rollouts.conversations import Conversations, Place
from fastslow.rollouts.waves import chat_of
from fastslow.slow.engine import PolicyEngine, SampleRequest, SamplingParams
from fastslow.tasks.agents.chat_api import Answer, ChatRequest, Refused, models, read_request, said_of
from fastslow.tasks.agents.endpoint import Endpoint
from fastslow.tasks.agents.session import AgentSession, Pending
from fastslow.text import printable
from fastslow.types import Completion, Prompt

logger = logging.getLogger(__name__)

MOST_CHOICES, MOST_TOKENS = 16, 131_072
MOST_CONVERSATIONS = 256
"""Turns that are remembered: a conversation that goes on from one has its own tokens in its context, as in training."""
ADVICE = "nothing here makes the policy keep to it. Leave it out."
ENDING = Refused(500, "The server is ending.", code="server_ending")
POLL_S = 0.2


@dataclass(frozen=True)
class Defaults:
    """How completions are drawn where a request does not say."""

    max_tokens: int
    temperature: float
    top_p: float


@dataclass(frozen=True)
class _Wanted:
    """A call that is to be sampled, and how."""

    pending: Pending
    request: ChatRequest
    place: Place
    prompt: Prompt
    seed: int
    params: SamplingParams


class ServedSession(AgentSession):
    """The calls of all clients. `names` are the model's own name, and after it one for each kind of problems."""

    def __init__(self, names: Sequence[str], at_once: int) -> None:
        super().__init__(threading.Condition(), at_once)
        self.names = tuple(names)
        self.key = ""  # the endpoint holds it

    def models(self) -> dict[str, Any]:
        """The names."""
        return models(self.names)

    def read(self, body: Any) -> ChatRequest:
        """A request from its JSON. Raises Refused."""
        request = read_request(body, draws=True, advice=ADVICE)
        if "model" in body and request.model not in self.names:
            known = ", ".join(self.names)
            raise Refused(404, f"There is no model {request.model[:100]!r}: take {known}.", code="model_not_found")
        if request.n > MOST_CHOICES:
            raise Refused(400, f"n: {request.n} is more than {MOST_CHOICES}.", param="n")
        return request if "model" in body else replace(request, model=self.names[0])

    def count_refusal(self) -> None:
        """Nothing: clients may be wrong as often as they like."""


class _Door(Endpoint):
    limit_name = "--max-request-bytes"

    def __init__(self, session: ServedSession, key: str | None, max_request_bytes: int, port: int) -> None:
        super().__init__(max_request_bytes, port)
        self.session, self.wanted = session, key
        self.add(session)

    def session_of(self, key: str) -> AgentSession | None:
        if self.wanted is not None and not hmac.compare_digest(key.encode(), self.wanted.encode()):
            return None
        return self.session


class ModelServer:
    """Serves an engine under its prompts. Use it as a context manager; it answers in a thread of its own."""

    def __init__(
        self,
        engine: PolicyEngine,
        prompts: Prompts,
        defaults: Defaults,
        *,
        name: str,
        step: int,
        key: str | None = None,
        port: int = 0,
        at_once: int = AT_ONCE,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self.engine, self.chat, self.prompts, self.defaults, self.step = (
            engine,
            chat_of(engine),
            prompts,
            defaults,
            step,
        )
        self.names = (name, *(f"{name}:{kind}" for kind in prompts.kinds))
        self.session = ServedSession(self.names, at_once)
        self._conversations = Conversations(self.chat, (), most=MOST_CONVERSATIONS)
        self._ends = False
        self._door = _Door(self.session, key, max_request_bytes, port)
        self._thread = threading.Thread(target=self._loop, daemon=True, name="model server")

    def __enter__(self) -> "ModelServer":
        self._door.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends = True
        self.session.close(ENDING)
        self._door.__exit__(kind, error, trace)
        self._thread.join(timeout=10 * POLL_S)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its `base_url`."""
        return self._door.base_url

    def told(self) -> str:
        """What it says when it begins."""
        name, *by_kind = self.names
        lines = [
            f"{name}, weights of step {self.step}, at {self.base_url}",
            f"The prompt {self.prompts.best.hash} is put in by itself: send questions alone.",
        ]
        if by_kind:
            how = "the task may tell them" if self.prompts.task is not None else "name them, for the task is not here"
            lines.append(f"Kinds of problems with a prompt of their own ({how}): {', '.join(by_kind)}")
        return printable("\n".join(lines))

    def wait(self) -> None:
        """Until Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(timeout=POLL_S)

    # -- answering -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._ends:
            with self.session.changed:
                if not self.session.waiting:
                    self.session.changed.wait(POLL_S)
                taken = self.session.take()
            waves: dict[SamplingParams, list[_Wanted]] = {}
            for pending in taken:
                try:
                    wanted = self._wanted(pending)
                    waves.setdefault(wanted.params, []).append(wanted)
                except Refused as refusal:
                    pending.refuse(refusal)
                except Exception as error:  # a request that nobody thought of must not end the server
                    self._failed([pending], error)
            for params, wave in waves.items():
                try:
                    self._answer(wave, params)
                except Exception as error:
                    self._failed([wanted.pending for wanted in wave], error)

    def _wanted(self, pending: Pending) -> _Wanted:
        """Where a call stands, under which prompt, and how it is drawn. Raises Refused for a context too long."""
        asked = pending.request
        _, _, named = asked.model.partition(f"{self.names[0]}:")
        kind = named or self.prompts.kind_of(asked.messages)
        prompt = self.prompts.prompt_for(kind)
        messages = self.prompts.place(asked.messages, prompt, kind)
        request = replace(asked, messages=messages, tools=self.prompts.tools(asked.tools, prompt))
        place = self._conversations.place(request)
        drawn, defaults = asked.drawn, self.defaults
        params = SamplingParams(
            self._room(len(place.context), asked.max_tokens),
            defaults.temperature if drawn.temperature is None else drawn.temperature,
            defaults.top_p if drawn.top_p is None else drawn.top_p,
        )
        seed = secrets.randbits(62) if drawn.seed is None else drawn.seed % 2**62
        return _Wanted(pending, request, place, prompt, seed, params)

    def _room(self, context_tokens: int, asked: int | None) -> int:
        """Tokens that a completion may have. Raises Refused where the model's context does not hold them."""
        limit = self.engine.context_limit
        room = MOST_TOKENS if limit is None else min(MOST_TOKENS, limit - context_tokens)
        if room < 1 or (asked or 1) > room:
            raise Refused(
                400,
                f"The context has {context_tokens} tokens with the prompt, and {asked or 1} more do not fit: the model "
                f"has {limit if limit is not None else MOST_TOKENS}.",
                code="context_length_exceeded",
                param="messages" if room < 1 else "max_tokens",
            )
        return min(self.defaults.max_tokens, room) if asked is None else asked

    def _answer(self, wave: Sequence[_Wanted], params: SamplingParams) -> None:
        requests = [
            SampleRequest(wanted.place.context, wanted.request.n, wanted.seed, wanted.place.continued_tokens)
            for wanted in wave
        ]
        for wanted, completions in zip(wave, self.engine.sample(requests, params), strict=True):
            wanted.pending.reply(self._answer_of(wanted, completions))

    def _answer_of(self, wanted: _Wanted, completions: Sequence[Completion]) -> Answer:
        place, request = wanted.place, wanted.request
        made = []
        for completion in completions:
            kept, shown, finish = cut(self.chat, place.context, completion, request)
            choice, _ = chosen(self.engine, self.chat, place.context, kept, shown, finish, request)
            made.append((kept, self.chat.read(place.context, kept.tokens), choice))
        answer = Answer(
            f"chatcmpl-{secrets.token_hex(8)}",
            tuple(choice for *_, choice in made),
            len(place.context),
            int(time.time()),
            f"step_{self.step}-{wanted.prompt.hash}",
        )
        for index, (kept, text, _) in enumerate(made):
            if kept.tokens:
                self._conversations.add(request, place, kept, text, said_of(answer, index))
        return answer

    def _failed(self, pendings: Sequence[Pending], error: Exception) -> None:
        told = str(error) if isinstance(error, FastslowError) else f"{type(error).__name__}: {error}"
        logger.warning("a request could not be answered: %s", told)
        for pending in pendings:
            pending.refuse(Refused(500, "The model could not answer: the server's log says why."))
