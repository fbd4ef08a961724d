"""Scorers for the user's own records: built-in ones by name, or a function given as `package.module:function`.

A built-in scorer is one entry in `SCORERS`: `prepare` reads the record's answer once, before any model loads, and raises
ValueError where it is of no use; `judge` compares a completion with it.
"""

import inspect
import json
import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError, TaskError
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
from fastslow.types import Score

Record = Mapping[str, Any]
ScoreRecord = Callable[[str, Record], Score]

NUMBER_RULE = "Give the answer as a number."
CHOICE_RULE = "Answer with the letter of the right option alone."
JSON_RULE = "Give the answer as a single JSON value, bare or as the last ```json block."
MATH_TIMEOUT_S = 5

_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(r"(?:(?<![\w).])-)?" + _DIGITS)  # the 3 of "5-3" is not minus 3
_CHOICE = re.compile(r"[(\[]?([A-Za-z])[)\]]?(?:[.):].*)?", re.DOTALL)


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


def last_number(text: str) -> float | None:
    """The last number of a text, thousands separators allowed; None where there is none."""
    found = [match.group().replace(",", "") for match in _NUMBER.finditer(text)]
    value = float(found[-1]) if found else math.nan
    return value if math.isfinite(value) else None


def same_number(one: float, other: float) -> bool:
    """Equal to a relative 1e-6, or to 1e-9 near zero."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)


def _text(answer: Any) -> str:
    text = answer.strip() if isinstance(answer, str) else json.dumps(answer)
    if not text:
        raise ValueError("is empty")
    return text


def _exact(completion: str, right: str, form: AnswerFormat) -> Score:
    given = form.extract(completion)
    return Score(0.0, form.rule) if given is None else verdict(given == right, given, right)


def _prepare_number(answer: Any) -> float:
    value = last_number(_text(answer))
    if value is None:
        raise ValueError("holds no number")
    return value


def _number(completion: str, right: float, form: AnswerFormat) -> Score:
    given = form.extract(completion)
    if given is None:
        return Score(0.0, form.rule)
    value = last_number(given)
    if value is None:
        return Score(0.0, f"{NUMBER_RULE}\nThe correct answer is {right:.10g}.")
    return verdict(same_number(value, right), f"{value:.10g}", f"{right:.10g}")


def _letter(text: str) -> str | None:
    found = _CHOICE.fullmatch(text.strip())
    return found.group(1).upper() if found else None


def _prepare_choice(answer: Any) -> str:
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


def _prepare_json(answer: Any) -> Any:
    """A text that is JSON stands for its value; any other text for itself."""
    if not isinstance(answer, str):
        return answer
    try:
        return read_json(answer)
    except ValueError:
        return answer


def _json(completion: str, right: Any, form: AnswerFormat) -> Score:
    text = json_value_text(completion) or ""
    try:
        value = read_json(text)
    except ValueError:
        return Score(0.0, f"{JSON_RULE}\nThe correct answer is {shorten(json.dumps(right))}.")
    return verdict(same_json(value, right), text, json.dumps(right))


def _prepare_math(answer: Any) -> str:
    """The answer as LaTeX: a whole solution stands for what it boxes."""
    text = _text(answer)
    return last_boxed(text) or text


def _math(completion: str, right: str, form: AnswerFormat) -> Score:
    given = last_boxed(answer_part(completion))
    if not given:
        return Score(0.0, FORMATS["boxed"].rule)
    try:
        said = _parse_math(given)
    except (InfrastructureError, ImportError, MemoryError, OSError):
        raise
    except Exception:  # whatever sympy says to a text that is no mathematics
        said = []
    gold = _parse_gold(right)  # always: a verifier that breaks on this as well is broken
    return verdict(bool(said) and _verify_math(gold, said), given, right)


def _math_timeout_s() -> int | None:
    """math-verify's time limit is an alarm signal, which only the main thread may set."""
    return MATH_TIMEOUT_S if threading.current_thread() is threading.main_thread() else None


def _parse_math(text: str) -> list[Any]:
    from math_verify import parse
    from math_verify.errors import TimeoutException

    try:
        return list(parse(f"\\boxed{{{text}}}", parsing_timeout=_math_timeout_s(), raise_on_error=True))
    except TimeoutException as error:
        raise InfrastructureError(f"math-verify took more than {MATH_TIMEOUT_S} s to read {shorten(text)!r}") from error


@lru_cache(maxsize=4096)
def _parse_gold(text: str) -> tuple[Any, ...]:
    parsed = tuple(_parse_math(text))
    if not parsed:
        raise TaskError(f"the record's answer {text!r} cannot be read by math-verify")
    return parsed


def _verify_math(right: tuple[Any, ...], given: list[Any]) -> bool:
    from math_verify import verify
    from math_verify.errors import TimeoutException

    try:
        return bool(verify(list(right), given, timeout_seconds=_math_timeout_s(), raise_on_error=True))
    except TimeoutException as error:
        raise InfrastructureError(f"math-verify took more than {MATH_TIMEOUT_S} s to compare two answers") from error


SCORERS: dict[str, Scorer] = {
    "exact": Scorer(_text, _exact),
    "number": Scorer(_prepare_number, _number),
    "choice": Scorer(_prepare_choice, _choice),
    "json": Scorer(_prepare_json, _json, takes_format=False),
    "math": Scorer(_prepare_math, _math, takes_format=False),
}


def get_scorer(name: str) -> Scorer:
    """Raises ConfigError for a name that is not known, or whose package is missing."""
    if name not in SCORERS:
        raise ConfigError(
            f"task.options.scorer: {name!r} is unknown: take one of {', '.join(SCORERS)}, or package.module:function"
        )
    if name == "math":
        try:
            import math_verify  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "task.options.scorer: math-verify is not installed: pip install 'fastslow[math]'"
            ) from error
    return SCORERS[name]


def from_function(function: Callable[..., Any], name: str, answer_column: str | None) -> ScoreRecord:
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


def as_score(value: Any, name: str) -> Score:
    """What a user's scorer returned, as a `Score`. Raises TaskError for anything but the three forms."""
    if isinstance(value, Score):
        return value
    reward, feedback = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
    try:
        return Score(float(reward), str(feedback))
    except (TypeError, ValueError):
        raise TaskError(
            f"task.options.scorer: {name!r} returned {value!r}: return a reward, a Score or (reward, feedback)"
        ) from None
