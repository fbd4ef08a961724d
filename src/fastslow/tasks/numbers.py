"""Reading one number out of a text, exactly, and comparing two.

What counts as a number: signs in any Unicode dash; thousands in threes by commas, thin or plain spaces; a decimal
point, or a comma where it cannot separate thousands (3,5 is 3.5; 1,234 is 1234); exponents (1e3, 3 x 10^5), fractions,
mixed numbers and powers of plain numbers, in LaTeX as well. Units, currencies and the percent sign are left aside: 50%
is 50. Any other arithmetic (5-3, 6*7, 2pi, sqrt(2)) is no number, and neither are 3:4, 1.2.3 or 0x1F: a part of it is
never taken for the whole.
"""

import functools
import math
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 4000
MAX_EXPONENT = 308  # of a float; and a bound on what is computed
MAX_POWER = 1000
MAX_BASE_DIGITS = 20

_SAME = {ord(dash): "-" for dash in "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"}
_SAME |= {ord(space): " " for space in "\u00a0\u2009\u202f"}
_MARKS: tuple[tuple[str, str], ...] = (
    (r"\{,\}|(?<=\d)(?:\\!|\\,|,\\!)+(?=\d)", ","),
    (r"\\[dt]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}", r" \1/\2"),
    (r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2"),
    (r"\^\s*(?:\{\s*([^{}]*?)\s*\}|\(\s*(-?\d+)\s*\))", r"^\1\2"),
    (r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boxed|fbox|mbox|underline)\s*\{([^{}]*)\}", r" \1"),
    (r"\\(?:left|right|[,;:! ])", " "),
    (r"\\([$%])", r"\1"),
    (r"\\(?:times|cdot)\b", "\u00d7"),
    (r"\\div\b|÷|\u2044", "/"),
    (r"\\pm\b", "±"),
    (r"(?<=\d)\*\*(?=-?\d)", "^"),
    # bold
    (r"(?<![\w)\]}.*])(?:\*{1,3}|_{1,3})(?=[-+$€£¥₹]?[\d.])|(?<=[\d%.])(?:\*{1,3}|_{1,3})(?![\d*(-])", " "),
    (r"-\s+(?=\d+/\d)(?<![\d)] -\s)|(?<==)\s*-\s+(?=[\d$.])", "-"),  # -\frac{1}{2}, x = - 5
    (r"(?<![\w)\]}.])-\s*\(\s*([\d.,]*\d)\s*\)", r"-\1"),
)

_DIGITS = r"(?:\d+(?:[.,]\d+)*|\.\d+)(?:[eE][+-]?\d+)?(?![\d])"
_SIGN = r"(?:(?<![\w)\]}.])[-+](?:\s*[$€£¥₹])?)?"
_JOIN = (
    r"(?:[ ]*[/\u00d7·±^][ ]*-?|[ ]*[*xX][ ]*(?=[-\d])-?|:|[-+]|[ ]+[-+][ ]+"
    r"|[ ](?=\d{3}(?!\d)(?![ ]*/))|[ ](?=\d+[ ]?/[ ]?\d))"
)
_RUN = re.compile(rf"{_SIGN}{_DIGITS}(?:{_JOIN}{_DIGITS})*")
_ROUND = re.compile(r"\([^()]*\)")
# `x2`, `H2O` and `cm^2` hold no number of their own.
_PART_OF_A_WORD = re.compile(r"(?:[A-Za-z_]|_\{|[A-Za-z°%]\^-?)$")
_OPERAND_OF = re.compile(r"(?:[/\u00d7·±^√*]|\\[A-Za-z]+\{|[A-Za-z\d+\-*/^\u00d7√]\(|[)\]}]-?)[ ]*$")
_SUPERSCRIPT = re.compile(r"(?<=\d)[\u207b\u207a]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_VULGAR = re.compile(r"[\u00bc-\u00be\u2150-\u215e]")
_WINDOW = 40  # characters before a number that can bear on it
_GOES_ON = re.compile(
    r"[ ]*(?:\^|\(\s*[-\d]|[/\u00d7·±](?=\s*[-\d(\\√])|√|\\?pi\b|π|\\sqrt|\\[A-Za-z]*root)|[A-Za-z_]+\d"
)

_COMMAS = r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?"
_BLANKS = r"[1-9]\d{0,2}(?: \d{3})+(?:[.,]\d+)?"
_POINTS = r"[1-9]\d{0,2}(?:\.\d{3})+,\d+|[1-9]\d{0,2}(?:\.\d{3}){2,}"
_PLAIN = rf"(?:{_COMMAS}|{_BLANKS}|{_POINTS}|\d+(?:[.,]\d+)?|\.\d+)"
_FLOAT = re.compile(rf"({_PLAIN})(?:[eE]([+-]?\d+)|[ ]*[\u00d7xX*·][ ]*10[ ]*\^[ ]*([+-]?\d+))?")
_FRACTION = re.compile(rf"({_PLAIN})[ ]*/[ ]*({_PLAIN})")
_MIXED = re.compile(r"(\d+) (\d+) ?/ ?(\d+)")
_POWER = re.compile(rf"({_PLAIN})[ ]*\^[ ]*(-?\d+)")


@dataclass(frozen=True)
class Number:
    """An exact value. `scientific` says that it has an exponent, which has no more digits than it shows."""

    value: Fraction
    scientific: bool = False

    @property
    def whole(self) -> bool:
        """Whether it counts something, so that no digit of it may be off."""
        return self.value.denominator == 1 and not self.scientific

    def __str__(self) -> str:
        if self.whole and abs(self.value) < 10**50:
            return str(self.value.numerator)
        try:
            return f"{float(self.value):.10g}"
        except OverflowError:
            return f"some 10^{math.floor(math.log10(abs(self.value.numerator)) - math.log10(self.value.denominator))}"


def last_number(text: str) -> Number | None:
    """The last number of a text that stands outside round brackets, or within where all do;
    None where it cannot be read.

    What stands last decides: where it is arithmetic and no number, the numbers before it are not taken for the answer.
    """
    text = _plain(text)
    outside = _without_remarks(text)
    for candidate in (outside, _unwrapped(text)):
        runs = [run for run in _RUN.finditer(candidate) if not _PART_OF_A_WORD.search(_before(candidate, run))]
        if runs:
            return _read(candidate, runs[-1])
    return None


def same_number(one: Number, other: Number) -> bool:
    """Equal to a relative 1e-6, or to 1e-9 near zero; where one is whole, to 1e-6 at most: integers are exact."""
    off: Fraction = abs(one.value - other.value)
    size: Fraction = max(abs(one.value), abs(other.value))
    least, most = Fraction(1, 10**9), Fraction(1, 10**6)
    allowed = max(size * most, least)
    return off <= (min(allowed, most) if one.whole or other.whole else allowed)


def _plain(text: str) -> str:
    text = _SUPERSCRIPT.sub(lambda found: "^" + unicodedata.normalize("NFKC", found.group()), text)
    text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found.group()), text)
    text = text.translate(_SAME)
    for pattern, replacement in _MARKS:
        text = re.sub(pattern, replacement, text)
    return text


def _without_remarks(text: str) -> str:
    """The text less what stands in round brackets. Brackets that arithmetic touches stay: 2(3), (1+2)^2, sqrt(2)."""
    shorter = _ROUND.sub(functools.partial(_kept, text), text)
    while shorter != text:
        text = shorter
        shorter = _ROUND.sub(functools.partial(_kept, text), text)
    return text


def _kept(text: str, found: re.Match[str]) -> str:
    return found.group() if _is_operand(text, found) else " "


def _is_operand(text: str, found: re.Match[str]) -> bool:
    before, after = _before(text, found), text[found.end() : found.end() + _WINDOW].lstrip(" ")[:1]
    arithmetic = re.fullmatch(r"\(\s*[-+]?[\d.,\s+\-*/^\u00d7]+\)", found.group()) is not None
    return arithmetic and (
        before.rstrip(" ")[-1:] in tuple("+-*/^\u00d7√") or before[-1:].isalnum() or after in tuple("+*/^\u00d7")
    )


def _before(text: str, found: re.Match[str]) -> str:
    return text[max(0, found.start() - _WINDOW) : found.start()]


def _unwrapped(text: str) -> str:
    return re.sub(r"(?<![A-Za-z\d])\(\s*([-+]?[\d.,]*\d)\s*\)", r"\1", text)


def _read(text: str, run: re.Match[str]) -> Number | None:
    if _OPERAND_OF.search(_before(text, run)) or _GOES_ON.match(text, run.end()):
        return None
    sign, body = re.fullmatch(r"([-+]?)\s*[$€£¥₹]?\s*(.*)", run.group(), re.DOTALL).groups()  # type: ignore[union-attr]
    if len(body) > MAX_DIGITS:
        return None
    found = _value(body)
    if found is None:
        return None
    return Number(-found.value, found.scientific) if sign == "-" else found


def _value(body: str) -> Number | None:
    """The value of an unsigned number; None for what is none, or is too great to be worked out."""
    if match := _FLOAT.fullmatch(body):
        ten = _small(match[2] or match[3] or "0", MAX_EXPONENT)
        return None if ten is None else Number(_decimal(match[1]) * Fraction(10) ** ten, bool(match[2] or match[3]))
    if match := _MIXED.fullmatch(body):
        whole, top, bottom = map(int, match.groups())
        return Number(whole + Fraction(top, bottom)) if 0 < top < bottom else None
    if match := _FRACTION.fullmatch(body):
        above, below = _decimal(match[1]), _decimal(match[2])
        return Number(above / below) if below else None
    if match := _POWER.fullmatch(body):
        base, power = _decimal(match[1]), _small(match[2], MAX_POWER)
        if power is None or len(match[1]) > MAX_BASE_DIGITS or not (base or power > 0):
            return None
        return Number(Fraction(base**power))
    return None


def _small(digits: str, most: int) -> int | None:
    number = int(digits) if len(digits) <= 6 else most + 1
    return number if abs(number) <= most else None


def _decimal(text: str) -> Fraction:
    """The value of digits with separators: see the head of this file."""
    if re.fullmatch(_COMMAS, text):
        text = text.replace(",", "")
    elif re.fullmatch(_POINTS, text):
        text = text.replace(".", "")
    return Fraction(text.replace(" ", "").replace(",", "."))
