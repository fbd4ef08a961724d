"""Scorers for the user's own records: built-in ones by name, or anybody's as `package.module:Name`.

A `Scorer` has two parts: `prepare` reads the record's answer once, before any model loads, and raises ValueError where
it is of no use; `judge` compares a completion with it. A plain function does as well (`from_function`).
"""

import importlib.util
import inspect
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError, TaskError
from fastslow.extension import resolve
from fastslow.tasks.base import as_number
from fastslow.tasks.formats import (
    FORMATS,
    AnswerFormat,
    answer_part,
    json_value_text,
    last_boxed,
    read_json,
    same_json,
    shorten,
)
from fastslow.tasks.math_answers import LIMIT_S, MATH_VERIFY, same_math
from fastslow.tasks.numbers import Number, last_number, same_number
from fastslow.text import shown
from fastslow.types import Score

FIELD = "task.options.scorer"
Record = Mapping[str, Any]
ScoreRecord = Callable[[str, Record], Score]

NUMBER_RULE = "Give the answer as a number."
CHOICE_RULE = "Answer with the letter of the right option alone."
JSON_RULE = "Give the answer as a single JSON value, bare or as the last ```json block."
TOO_HARD_RULE = "Write the answer as a short, evaluated expression."

# The letter stands first; markup around it, and what is said after a mark of punctuation, are left aside.
_MARKUP = r"[*_`~\"'$#>\u2018\u2019\u201c\u201d]*"
_CHOICE = re.compile(rf"(?:\s|{_MARKUP[:-1]})*[(\[]?{_MARKUP}([A-Za-z]){_MARKUP}[)\]]?(?P<rest>.*)", re.DOTALL)
_SET_OFF = re.compile(rf"{_MARKUP}(?:[ \t]*(?:$|\n|[.):,;!?(\u2013\u2014]|-\s))")
_LETTER = r"(?<![A-Za-z])[A-Za-z](?![A-Za-z'\u2019])"
_ONLY_LETTERS = re.compile(rf"(?:[\W_]|\b(?:and|or)\b|{_LETTER})*", re.IGNORECASE)
_LIST = re.compile(
    rf"[\s)\]*]*(?:,?\s*(?:and|or)\b|[&/])\s*[(\[]?{_LETTER}|[)\]]?,\s*[(\[]?{_LETTER}[)\]]?\s*(?:[,:]|and\b|or\b)"
)
_ABBREVIATION = re.compile(r"[A-Za-z]\.[A-Za-z](?![A-Za-z])")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{(.*)\}", re.DOTALL)
# Golds that math-verify may not bear: they are tried when the data is read.
_TOWERING = re.compile(r"!|\\binom|\\prod|\\sum|\\int|\^[^+\-=,]*\^|\^\s*\{?\s*\d{4,}|\d{100,}", re.DOTALL)
_EXPONENT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))[eE]([-+]?\d+)")


@dataclass(frozen=True)
class Scorer:
    """`judge(completion, prepared answer, format)`; a scorer that `takes_format` reads the answer through one."""

    prepare: Callable[[Any], Any]
    judge: Callable[[str, Any, AnswerFormat], Score]
    takes_format: bool = True


def verdict(correct: bool, given: str, expected: str) -> Score:
    """1 with "Correct.", or 0 with both answers named."""
    if correct:
        return Score(1.0, "Correct.")
    return Score(0.0, f"The answer was {shorten(given)}, the correct one is {shorten(expected)}.")


def _text(answer: object) -> str:
    """The answer as text. Raises ValueError where there is none, or where it is not one value."""
    if answer is None or (isinstance(answer, float) and not math.isfinite(answer)):
        raise ValueError("is missing: fill it in, or leave the record out")
    if isinstance(answer, list | dict):
        raise ValueError("is not one value: take scorer json, or a function of your own")
    text = answer.strip() if isinstance(answer, str) else json.dumps(answer)
    if not text:
        raise ValueError("is empty")
    return text


def _exact(completion: str, right: str, form: AnswerFormat) -> Score:
    given = form.extract(completion)
    return Score(0.0, form.rule) if given is None else verdict(given == right, given, right)


def _prepare_number(answer: object) -> Number:
    value = last_number(_text(answer))
    if value is None:
        raise ValueError("holds no number")
    return value


def _number(completion: str, right: Number, form: AnswerFormat) -> Score:
    given = form.extract(completion)
    if given is None:
        return Score(0.0, form.rule)
    value = last_number(given)
    if value is None:
        return Score(0.0, f"{NUMBER_RULE}\nThe correct answer is {right}.")
    return verdict(same_number(value, right), str(value), str(right))


def _letter(text: str) -> str | None:
    """The letter that a text begins with; None where it begins with a word, or goes on to another letter."""
    text = unicodedata.normalize("NFKC", text).strip()
    while wrapped := _WRAPPED.fullmatch(text.strip("$ ")):
        text = wrapped.group(1).strip()
    found = _CHOICE.fullmatch(text)
    if found is None or _ABBREVIATION.match(text):
        return None
    rest = found.group("rest")
    # After a closing bracket the letter is set off already: "(B) Paris".
    closed = text[: found.start("rest")][-1:] in (")", "]")
    several = _LIST.match(rest) or (re.search(_LETTER, rest) and _ONLY_LETTERS.fullmatch(rest))
    if several or not (closed or _SET_OFF.match(rest)):
        return None
    return found.group(1).upper()


def _prepare_choice(answer: object) -> str:
    """A letter, or the index of the right option, counted from 0."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < 26:
        return chr(ord("A") + answer)
    letter = _letter(_text(answer))
    if letter is None:
        raise ValueError("is not the letter of an option")
    return letter


def _choice(completion: str, right: str, form: AnswerFormat) -> Score:
    given = form.extract(completion)
    if given is None:
        return Score(0.0, form.rule)
    letter = _letter(given)
    return Score(0.0, CHOICE_RULE) if letter is None else verdict(letter == right, letter, right)


def _prepare_json(answer: object) -> Any:
    """A text that is JSON stands for its value; any other text for itself."""
    if answer is None:
        raise ValueError("is missing: fill it in (the text 'null' stands for JSON's null), or leave the record out")
    if not isinstance(answer, str):
        json.dumps(answer, allow_nan=False)
        return answer
    if not answer.strip():
        raise ValueError("is empty (the text '\"\"' stands for an empty JSON string)")
    try:
        return read_json(answer)
    except ValueError:
        return answer


def _json(completion: str, right: object, form: AnswerFormat) -> Score:
    text = json_value_text(completion) or ""
    try:
        value = read_json(text)
    except ValueError:
        return Score(0.0, f"{JSON_RULE}\nThe correct answer is {shorten(json.dumps(right))}.")
    return verdict(same_json(value, right), text, json.dumps(right))


def _prepare_math(answer: object) -> str:
    """The answer as LaTeX: a whole solution stands for what it boxes."""
    if isinstance(answer, bool):
        raise ValueError("is no mathematics")
    text = _text(answer)
    boxed = last_boxed(text)
    if boxed is None and re.search(r"\\(?:boxed|fbox)\b", text):
        raise ValueError("has a \\boxed without its braces: what it boxes cannot be told")
    text = _with_power_of_ten(boxed if boxed is not None else text)
    if not text:
        raise ValueError("is empty")
    if _TOWERING.search(text):
        MATH_VERIFY.check(text)
    return text


def _math(completion: str, right: str, form: AnswerFormat) -> Score:
    given = last_boxed(answer_part(completion))
    if not given:
        return Score(0.0, FORMATS["boxed"].rule)
    equal = same_math(right, _with_power_of_ten(given))
    if equal is None:
        said, correct = shorten(given), shorten(right)
        reason = f"The answer {said} takes more than {LIMIT_S:g} s, or too much memory, to compare with {correct}."
        return Score(0.0, f"{TOO_HARD_RULE}\n{reason}")
    return verdict(equal, given, right)


def _with_power_of_ten(text: str) -> str:
    """1e-7, in which LaTeX sees Euler's number, as a power of ten."""
    found = _EXPONENT.fullmatch(text)
    return f"{found[1]} \\cdot 10^{{{found[2]}}}" if found else text


EXACT = Scorer(_text, _exact)
NUMBER = Scorer(_prepare_number, _number)
CHOICE = Scorer(_prepare_choice, _choice)
JSON = Scorer(_prepare_json, _json, takes_format=False)
MATH = Scorer(_prepare_math, _math, takes_format=False)

SCORERS = {
    "exact": "fastslow.tasks.scorers:EXACT",
    "number": "fastslow.tasks.scorers:NUMBER",
    "choice": "fastslow.tasks.scorers:CHOICE",
    "json": "fastslow.tasks.scorers:JSON",
    "math": "fastslow.tasks.scorers:MATH",
}
"""Import paths by the names that `task.options.scorer` takes."""


def find_scorer(name: str) -> Scorer | Callable[..., Any]:
    """A built-in scorer, or what `package.module:Name` stands for: a `Scorer`, or a function (see `from_function`).

    Raises ConfigError for a name that is not known, whose package is missing, or that stands for something else.
    """
    if name == "math":
        _start_math_verify()
    found: Scorer | Callable[..., Any] = resolve(name, SCORERS, FIELD)
    if not isinstance(found, Scorer) and not callable(found):
        raise ConfigError(f"{FIELD}: {name!r} is {found!r}, not a function, nor a Scorer of fastslow.tasks.scorers")
    return found


def _start_math_verify() -> None:
    try:
        missing = importlib.util.find_spec("math_verify") is None
    except ValueError:
        missing = True
    if missing:
        raise ConfigError("task.options.scorer: math-verify is not installed: pip install 'fastslow[math]'")
    try:
        MATH_VERIFY.start()
    except InfrastructureError as error:
        raise ConfigError(f"task.options.scorer: {error}") from error


def from_function(function: Callable[..., object], name: str, answer_column: str | None) -> ScoreRecord:
    """A scorer made of `function(completion, answer)` or `function(completion, record)`.

    Which of the two is told by the second parameter's name, `record` or anything else. It returns a reward, a
    `fastslow.Score`, or (reward, feedback). Raises ConfigError where it cannot be called that way.
    """
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 or any(p.default is p.empty for p in positional[2:]):
        raise ConfigError(f"task.options.scorer: {name!r} must take (completion, answer) or (completion, record)")
    wants_record = positional[1].name == "record"
    if not wants_record and answer_column is None:
        raise ConfigError(
            f"task.options.answer: is missing: {name!r} wants the answer. Name its column, or let the function take "
            f"(completion, record)"
        )

    def score(completion: str, record: Record) -> Score:
        second = record if answer_column is None or wants_record else record[answer_column]
        return as_score(function(completion, second), name)

    return score


def as_score(value: object, name: str, field: str = FIELD) -> Score:
    """What a user's scorer, or another function that `field` names, returned, as a `Score`.

    Raises: TaskError for anything but the three forms.
    """
    if isinstance(value, Score):
        return value
    reward, feedback = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
    feedback = "" if feedback is None else feedback
    try:
        if isinstance(feedback, str):
            return Score(as_number(reward), feedback)
        raise TypeError
    except (TypeError, ValueError):
        raise TaskError(
            f"{field}: {name!r} returned {shown(value)}: return a reward, a Score or (reward, feedback)"
        ) from None
