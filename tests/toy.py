"""A task that a tiny random model can move on: write certain letters; feedback names a letter that is missing."""

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from fastslow.fast.optimiser import Evaluate, Evolution, Usage
from fastslow.tasks.base import EpisodeTask, Split, Task
from fastslow.types import Message, Problem, Prompt, Score

FIRST = {"train": 0, "validation": 1000, "test": 2000}


class LettersTask(Task):
    """Reward: the share of two letters that stand in the completion."""

    name: ClassVar[str] = "letters"

    def __init__(self, train: int = 12, validation: int = 4, test: int = 2, broken_every: int = 0) -> None:
        self.sizes = {"train": train, "validation": validation, "test": test}
        self.broken_every = broken_every
        self.calls = 0

    @property
    def seed_prompt(self) -> Prompt:
        return Prompt.of("go")

    def problems(self, split: Split) -> Sequence[Problem]:
        start = FIRST[split]
        return [self._problem(start + index) for index in range(self.sizes[split])]

    def score(self, problem: Problem, completion: str) -> Score:
        self.calls += 1
        if self.broken_every and self.calls % self.broken_every == 0:
            raise RuntimeError("the sandbox timed out")
        missing = [letter for letter in problem.data["letters"] if letter not in completion]
        feedback = [f"Write the letter {letter}." for letter in missing[:1]]
        return Score(1.0 - len(missing) / 2, "\n".join(feedback))

    def _problem(self, number: int) -> Problem:
        letters = "abcdefgh"[number % 4] + "eioutn"[number % 3]
        return Problem(f"{self.name}-{number}", ({"role": "user", "content": f"n{number}"},), {"letters": letters})


class OtherLettersTask(LettersTask):
    """The same under another name, so that a stream can go from one to the other."""

    name: ClassVar[str] = "other-letters"


class KindsTask(LettersTask):
    """Two kinds of problems with letters of their own."""

    name: ClassVar[str] = "kinds"

    def _problem(self, number: int) -> Problem:
        kind, letters = (("even", "ab"), ("odd", "cd"))[number % 2]
        return Problem(
            f"{self.name}-{number}", ({"role": "user", "content": f"n{number}"},), {"letters": letters}, kind
        )


class TalkTask(EpisodeTask):
    """The letters again, in turns: the environment names the letter that is still missing, `patience` times at most.

    `trouble` maps a problem's number to what its environment does in its second step: raise, hang, exit,
    nonsense or flood.
    """

    name: ClassVar[str] = "talk"

    def __init__(
        self,
        train: int = 12,
        validation: int = 4,
        test: int = 2,
        patience: int = 3,
        trouble: dict[str, str] | None = None,
    ) -> None:
        self.sizes = {"train": train, "validation": validation, "test": test}
        self.patience, self.trouble = patience, trouble or {}
        self.opened: list[Talk] = []

    @property
    def seed_prompt(self) -> Prompt:
        return Prompt.of("go")

    def problems(self, split: Split) -> Sequence[Problem]:
        start = FIRST[split]
        return [self._problem(start + index) for index in range(self.sizes[split])]

    def episode(self, problem: Problem, prompt: Prompt) -> "Talk":
        self.opened.append(Talk(self, problem, prompt))
        return self.opened[-1]

    def _problem(self, number: int) -> Problem:
        letters = "abcdefgh"[number % 4] + "eioutn"[number % 3]
        return Problem(f"talk-{number}", ({"role": "user", "content": f"n{number}"},), {"letters": letters})


class Talk:
    tools: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, task: TalkTask, problem: Problem, prompt: Prompt) -> None:
        self.task, self.problem, self.prompt = task, problem, prompt
        self.heard: list[str] = []
        self.closed = 0
        self.tool_calls, self.tool_errors = 0, []

    def start(self) -> Sequence[Message]:
        return self.task.messages(self.problem, self.prompt)

    def step(self, text: str) -> Sequence[Message]:
        self.heard.append(text)
        trouble = self.task.trouble.get(self.problem.id.removeprefix("talk-"), "")
        if trouble and len(self.heard) == 2:
            return misbehave(trouble)
        if not self.missing or len(self.heard) > self.task.patience:
            return ()
        return [{"role": "user", "content": f"and {self.missing[0]}"}]

    @property
    def missing(self) -> str:
        return "".join(letter for letter in self.problem.data["letters"] if letter not in "".join(self.heard))

    def score(self) -> Score:
        lines = [f"Write the letter {self.missing[0]}."] if self.missing else []
        return Score(1.0 - len(self.missing) / 2, "\n".join(lines))

    def close(self) -> None:
        self.closed += 1


def misbehave(trouble: str) -> Any:
    """What environments do that break."""
    if trouble == "hang":
        time.sleep(30)
    if trouble == "exit":
        raise SystemExit(1)
    if trouble == "raise":
        raise RuntimeError("the game crashed")
    return [{"role": "user", "content": "x" * 1_000_000}] if trouble == "flood" else "nonsense"


class CountingOptimiser:
    """A search whose population is `size` different prompts, each with the number of its place behind it."""

    def evolve(
        self, population: Sequence[Prompt], problems: Sequence[Problem], evaluate: Evaluate, *, size: int, **more: Any
    ) -> Evolution:
        """Every prompt is evaluated on every problem."""
        made = tuple(Prompt.of(f"go {place}") for place in range(size))
        evaluations = evaluate([(prompt, problem) for prompt in made for problem in problems])
        return Evolution(made, (), len(evaluations), Usage())
