"""Arithmetic with a calculator whose calling form nobody tells but the verifier:
rewards are zero until a prompt names it.

The task needs no template that knows tools: a call is a text of a hidden form, and the result is the next message. A
turn without a call is the answer. Rewards are exact: 1 for the right number, 0 otherwise.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastslow.errors import TaskError
from fastslow.tasks.base import EpisodeTask, Split
from fastslow.tasks.calculator import calculate
from fastslow.tasks.formats import answer_part
from fastslow.types import Message, Problem, Prompt, Score, Tool

SEED_PROMPT = "You answer questions. There is a calculator that you can use."
# It asks: a small model that is only told the result calls the calculator again, with the result.
RESULT = "The result is {}. What is the answer to the question?"
ANSWER_RULE = "Only when the calculator has given a result, answer with that number."
NO_NUMBER_RULE = "The answer must be a number."
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
WORDS = {"*": "times", "+": "plus", "-": "minus"}


@dataclass(frozen=True)
class Form:
    """A way to call the calculator. `read` gives the expression of a turn, None where it makes no call; what looks like
    one and is none raises ValueError. `rule` is what the feedback says of it.
    """

    rule: str
    read: Callable[[str], str | None]
    write: Callable[[str], str]


class ToolProtocolTask(EpisodeTask):
    """Arithmetic that is too hard to do in one's head, and a calculator; the feedback alone names its calls' form."""

    name = "tool_protocol"

    def __init__(
        self,
        digits: int = 3,
        operands: int = 2,
        form: str = "json",
        max_calls: int = 4,
        train: int = 2000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
    ) -> None:
        if not 1 <= digits <= 12 or not 2 <= operands <= 8 or max_calls < 1:
            raise TaskError(
                f"task.options: digits 1 to 12, operands 2 to 8 and max_calls >= 1 are needed, got {digits}, "
                f"{operands} and {max_calls}"
            )
        if form not in FORMS:
            raise TaskError(f"task.options: form: {form!r} is unknown: take one of {', '.join(FORMS)}")
        self.digits, self.operands, self.max_calls, self.seed = digits, operands, max_calls, seed
        self.form = FORMS[form]
        sizes: dict[Split, int] = {"test": test, "validation": validation, "train": train}
        self._splits = self._deal(sizes)

    @property
    def seed_prompt(self) -> Prompt:
        """It says that there is a calculator, and not how to call it."""
        return Prompt.of(SEED_PROMPT)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def episode(self, problem: Problem, prompt: Prompt) -> "CalculatorEpisode":
        """A new episode."""
        return CalculatorEpisode(self.messages(problem, prompt), problem.data["answer"], self.form, self.max_calls)

    def _deal(self, sizes: Mapping[Split, int]) -> dict[Split, list[Problem]]:
        """Expressions without repetition, first those of the test split: a longer training split changes no other."""
        if sum(sizes.values()) > (9 * 10 ** (self.digits - 1)) ** self.operands // 2:
            raise TaskError(
                f"task.options: {sum(sizes.values())} problems of {self.digits} digits are too many: raise digits"
            )
        rng, seen = random.Random(f"tool_protocol {self.seed} {self.digits} {self.operands}"), set[str]()
        splits: dict[Split, list[Problem]] = {}
        for split, size in sizes.items():
            splits[split] = []
            while len(splits[split]) < size:
                expression = self._expression(rng)
                if expression not in seen:
                    seen.add(expression)
                    splits[split].append(_problem(expression))
        return splits

    def _expression(self, rng: random.Random) -> str:
        """One product, then sums and differences: the order in which to work it out is never in doubt."""
        low, high = 10 ** (self.digits - 1), 10**self.digits - 1
        numbers = [str(rng.randint(low, high)) for _ in range(self.operands)]
        signs = ["*", *(rng.choice("+-") for _ in numbers[2:])]
        return numbers[0] + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))


class CalculatorEpisode:
    """The question, calls and results, the answer."""

    tools: Sequence[Tool] = ()

    def __init__(self, opening: Sequence[Message], right: int, form: Form, max_calls: int) -> None:
        self.opening, self.right, self.form, self.max_calls = opening, right, form, max_calls
        self.answer: str | None = None
        self.tool_calls = 0
        self.tool_errors: list[str] = []

    def start(self) -> Sequence[Message]:
        """The question under the prompt."""
        return self.opening

    def step(self, text: str) -> Sequence[Message]:
        """The calculator's result, or what is wrong with the call; nothing after an answer, or too many calls."""
        said = answer_part(text)
        try:
            expression = self.form.read(said)
            if expression is None:
                self.answer = said
                return ()
            result = RESULT.format(calculate(expression))
        except ValueError as error:
            result = f"The calculator cannot work that out: {error}."
            self.tool_errors.append(result)
        self.tool_calls += 1
        return () if self.tool_calls > self.max_calls else [{"role": "user", "content": result}]

    def score(self) -> Score:
        """1 for the right number as the last one of the answer."""
        if self.answer is None:
            return Score(0.0, f"There was no answer after {self.tool_calls} calls.\n{ANSWER_RULE}")
        numbers = _NUMBER.findall(self.answer)
        if numbers and float(numbers[-1].replace(",", "")) == self.right:
            return Score(1.0, "Correct.")
        lines = [] if self.tool_calls > len(self.tool_errors) else [self.form.rule]
        lines.append(ANSWER_RULE if numbers else NO_NUMBER_RULE)
        return Score(0.0, "\n".join([*lines, f"The right answer was {self.right}."]))

    def close(self) -> None:
        """It holds nothing."""


def _problem(expression: str) -> Problem:
    words = " ".join(WORDS.get(part, part) for part in expression.split())
    message = {"role": "user", "content": f"What is {words}?"}
    answer = int(calculate(expression))
    return Problem(
        f"tool_protocol-{expression.replace(' ', '')}", (message,), {"expression": expression, "answer": answer}
    )


def _read_json(text: str) -> str | None:
    """The input of the first JSON object that names the calculator."""
    for match in re.finditer(r"\{", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text[match.start() :])
        except (ValueError, RecursionError):
            continue
        if not isinstance(found, dict) or "tool" not in found:
            continue
        if found["tool"] != "calculator":
            raise ValueError(f"there is no tool {str(found['tool'])[:50]!r}")
        if not isinstance(found.get("input"), str):
            raise ValueError("the call has no text `input`")
        return str(found["input"])
    return None


def _read_by(pattern: str) -> Callable[[str], str | None]:
    compiled = re.compile(pattern, re.DOTALL)

    def read(text: str) -> str | None:
        found = compiled.search(text)
        return None if found is None else found[1]

    return read


FORMS: Mapping[str, Form] = {
    "json": Form(
        'To use the calculator, write {"tool": "calculator", "input": "expression"} and nothing else.',
        _read_json,
        lambda expression: json.dumps({"tool": "calculator", "input": expression}),
    ),
    "brackets": Form(
        "To use the calculator, write calculator[expression] and nothing else.",
        _read_by(r"calculator\[([^\]]*)\]"),
        lambda expression: f"calculator[{expression}]",
    ),
    "tag": Form(
        "To use the calculator, write <calc>expression</calc> and nothing else.",
        _read_by(r"<calc>(.*?)</calc>"),
        lambda expression: f"<calc>{expression}</calc>",
    ),
}
"""The forms of a call, by the option `form`."""
