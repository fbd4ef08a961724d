"""A task that a tiny random model can move on: write certain letters; feedback names a letter that is missing."""

from collections.abc import Sequence
from typing import ClassVar

from fastslow.tasks.base import Split, Task
from fastslow.types import Problem, Prompt, Score

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
