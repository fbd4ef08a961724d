"""Episodes of several turns, played in waves: each wave samples the next turn of every live episode in one call.

What was sampled is never rendered again. The context of a turn is the last context, the tokens that were sampled after
it, and the tokens of what the environment said (`slow/chat.py`). An episode's seed gives the seeds of its turns, so
that what it samples depends on nothing that happens to others.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastslow.rollouts.settings import EpisodesConfig
from fastslow.seeding import derive_seed
from fastslow.slow.engine import Chat, PolicyEngine, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.limits import excess, fits
from fastslow.tasks.base import check_score
from fastslow.tasks.episode import Episode
from fastslow.tasks.tool_calls import tell_tools, without_tools
from fastslow.threads import Outcome, side_by_side
from fastslow.types import Completion, EndReason, Message, Problem, Score, Tool, Trace, Turn

logger = logging.getLogger(__name__)


class PlainChat:
    """The conversations of an engine that has no `Chat`: each turn is rendered anew, and tools are told in words."""

    def __init__(self, engine: PolicyEngine) -> None:
        self.engine = engine

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """As `Chat.encode`."""
        return self.engine.encode(without_tools(tell_tools(messages, tools)))

    def extend(
        self,
        last: TokenSequence,
        conversation: Sequence[Message],
        said: Sequence[Message],
        tools: Sequence[Tool] = (),
    ) -> tuple[int, ...]:
        """As `Chat.extend`: always the whole rendering."""
        return self.encode([*conversation, *said], tools)

    def read(self, context_tokens: Sequence[int], tokens: Sequence[int], tools: Sequence[Tool] = ()) -> str:
        """As `Chat.read`."""
        return self.engine.decode(tokens)


def chat_of(engine: PolicyEngine) -> Chat:
    """How an engine renders conversations."""
    renderer: Chat | None = getattr(engine, "renderer", None)
    return PlainChat(engine) if renderer is None or not hasattr(renderer, "extend") else renderer


@dataclass
class Live:
    """One episode while it is played. `episode` is None where the task could not make it."""

    problem: Problem
    episode: Episode | None
    seed: int
    turns: list[Turn] = field(default_factory=list)
    opening: tuple[Message, ...] = ()
    said: tuple[Message, ...] = ()
    context: tuple[int, ...] = ()
    end: EndReason | None = None
    failure: str | None = None
    score: Score | None = None
    seconds: float = 0.0

    @property
    def tools(self) -> Sequence[Tool]:
        """The episode's own."""
        return () if self.episode is None else self.episode.tools

    @property
    def conversation(self) -> list[Message]:
        """Everything that was said up to the policy's last turn."""
        messages = list(self.opening)
        for number, turn in enumerate(self.turns):
            # The first turn's messages are the opening, where a transcript has to show it.
            messages += [*(turn.messages if number else ()), {"role": "assistant", "content": turn.text}]
        return messages

    @property
    def trace(self) -> Trace:
        """How it went."""
        errors = tuple(map(str, getattr(self.episode, "tool_errors", ())))
        calls = int(getattr(self.episode, "tool_calls", 0))
        return Trace(self.end or "failed", self.said, calls, errors, self.seconds)

    def request(self, keep: bool) -> SampleRequest:
        """What samples its next turn; `keep`: another one may follow."""
        seed = derive_seed(self.seed, "turn", len(self.turns))
        last = self.turns[-1] if self.turns else None
        known = len(last.tokens) if last is not None and self.context[: len(last.tokens)] == last.tokens else 0
        return SampleRequest(self.context, 1, seed, known, keep)

    def fail(self, reason: str, end: EndReason = "failed") -> None:
        """End it for what is not the policy's doing."""
        self.end, self.failure = end, reason


class Waves:
    """Some episodes, from their start to their scores. Use it as a context manager: it closes what was opened.

    `mask_beyond`: an episode whose first context leaves no room for a turn within so many positions is masked; None:
    the engine raises TooLongError. `limit`: positions that later turns may take; None: not known.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        lives: Sequence[Live],
        params: SamplingParams,
        settings: EpisodesConfig,
        *,
        mask_beyond: int | None,
        limit: int | None,
    ) -> None:
        self.engine, self.chat, self.lives = engine, chat_of(engine), lives
        self.params, self.settings = params, settings
        self.mask_beyond, self.limit = mask_beyond, limit

    def __enter__(self) -> "Waves":
        return self

    def __exit__(self, *_: object) -> None:
        self._release(self.lives)
        opened = [live for live in self.lives if live.episode is not None]
        for live, outcome in zip(opened, self._ask(opened, "close"), strict=True):
            if outcome.failure is not None:
                logger.warning("problem %r: the environment was not closed: %s", live.problem.id, outcome.failure)

    @property
    def live(self) -> list[Live]:
        """The episodes that go on."""
        return [live for live in self.lives if live.end is None]

    def start(self) -> None:
        """Start every episode, and render the first contexts."""
        started = self.live
        for live, messages in zip(started, self._said(started, "start"), strict=True):
            if live.end is not None:
                continue
            if not messages:
                live.fail("the environment's `start` gave no message")
                continue
            live.opening = messages
            live.said = _beyond(live.problem, messages)
            live.context = self.chat.encode(messages, live.tools)
            if not fits(self.mask_beyond, len(live.context), self.params.max_tokens):
                over = excess(self.mask_beyond, len(live.context), self.params.max_tokens)
                live.fail(f"the context is too long: {over}", "context")

    def requests(self) -> list[SampleRequest]:
        """What samples the next turns of the episodes that go on, in their order."""
        return [live.request(keep=len(live.turns) + 1 < self.settings.max_turns) for live in self.live]

    def answered(self, completions: Sequence[Completion]) -> None:
        """Take one turn of each episode that goes on, and have the environments answer, side by side."""
        heard: list[tuple[Live, str]] = []
        playing = self.live
        for live, completion in zip(playing, completions, strict=True):
            text = self.chat.read(live.context, completion.tokens)
            live.turns.append(Turn(live.context, completion, text, live.said))
            live.said = ()
            if completion.finish_reason == "length":
                live.end = "turn_tokens"
            else:
                text = self.chat.read(live.context, completion.tokens, live.tools) if live.tools else text
                heard.append((live, text))
        stepped = [live for live, _ in heard]
        for live, messages in zip(stepped, self._said(stepped, "step", [text for _, text in heard]), strict=True):
            if live.end is None:
                live.said = messages
                self._go_on(live)
        self._release([live for live in playing if live.end is not None])

    def score(self) -> None:
        """Score every episode that has not failed. Raises TaskError for what is no score."""
        ended = [live for live in self.lives if live.failure is None]
        for live, outcome in zip(ended, self._ask(ended, "score"), strict=True):
            if outcome.failure is not None:
                _fail(live, "score", outcome.failure, outcome.timed_out)
            else:
                live.score = check_score(outcome.value, live.problem)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _release(self, lives: Sequence[Live]) -> None:
        """Nothing continues the last turns of these: what an engine keeps of them may go."""
        release = getattr(self.engine, "release", None)
        if release is not None:
            release([live.turns[-1].tokens for live in lives if live.turns])

    def _go_on(self, live: Live) -> None:
        """The context of an episode's next turn; or its end,
        where the environment has said nothing or a limit is reached.
        """
        sampled = sum(len(turn.completion.tokens) for turn in live.turns)
        budget = self.settings.max_tokens
        if not live.said:
            live.end = "done"
        elif len(live.turns) >= self.settings.max_turns:
            live.end = "max_turns"
        elif budget is not None and sampled + self.params.max_tokens > budget:
            live.end = "max_tokens"
        else:
            last = TokenSequence(live.context, live.turns[-1].completion.tokens)
            live.context = self.chat.extend(last, live.conversation, live.said, live.tools)
            if not fits(self.limit, len(live.context), self.params.max_tokens):
                live.end = "context"

    def _said(self, lives: Sequence[Live], method: str, texts: Sequence[str] = ()) -> list[tuple[Message, ...]]:
        """What each environment says; one that does not, or says what is no message, has failed."""
        answers = []
        for live, outcome in zip(lives, self._ask(lives, method, texts), strict=True):
            failure = outcome.failure
            messages: tuple[Message, ...] = ()
            if failure is None:
                messages, failure = _messages(outcome.value, self.settings.max_message_chars)
            if failure is not None:
                _fail(live, method, failure, outcome.timed_out)
            answers.append(messages)
        return answers

    def _ask(self, lives: Sequence[Live], method: str, texts: Sequence[str] = ()) -> list[Outcome]:
        """Call a method of each environment, side by side; with a text each where there are texts."""

        def call_of(live: Live, arguments: tuple[str, ...]) -> Callable[[], Any]:
            return lambda: getattr(live.episode, method)(*arguments)

        given = [(text,) for text in texts] if texts else [()] * len(lives)
        calls = [call_of(live, arguments) for live, arguments in zip(lives, given, strict=True)]
        outcomes = side_by_side(calls, self.settings.step_timeout_s, self.settings.workers)
        for live, outcome in zip(lives, outcomes, strict=True):
            live.seconds += outcome.seconds
        return outcomes


def _fail(live: Live, method: str, reason: str, timed_out: bool) -> None:
    live.fail(f"the environment's `{method}` failed: {reason}", "timed_out" if timed_out else "failed")


def _messages(value: Any, max_chars: int) -> tuple[tuple[Message, ...], str | None]:
    """Messages as an environment gave them, and why they cannot be taken, None where they can."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return (), f"it gave {type(value).__name__}, not a list of messages"
    if not all(_is_message(message) for message in value):
        return (), "a message is a mapping of the texts `role` and `content`"
    chars = sum(len(message["content"]) for message in value)
    if chars > max_chars:
        return (), f"it said {chars} characters, more than episodes.max_message_chars = {max_chars}"
    return tuple(dict(message) for message in value), None


def _beyond(problem: Problem, opening: Sequence[Message]) -> tuple[Message, ...]:
    """What an episode opens with, the system text left out; nothing where that is the problem's own question."""
    shown, asked = ([m for m in messages if m["role"] != "system"] for messages in (opening, problem.messages))
    return () if shown == asked else tuple(shown)


def _is_message(value: Any) -> bool:
    return hasattr(value, "keys") and all(isinstance(value.get(name), str) for name in ("role", "content"))
