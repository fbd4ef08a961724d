"""Some of reasoning-gym's verifiers hand the answer to Python's `eval`, or to sympy's `parse_expr`, which evals too.

Text of a model must not run as code in this process, so an answer reaches such a verifier only where it can be nothing
but data or a formula of bearable size. One verifier takes "nan" for every answer. Checked against reasoning-gym 0.1.25;
a test looks for verifiers that are new.
"""

import ast
import re

EVALUATES = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
PARSES_FORMULAS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
RULE = "Write the answer as plain text, a number, a list or a formula."

_PLAIN = re.compile(r"[\w\s\[\],.'\"+-]*")
_KEYWORD = re.compile(r"\b(for|if|lambda|import|await|yield)\b|__")
_FORMULA = re.compile(r"[A-Za-z0-9\s+\-*/^().,=|]*")
_FUNCTIONS = frozenset(
    {
        "Abs",
        "acos",
        "asin",
        "atan",
        "cos",
        "cosh",
        "cot",
        "csc",
        "exp",
        "ln",
        "log",
        "pi",
        "sec",
        "sin",
        "sinh",
        "sqrt",
        "tan",
    }
)
_POWER = re.compile(r"(\*\*|\^)\s*")
_EXPONENT = re.compile(r"-?\d{1,2}(?![\d.])|\(-?\d{1,2}(/\d{1,2})?\)|[A-Za-z](?![A-Za-z(])")
_ATTRIBUTE_OR_HUGE = re.compile(r"[A-Za-z)]\s*\.|\d[eE][+-]?\d{3}")
_BRACKET_POWER = re.compile(r"\)\s*(?:\*\*|\^)")
MAX_FORMULA_CHARS = 1000
MAX_POWERS_OF_BRACKETS = 2


def safe_for(generator: str, answer: str) -> bool:
    """Whether the verifier of a generator may see the answer."""
    if generator in EVALUATES:
        return is_plain(answer)
    if generator == "complex_arithmetic":
        return "nan" not in answer.lower()
    return generator not in PARSES_FORMULAS or is_formula(answer)


def is_plain(text: str) -> bool:
    """Whether `eval` of the text can call nothing and cannot take long: a literal, or words, numbers and brackets."""
    if _PLAIN.fullmatch(text):
        return not _KEYWORD.search(text)
    try:
        ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def is_formula(text: str) -> bool:
    """Whether the text is arithmetic on numbers, single letters and elementary functions, with small exponents."""
    if len(text) > MAX_FORMULA_CHARS or not _FORMULA.fullmatch(text):
        return False
    if any(len(name) > 1 and name not in _FUNCTIONS for name in re.findall(r"[A-Za-z]+", text)):
        return False
    if _ATTRIBUTE_OR_HUGE.search(text) or len(_BRACKET_POWER.findall(text)) > MAX_POWERS_OF_BRACKETS:
        return False
    return all(_is_small_exponent(text, power.end()) for power in _POWER.finditer(text))


def _is_small_exponent(text: str, start: int) -> bool:
    exponent = _EXPONENT.match(text, start)
    return exponent is not None and not _POWER.match(text[exponent.end() :].lstrip())
