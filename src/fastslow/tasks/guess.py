"""A game of many turns: guess a number, and hear whether it is higher or lower."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastslow.errors import TaskError
from fastslow.tasks.base import EpisodeTask, Split
from fastslow.tasks.formats import answer_part
from fastslow.types import Message, Problem, Prompt, Score, Tool

SEED_PROMPT = "You play a game of guessing numbers."
FORM_RULE = "Write one number and nothing else."
RANGE_RULE = "Guess only numbers that the answers so far leave possible."
MIDDLE_RULE = "Guess the middle of the numbers that are left."
LOWEST = 10**6
_NUMBER = re.compile(r"-?\d+")


class GuessTask(EpisodeTask):
    """Guess a number in a few tries; after each the environment says whether it is higher or lower."""

    name = "guess"

    def __init__(
        self,
        numbers: int = 100,
        tries: int | None = None,
        graded: bool = False,
        train: int = 2000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
    ) -> None:
        if not 2 <= numbers <= 10**6 or (tries is not None and tries < 1):
            raise TaskError(f"task.options: numbers 2 to 10**6 and tries >= 1 are needed, got {numbers} and {tries}")
        if train + validation + test > LOWEST // 2:
            raise TaskError(f"task.options: {train + validation + test} problems are too many: at most {LOWEST // 2}")
        self.numbers, self.graded, self.seed = numbers, graded, seed
        self.tries = tries if tries is not None else math.ceil(math.log2(numbers + 1))
        sizes: dict[Split, int] = {"test": test, "validation": validation, "train": train}
        rng = random.Random(f"guess {seed} {numbers}")
        lows = iter(rng.sample(range(LOWEST), sum(sizes.values())))
        self._splits: dict[Split, list[Problem]] = {
            split: [self._problem(next(lows)) for _ in range(size)] for split, size in sizes.items()
        }

    @property
    def seed_prompt(self) -> Prompt:
        """It says what is played, and not how to play it well."""
        return Prompt.of(SEED_PROMPT)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def reference(self, problem: Problem) -> str | None:
        """The number that is thought of."""
        return str(problem.data["number"])

    def episode(self, problem: Problem, prompt: Prompt) -> "GuessEpisode":
        """A new game."""
        return GuessEpisode(self.messages(problem, prompt), problem.data, self.tries, self.graded)

    def _problem(self, low: int) -> Problem:
        high = low + self.numbers - 1
        number = random.Random(f"guess {self.seed} {low}").randint(low, high)
        question = f"I think of a whole number from {low} to {high}. Guess it: you have {self.tries} tries."
        message = {"role": "user", "content": question}
        return Problem(f"guess-{low}-{self.numbers}", (message,), {"number": number, "low": low, "high": high})


class GuessEpisode:
    """One game. Reward 1 where the number was found; otherwise 0 or, graded, the share of the bits found out."""

    tools: Sequence[Tool] = ()

    def __init__(self, opening: Sequence[Message], data: Mapping[str, Any], tries: int, graded: bool) -> None:
        self.opening, self.number, self.tries, self.graded = opening, int(data["number"]), tries, graded
        self.low, self.high = int(data["low"]), int(data["high"])
        self.size = self.high - self.low + 1
        self.left = tries
        self.found = False
        self.broken: list[str] = []
        """Rules that a turn broke, each time."""

    def start(self) -> Sequence[Message]:
        """The question under the prompt."""
        return self.opening

    def step(self, text: str) -> Sequence[Message]:
        """Higher or lower; nothing where the number was found, or no try is left."""
        self.left -= 1
        answer = self._answer(answer_part(text))
        if self.found or self.left < 1:
            return ()
        return [{"role": "user", "content": f"{answer} Tries left: {self.left}."}]

    def score(self) -> Score:
        """The reward, and which rules would have helped."""
        if self.found:
            return Score(1.0, "Correct.")
        reward = math.log2(self.size / (self.high - self.low + 1)) / math.log2(self.size) if self.graded else 0.0
        # What is certain after all tries is not yet found.
        reward = min(reward, 1.0 - 1.0 / (self.tries + 1))
        return Score(
            reward, "\n".join([*dict.fromkeys(self.broken or [MIDDLE_RULE]), f"The number was {self.number}."])
        )

    def close(self) -> None:
        """It holds nothing."""

    def _answer(self, text: str) -> str:
        numbers = _NUMBER.findall(text)
        if len(numbers) != 1 or len(numbers[0]) > 20:
            self.broken.append(FORM_RULE)
            return FORM_RULE
        guess = int(numbers[0])
        if not self.low <= guess <= self.high:
            self.broken.append(RANGE_RULE)
        elif abs(2 * guess - self.low - self.high) > (self.high - self.low + 1) // 2:
            self.broken.append(MIDDLE_RULE)
        self.found = guess == self.number
        if guess < self.number:
            self.low = max(self.low, guess + 1)
            return "Higher."
        self.high = min(self.high, guess - 1) if not self.found else self.high
        return "Lower."
