"""One agent that plays one episode: its thread, its key, the calls that it waits for, and how it ended."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastslow.tasks.agents.chat_api import Answer, ChatRequest, Refused, models, read_request

MOST_REFUSALS = 100
"""Refused requests of one episode; an agent that makes more does nothing else."""
OVER = Refused(403, "The episode has ended: no further call is answered.", code="episode_ended")


@dataclass(eq=False)
class Pending:
    """A call that waits. `done` is set when there is an `answer`, or a `refusal`: whichever comes first."""

    request: ChatRequest
    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None
    refusal: Refused | None = None

    def reply(self, answer: Answer) -> None:
        """Give the answer to who waits, unless it has been refused."""
        if not self.done.is_set():
            self.answer = answer
            self.done.set()

    def refuse(self, refusal: Refused) -> None:
        """Give an error to who waits."""
        self.refusal = refusal
        self.done.set()


@dataclass(frozen=True)
class Ended:
    """How an agent's function ended: with a `value`, or with a `failure` in words."""

    value: Any = None
    failure: str | None = None


class AgentSession:
    """What lies between an agent's thread, the threads of its requests, and the loop that samples.

    `changed` is notified whenever the session may have become ready: all sessions of a loop share it.
    It guards `waiting`, `ended` and what is refused.
    """

    def __init__(self, changed: threading.Condition, calls_at_once: int, ignored: tuple[str, ...] = ()) -> None:
        self.changed, self.calls_at_once, self.ignored = changed, calls_at_once, ignored
        self.key = secrets.token_urlsafe(24)
        self.waiting: list[Pending] = []
        self.ended: Ended | None = None
        self.overlapped = False
        """Whether it has ever made a call while another of its calls waited."""
        self.late = 0
        """Requests that came after its end."""
        self._unanswered: list[Pending] = []
        self._refusals = 0
        self._closed: Refused | None = None

    # -- for the loop --------------------------------------------------------------------------------------------------

    def launch(self, function: Callable[[], Any]) -> None:
        """Run the agent in a thread, which does not keep the process alive."""
        threading.Thread(target=self._run, args=(function,), daemon=True, name="agent").start()

    @property
    def ready(self) -> bool:
        """Whether it waits for the policy, or has ended. Ask while `changed` is held."""
        return self.ended is not None or bool(self.waiting)

    def take(self) -> list[Pending]:
        """The calls that wait; they are to be replied to. Ask while `changed` is held."""
        taken, self.waiting = self.waiting, []
        return taken

    def close(self, refusal: Refused = OVER) -> None:
        """Answer no further call: what waits and what comes gets the refusal."""
        with self.changed:
            self._closed = refusal
            self._refuse_all(refusal)

    # -- for the server's threads --------------------------------------------------------------------------------------

    def models(self) -> dict[str, Any]:
        """The list of models."""
        return models()

    def read(self, body: Any) -> ChatRequest:
        """A request from its JSON. Raises Refused."""
        return read_request(body, self.ignored)

    def ask(self, request: ChatRequest) -> Answer:
        """Wait for the policy's answer. Raises Refused."""
        pending = Pending(request)
        with self.changed:
            self.check_open()
            if len(self._unanswered) >= self.calls_at_once:
                raise Refused(
                    429, f"More than {self.calls_at_once} calls of one episode at once.", code="rate_limit", retry=True
                )
            self.overlapped = self.overlapped or bool(self._unanswered)
            self._unanswered.append(pending)
            self.waiting.append(pending)
            self.changed.notify_all()
        pending.done.wait()
        with self.changed:
            self._unanswered.remove(pending)
        if pending.refusal is not None or pending.answer is None:
            raise pending.refusal or OVER
        return pending.answer

    def check_open(self) -> None:
        """Raises Refused where no call is answered any more."""
        with self.changed:
            if self.ended is not None or self._closed is not None:
                self.late += 1
                raise self._closed or OVER

    def count_refusal(self) -> None:
        """Note that a request was refused; an agent that does nothing else has failed."""
        with self.changed:
            self._refusals += 1
            if self._refusals == MOST_REFUSALS and self.ended is None:
                self._end(Ended(failure=f"{MOST_REFUSALS} of its requests were refused"))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            ended = Ended(function())
        except BaseException as error:  # an agent may end its thread, or raise what is no Exception
            ended = Ended(failure=f"{type(error).__name__}: {error}".replace(self.key, "[key]"))
        with self.changed:
            if self.ended is None:
                self._end(ended)

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        self._refuse_all(OVER)
        self.changed.notify_all()

    def _refuse_all(self, refusal: Refused) -> None:
        """What waits, and what is being sampled."""
        self.waiting = []
        for pending in self._unanswered:
            if not pending.done.is_set():
                pending.refuse(refusal)
