"""The demo's task: answer a list of digits by two rules that nobody states. Only the verifier's feedback names them."""

import random
from collections.abc import Iterable, Sequence
from typing import ClassVar

from fastslow import Problem, Score, Task

RULES = {
    "reverse": "Reverse the digits.",
    "repeat": "Repeat the last digit.",
    "brackets": "Write brackets around the answer.",
    "done": "Say done at the end.",
}


def apply_rules(digits: Sequence[str], rules: Iterable[str]) -> str:
    """The right answer for some digits under a set of rules, words separated by blanks."""
    active, words = set(rules), list(digits)
    if "reverse" in active:
        words = words[::-1]
    if "repeat" in active:
        words = [*words, words[-1]]
    if "brackets" in active:
        words = ["[", *words, "]"]
    if "done" in active:
        words = [*words, "done"]
    return " ".join(words)


class RulesTask(Task):
    """Reward 1 where the answer is exact, else 0; the feedback names the first rule that was not kept."""

    name: ClassVar[str] = "rules"

    def __init__(self, rules: Sequence[str] = ("reverse", "brackets"), train: int = 400, validation: int = 64) -> None:
        self.rules = tuple(rules)
        numbers = random.Random(0).sample(range(100, 10000), train + validation + 64)
        problems = [self._problem(str(number)) for number in numbers]
        self.splits = {
            "train": problems[:train],
            "validation": problems[train : train + validation],
            "test": problems[train + validation :],
        }

    def problems(self, split: str) -> Sequence[Problem]:
        return self.splits[split]

    def score(self, problem: Problem, completion: str) -> Score:
        digits = problem.data["digits"]
        if completion.strip() == apply_rules(digits, self.rules):
            return Score(1.0, "Correct.")
        broken = [rule for rule in self.rules if not self._kept(rule, digits, completion)]
        feedback = RULES[broken[0]] if broken else f"The right answer was {apply_rules(digits, self.rules)}"
        return Score(0.0, feedback)

    def _kept(self, rule: str, digits: Sequence[str], completion: str) -> bool:
        """Whether some set of rules with this one in it gives the completion."""
        others = [name for name in RULES if name != rule]
        subsets = [[o for bit, o in enumerate(others) if mask >> bit & 1] for mask in range(2 ** len(others))]
        return completion.strip() in {apply_rules(digits, [rule, *subset]) for subset in subsets}

    @staticmethod
    def _problem(number: str) -> Problem:
        return Problem(f"rules-{number}", ({"role": "user", "content": " ".join(number)},), {"digits": tuple(number)})
