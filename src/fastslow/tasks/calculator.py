"""Arithmetic that a model wrote: parsed by Python's own parser, worked out node by node, never executed.

Only numbers, + - * / // % ** and brackets. Sizes are limited, so that `9**9**9` is refused and does not hang.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping

MAX_CHARS = 300
MAX_BITS = 4096
"""No integer on the way is longer."""

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_MEANT = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "^": "**"})


def calculate(expression: str) -> str:
    """Work out an arithmetic expression, for example `(12 + 30) * 7`.

    Args:
        expression: Numbers, + - * / // % ** and brackets.
    """
    if len(expression) > MAX_CHARS:
        raise ValueError(f"the expression has {len(expression)} characters, more than {MAX_CHARS}")
    try:
        tree = ast.parse(expression.translate(_MEANT).strip(), mode="eval")
        return _shown(_value(tree.body))
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is not an arithmetic expression") from None
    except ZeroDivisionError:
        raise ValueError(f"{expression!r} divides by zero") from None
    except OverflowError:
        raise ValueError(f"{expression!r} is too large") from None


def _value(node: ast.expr) -> float:
    # A bool is an int, and no number here.
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return _small(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left), _value(node.right)
        _check_size(node.op, left, right)
        value = _OPERATORS[type(node.op)](left, right)
        if isinstance(value, complex):
            raise ValueError("the root of a negative number is not a number here")
        return _small(value)
    raise ValueError("an expression has numbers, + - * / // % ** and brackets, and nothing else")


def _check_size(op: ast.operator, left: float, right: float) -> None:
    """Raises OverflowError before a result is worked out that would be too long."""
    power_of_integers = isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int) and abs(left) > 1
    if power_of_integers and abs(right) * int(left).bit_length() > MAX_BITS:
        raise OverflowError


def _small(value: float) -> float:
    too_long = value.bit_length() > MAX_BITS if isinstance(value, int) else not math.isfinite(value)
    if too_long:
        raise OverflowError
    return value


def _shown(value: float) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)
