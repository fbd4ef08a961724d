"""Reading a number out of a text: what is read, what is not, and in little time. Verdicts: `verdicts/number.jsonl`."""

import random
from fractions import Fraction

import pytest

from fastslow.tasks.numbers import Number, last_number, same_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 1,234.5 dollars.", 1234.5),
        ("#### 72", 72),
        ("3 and -4", -4),
        ("x=-3.", -3),
        (".5", 0.5),
        ("1e3", 1000),
        ("1,2345", Fraction("1.2345")),
        ("5 -3", -3),
        ("5-3", None),
        ("9" * 5000, None),
        ("9" * 50, int("9" * 50)),
        ("2^1000", 2**1000),
        ("2^1001", None),
        ("1e999999999", None),
        ("2^999999999", None),
        ("0^-1", None),
        ("none", None),
        ("-", None),
        ("", None),
    ],
)
def test_last_number(text, expected):
    found = last_number(text)
    assert (found and found.value) == expected


def test_whole_numbers_are_exact_and_measured_ones_are_not():
    assert not same_number(Number(Fraction(10**30)), Number(Fraction(10**30 + 1)))
    assert same_number(Number(Fraction(1)), Number(Fraction("1.0000000001")))
    assert not same_number(Number(Fraction(0)), Number(Fraction("0.00000001")))
    assert same_number(Number(Fraction("0.1234567")), Number(Fraction("0.12345671")))
    assert not same_number(Number(Fraction("0.1234567")), Number(Fraction("0.123457")))
    # 6.02214e23 shows six digits; that it is whole says nothing.
    assert same_number(Number(Fraction("6.0221408e23"), True), Number(Fraction("6.0221409e23"), True))


def test_feedback_is_short_however_great_the_number():
    assert [str(last_number(text)) for text in ("12345678901", "3/2", "1e100", "7^1000")] == [
        "12345678901", "1.5", "1e+100", "some 10^845"
    ]  # fmt: skip


def test_any_text_is_read_without_an_error():
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(
            rng.choice("0123456789 ,.-+*/^()eExX_$%{}\\\n\u00b2\u00bd\u2212") for _ in range(rng.choice([5, 20, 200]))
        )
        last_number(text)


@pytest.mark.parametrize("sign", ["-", "\u2212", "\u2013", "\uff0d"])
def test_any_number_that_is_written_is_read_back(sign):
    rng = random.Random(1)
    for _ in range(300):
        value = rng.randrange(10 ** rng.randrange(1, 25))
        for text in (str(value), f"{value:,}", f"{value:,}".replace(",", " "), f"**{value}**", f"\\boxed{{{value}}}"):
            assert last_number(f"It is {text}.").value == value
            assert last_number(f"It is {sign}{text.strip('*')} (as in step 3).").value == (
                value if text.startswith("\\") else -value
            )
