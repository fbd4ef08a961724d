"""Which earlier turn of its episode an agent's call goes on from, and the tokens that it is sampled after.

An agent sends whole conversations. What the policy said in them is recognised, so that its own tokens stand in the
context and not another rendering of its words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastslow.slow.engine import Chat, TokenSequence
from fastslow.tasks.agents.chat_api import ChatRequest, same_messages
from fastslow.types import Completion, Message, Tool, Turn


@dataclass(frozen=True)
class Place:
    """Where a call stands. `parent`: index of the turn it goes on from, -1 without; `said`: what is new."""

    parent: int
    said: tuple[Message, ...]
    conversation: tuple[Message, ...]
    """All that was said, the policy's turns as it wrote them."""
    context: tuple[int, ...]
    continued_tokens: int


@dataclass(frozen=True)
class _Known:
    """A conversation up to a turn of the policy: as the agent has it, and as the policy wrote it."""

    seen: tuple[Message, ...]
    conversation: tuple[Message, ...]
    tools: tuple[Tool, ...]
    turn: Turn


class Conversations:
    """The conversations of one episode. Turns are added in the order in which they were sampled.

    `most`: how many turns are remembered, the newest ones; None: all.
    """

    def __init__(self, chat: Chat, opening: Sequence[Message], *, most: int | None = None) -> None:
        self.chat, self.opening, self.most = chat, opening, most
        self._known: list[_Known] = []

    def find(self, request: ChatRequest) -> tuple[int, tuple[Message, ...]]:
        """The index of the turn that a call goes on from, -1 where there is none, and what is new in it.

        It is the end of the longest conversation that the call begins with, under the same tools.
        """
        found = [i for i, known in enumerate(self._known) if _begins(request, known)]
        if not found:
            if self._known:
                return -1, request.messages
            # As of every episode: the system text, which is the prompt, is left out,
            # and so is the problem's own question.
            shown = tuple(message for message in request.messages if message["role"] != "system")
            return -1, () if same_messages(request.messages, self.opening) else shown
        index = max(found, key=lambda i: (len(self._known[i].seen), i))
        return index, request.messages[len(self._known[index].seen) :]

    def place(self, request: ChatRequest) -> Place:
        """Where a call stands, and the tokens that it is sampled after."""
        index, said = self.find(request)
        if index < 0:
            context = self.chat.encode(request.messages, request.tools)
            return Place(-1, said, request.messages, context, 0)
        last = self._known[index]
        tokens = TokenSequence(last.turn.context_tokens, last.turn.completion.tokens)
        context = self.chat.extend(tokens, last.conversation, said, request.tools)
        begun = last.turn.tokens
        continued = len(begun) if context[: len(begun)] == begun else 0
        return Place(index, said, (*last.conversation, *said), context, continued)

    def add(self, request: ChatRequest, place: Place, completion: Completion, text: str, heard: Message) -> Turn:
        """The turn of a completion and its text; `heard` is what the agent was answered, as it will send it back."""
        follows = None if place.parent == len(self._known) - 1 else place.parent
        turn = Turn(place.context, completion, text, place.said, follows)
        conversation = (*place.conversation, {"role": "assistant", "content": turn.text})
        self._known.append(_Known((*request.messages, heard), conversation, request.tools, turn))
        if self.most is not None:
            del self._known[: -self.most]
        return turn


def in_an_order_of_their_own(turns: Sequence[Turn], opening: tuple[Message, ...]) -> list[Turn]:
    """Turns of calls that overlapped, in an order that does not depend on which came first: how far on in its
    conversation each is, then its tokens. A turn stays behind the one that it goes on from.
    """
    parents = [index - 1 if turn.follows is None else turn.follows for index, turn in enumerate(turns)]
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    order = sorted(range(len(turns)), key=lambda index: (depths[index], turns[index].tokens))
    place_of = {old: new for new, old in enumerate(order)}
    moved = []
    for new, old in enumerate(order):
        parent = place_of[parents[old]] if parents[old] >= 0 else -1
        # Only of the first turn the opening is left out.
        said = turns[old].messages or (opening if parent < 0 else ())
        said = () if new == 0 and same_messages(said, opening) else said
        moved.append(replace(turns[old], messages=said, follows=None if parent == new - 1 else parent))
    return moved


def _begins(request: ChatRequest, known: _Known) -> bool:
    length = len(known.seen)
    return request.tools == known.tools and same_messages(request.messages[:length], known.seen)
