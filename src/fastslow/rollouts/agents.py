"""Episodes that agents play: their calls are gathered, and each wave samples all that wait in one call of the engine.

A wave begins when every agent waits for the policy or has ended, so that what is sampled together does not depend on
which request came first. Each call is a turn. Its seed comes from its episode's, and from its context.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.errors import TaskError
from fastslow.rollouts.answering import chosen, cut
from fastslow.rollouts.conversations import Conversations, Place, in_an_order_of_their_own
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.rollouts.waves import Live, chat_of
from fastslow.seeding import derive_seed
from fastslow.slow.engine import Chat, PolicyEngine, SampleRequest, SamplingParams
from fastslow.slow.limits import excess, fits
from fastslow.tasks.agents.chat_api import Answer, Choice, Refused, said_of
from fastslow.tasks.agents.endpoint import Endpoint
from fastslow.tasks.agents.session import AgentSession, Ended, Pending
from fastslow.tasks.agents.task import AgentEpisode
from fastslow.tasks.base import ScoringFailure
from fastslow.threads import SLICE_S
from fastslow.types import Completion, EndReason, Score


@dataclass
class Player:
    """An agent and its episode. `left_s`: what it still may take before its next call."""

    live: Live
    episode: AgentEpisode
    session: AgentSession
    conversations: Conversations
    left_s: float
    finished: bool = False


@dataclass(frozen=True)
class Call:
    """A call that is sampled in this wave."""

    player: Player
    pending: Pending
    place: Place
    seeds: tuple[int, ...]


class AgentWaves:
    """Episodes of agents, from their start to their scores. Use it as a context manager: it ends what still runs.

    `limit`: positions that a context and a turn may take; None: not known.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        lives: Sequence[Live],
        params: SamplingParams,
        settings: EpisodesConfig,
        *,
        limit: int | None,
    ) -> None:
        self.engine, self.chat, self.params, self.settings, self.limit = (
            engine,
            chat_of(engine),
            params,
            settings,
            limit,
        )
        self.changed = threading.Condition()
        self.players = [_player(live, self.chat, self.changed, settings) for live in lives]
        self._queue = list(reversed(self.players))
        self._running: list[Player] = []
        self._calls: list[Call] = []
        self._endpoint: Endpoint | None = None

    def __enter__(self) -> "AgentWaves":
        if self.players:
            self._endpoint = Endpoint(max(p.episode.task.max_request_bytes for p in self.players)).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._endpoint is not None:
            self._endpoint.__exit__(None, None, None)

    def requests(self) -> list[SampleRequest]:
        """What samples the next turns, once every agent that runs waits for one; nothing when all have ended.

        Raises: TaskError where an agent returned what is no score.
        """
        self._calls = []
        while not self._calls:
            self._gather()
            if not self._running:
                return []
            for player in list(self._running):
                with self.changed:
                    waiting = player.session.take()
                for pending in sorted(waiting, key=lambda pending: repr(pending.request)):
                    self._admit(player, pending)
        return [
            SampleRequest(call.place.context, 1, seed, call.place.continued_tokens)
            for call in self._calls
            for seed in call.seeds
        ]

    def answered(self, completions: Sequence[Completion]) -> None:
        """Take the completions of `requests`, and let the agents go on."""
        sampled = iter(completions)
        for call in self._calls:
            self._answer(call, [next(sampled) for _ in call.seeds])

    # -- gathering -----------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Wait until every agent that runs waits for the policy. Those that end make room; the slow are left behind."""
        while True:
            self._launch()
            with self.changed:
                busy = [player for player in self._running if not player.session.ready]
                ended = [player for player in self._running if player.session.ended is not None]
                if not ended and not busy:
                    return
                if not ended:
                    begun = time.monotonic()
                    self.changed.wait(min(SLICE_S, *(player.left_s for player in busy)))
                    passed = min(time.monotonic() - begun, 2 * SLICE_S)
            for player in ended:
                self._finish(player)
            if not ended:
                self._charge(busy, passed)

    def _launch(self) -> None:
        while self._queue and len(self._running) < self._queue[-1].episode.task.at_once:
            player = self._queue.pop()
            assert self._endpoint is not None
            self._endpoint.add(player.session)
            self._running.append(player)
            player.session.launch(
                player.episode.function(
                    self._endpoint.base_url, player.session.key, derive_seed(player.live.seed, "agent")
                )
            )

    def _charge(self, busy: Sequence[Player], passed_s: float) -> None:
        for player in busy:
            player.live.seconds += passed_s
            player.left_s -= passed_s
            with self.changed:
                late = player.left_s <= 0.0 and not player.session.ready
            if late:
                allowed = self.settings.step_timeout_s
                player.live.fail(f"the agent made no call and did not end within {allowed:g} s", "timed_out")
                self._leave(player)

    def _finish(self, player: Player) -> None:
        """Take what the agent returned."""
        live, ended = player.live, player.session.ended
        self._leave(player)
        if player.session.overlapped:
            live.turns = in_an_order_of_their_own(live.turns, player.episode.opening)
        if live.failure is not None or ended is None:
            return
        verdict = _verdict(ended)
        if isinstance(verdict, Score) and not live.turns:
            live.fail("the agent ended without a call of the policy")
        elif isinstance(verdict, Score):
            live.end, live.score = live.end or "done", verdict
        elif live.end is not None:
            # Its last call was refused at a limit: few agents bear that.
            live.score = Score(0.0)
        else:
            live.fail(f"the agent failed: {verdict}")

    def _leave(self, player: Player) -> None:
        self._running.remove(player)
        player.session.close()

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _admit(self, player: Player, pending: Pending) -> None:
        """Put a call into this wave, unless a limit ends its episode."""
        live, request, settings = player.live, pending.request, self.settings
        admitted = [call for call in self._calls if call.player is player]
        choices = sum(len(call.seeds) for call in admitted)
        tokens = sum(len(turn.completion.tokens) for turn in live.turns)
        chars = sum(len(message["content"]) for message in player.conversations.find(request)[1])
        begun, budget, most = bool(live.turns or admitted), settings.max_tokens, self.params.max_tokens
        if live.end is not None:
            self._refuse(player, pending, live.end, "The episode has ended.")
        elif chars > settings.max_message_chars:
            reason = f"It said {chars} characters, more than episodes.max_message_chars = {settings.max_message_chars}."
            live.fail(f"the agent failed: {reason}")
            self._refuse(player, pending, "failed", reason)
        elif len(live.turns) + choices + request.n > settings.max_turns:
            self._refuse(player, pending, "max_turns", f"An episode has at most {settings.max_turns} turns.")
        elif budget is not None and begun and tokens + (choices + request.n) * most > budget:
            self._refuse(player, pending, "max_tokens", f"An episode has at most {budget} tokens.")
        else:
            place = player.conversations.place(request)
            if fits(self.limit, len(place.context), most):
                seeds = self._seeds(player, place, request.n, admitted)
                self._calls.append(Call(player, pending, place, seeds))
            else:
                over = excess(self.limit, len(place.context), most)
                self._refuse(player, pending, "context", f"The context is too long: {over}.")

    def _refuse(self, player: Player, pending: Pending, end: EndReason, words: str) -> None:
        """End an episode at a limit; the agent hears why, and may still return."""
        live = player.live
        code = "context_length_exceeded" if end == "context" else end
        refusal = Refused(400, f"{words} The episode is over.", code=code)
        if live.end is None and not live.turns:
            live.fail(words.rstrip("."), end)
        live.end = live.end or end
        pending.refuse(refusal)
        self._end(player, refusal)

    def _end(self, player: Player, refusal: Refused) -> None:
        player.session.close(refusal)
        self._goes_on(player)

    def _goes_on(self, player: Player) -> None:
        player.left_s = self.settings.step_timeout_s

    def _seeds(self, player: Player, place: Place, n: int, admitted: Sequence[Call]) -> tuple[int, ...]:
        """One seed a choice, from the context and how often the episode has asked it before: two requests that come in
        another order draw the same completions.
        """
        context = place.context
        before = sum(turn.context_tokens == context for turn in player.live.turns)
        before += sum(len(call.seeds) for call in admitted if call.place.context == context)
        text = ",".join(map(str, context))
        return tuple(derive_seed(player.live.seed, "call", text, before + choice) for choice in range(n))

    def _answer(self, call: Call, completions: Sequence[Completion]) -> None:
        """Make the turns of a call, and reply to it; a turn that is cut off ends the episode."""
        player, request, place = call.player, call.pending.request, call.place
        live, cut_off = player.live, False
        made: list[tuple[Completion, str, Choice]] = []
        for completion in completions:
            kept, shown, finish = cut(self.chat, place.context, completion, request)
            choice, wrong = chosen(self.engine, self.chat, place.context, kept, shown, finish, request)
            player.episode.tool_calls += len(choice.calls) + len(wrong)
            player.episode.tool_errors += wrong
            made.append((kept, self.chat.read(place.context, kept.tokens), choice))
            own = request.max_tokens is not None and request.max_tokens <= self.params.max_tokens
            cut_off = cut_off or (finish == "length" and not own)
        answer = Answer(f"chatcmpl-{call.seeds[0]:016x}", tuple(choice for *_, choice in made), len(place.context))
        for index, (kept, text, _) in enumerate(made):
            live.turns.append(player.conversations.add(request, place, kept, text, said_of(answer, index)))
        if live.end is None and cut_off:
            most = self.params.max_tokens
            self._refuse(
                player, call.pending, "turn_tokens", f"A turn has at most sampling.max_tokens = {most} tokens."
            )
            return
        call.pending.reply(answer)
        self._goes_on(player)


def _player(live: Live, chat: Chat, changed: threading.Condition, settings: EpisodesConfig) -> Player:
    episode = live.episode
    assert isinstance(episode, AgentEpisode)
    conversations = Conversations(chat, episode.opening)
    return Player(live, episode, episode.session(changed), conversations, settings.step_timeout_s)


def _verdict(ended: Ended) -> Score | str:
    """The score, or why there is none. Raises TaskError where the agent returned what is no score."""
    if ended.failure is not None:
        return ended.failure
    if isinstance(ended.value, TaskError):
        raise ended.value
    if isinstance(ended.value, ScoringFailure):
        return ended.value.reason
    score: Score = ended.value
    return score
