"""An episode: what the policy and an environment say to each other about one problem,
from the first context to a score.

Two things are never mixed. What goes wrong because of what the model wrote is the environment's answer, in words: a
call that cannot be read, a tool that refuses its arguments, a move that the rules forbid. What goes wrong otherwise
raises, and the rollout is masked: it is in no mean, and never a reward of 0.
"""

from collections.abc import Sequence
from typing import Protocol

from fastslow.types import Message, Problem, Prompt, Score, Tool


class Episode(Protocol):
    """One episode. Its methods are called from threads, one at a time; other episodes run beside it.

    An episode may also have `tool_calls`, their number, and `tool_errors`, the texts that tools answered to calls that
    failed: both are read when it has ended, for metrics and for reflection.
    """

    tools: Sequence[Tool]
    """For the chat template; () where there are none."""

    def start(self) -> Sequence[Message]:
        """The first context, the prompt's components in their places. The same one each time: resume rests on it."""
        ...

    def step(self, text: str) -> Sequence[Message]:
        """What the environment says to the policy's turn; nothing: the episode is over.

        `text` is without the tokens that end the turn. Where the tokenizer knows how to parse its model's
        tool calls, they stand in it as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, whatever
        form the model has for them.
        """
        ...

    def score(self) -> Score:
        """Reward in [0, 1] and feedback in words, for the whole episode as far as it came."""
        ...

    def close(self) -> None:
        """Let go of what it holds. Called once, whatever has happened, a `step` that hangs included."""
        ...


class Scored(Protocol):
    """What an episode of one turn needs of its task."""

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        """The context of a problem under a prompt."""
        ...

    def score(self, problem: Problem, completion: str) -> Score:
        """The verdict on one completion."""
        ...


class OneTurn:
    """The episode of a task that has one turn: its messages, one completion, its score.

    The loop knows it: all completions of a batch go to one `score_batch` of the task.
    """

    tools: Sequence[Tool] = ()

    def __init__(self, task: Scored, problem: Problem, prompt: Prompt) -> None:
        self.task, self.problem, self.prompt = task, problem, prompt
        self.text = ""

    def start(self) -> Sequence[Message]:
        """The task's messages."""
        return self.task.messages(self.problem, self.prompt)

    def step(self, text: str) -> Sequence[Message]:
        """Nothing: it is over."""
        self.text = text
        return ()

    def score(self) -> Score:
        """What the task says of the completion."""
        return self.task.score(self.problem, self.text)

    def close(self) -> None:
        """It holds nothing."""
