"""Answer formats: what counts as the answer, and that no text can break the reader."""

import random

import pytest

from fastslow.errors import TaskError
from fastslow.tasks.formats import (
    FORMATS,
    get_format,
    json_value_text,
    last_boxed,
    read_json,
    same_json,
    shorten,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{4}", "4"),
        ("\\boxed{1} then \\boxed{ 2 }.", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{}", ""),
        ("\\boxed{1} and \\boxed{2", None),
        ("boxed{4}", None),
        ("\\boxed {4}", "4"),
        ("\\boxed\n{4}", "4"),
        ("\\fbox{4}", "4"),
        ("\\boxed{\\{1\\}}", "\\{1\\}"),
        ("\\boxed{\\left\\{1, 2\\right.}", "\\left\\{1, 2\\right."),
        ("\\boxed{a\\\\}", "a\\\\"),
        ("\\boxed 4", None),
        ("\\boxedx{4}", None),
        ("", None),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


def balanced(rng: random.Random, depth: int) -> str:
    parts = [rng.choice("ab1,+ ") for _ in range(rng.randint(0, 4))]
    if depth:
        parts += ["{" + balanced(rng, depth - 1) + "}" for _ in range(rng.randint(0, 2))]
    rng.shuffle(parts)
    return "".join(parts)


def test_last_boxed_gives_back_any_balanced_content_whatever_stands_around_it():
    rng = random.Random(0)
    for _ in range(500):
        content = balanced(rng, depth=4)
        before = "".join(rng.choice("x{}\\ ") for _ in range(6))
        after = "".join(rng.choice("x{} ") for _ in range(6))
        assert last_boxed(f"{before}\\boxed{{{content}}}{after}") == content.strip()


def test_last_boxed_never_gives_unbalanced_content():
    rng = random.Random(1)
    for _ in range(500):
        found = last_boxed("\\boxed{" + "".join(rng.choice("{}ab") for _ in range(10)))
        if found is not None:
            depths = [found[:end].count("{") - found[:end].count("}") for end in range(len(found) + 1)]
            assert min(depths) >= 0
            assert depths[-1] == 0


@pytest.mark.parametrize(
    ("name", "completion", "expected"),
    [
        ("plain", "<think>7</think> 8 ", "8"),
        ("plain", "<think>7</think>", None),
        ("json", '{"answer": 3}', "3"),
        ("json", '{"answer": " x "}', "x"),
        ("json", 'The answer: {"answer": 3}', None),
        ("json", '{"answer": 3, "why": 1}', None),
        ("json", "[" * 100_000, None),
        ("json", '{"answer": NaN}', None),
        ("tags", "<answer>1</answer> <answer> 2\n</answer>", "2"),
        ("boxed", "<think>\\boxed{1}</think> none", None),
        ("brackets", "[[1]] or [[2]]", "2"),
    ],
)
def test_extract(name, completion, expected):
    assert FORMATS[name].extract(completion) == expected


def test_rules_are_one_line_each_and_differ():
    rules = [form.rule for form in FORMATS.values()]
    assert all(rule and "\n" not in rule for rule in rules)
    assert len(set(rules)) == len(rules)


def test_an_unknown_format_is_named_with_the_known_ones():
    with pytest.raises(TaskError, match=r"answer_format: 'xml' is unknown: take one of plain, json, tags"):
        get_format("xml")


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>[1]</think>\n [2] ", "[2]"),
        ('first ```json\n{"a": 1}\n``` then\n```json\n{"a": 2}\n```\nDone.', '{"a": 2}'),
        ("<think>```json\n1\n```</think>", None),
    ],
)
def test_json_value_text(completion, expected):
    assert json_value_text(completion) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        '{"a": 1, "a": 1}',
        '[{"a": {"b": 1, "b": 2}}]',
        "NaN",
        "Infinity",
        "[" * 100_000,
        "9" * 10_000,
        "{'a': 1}",
    ],
)
def test_read_json_raises_value_error_and_nothing_else(text):
    with pytest.raises(ValueError):
        read_json(text)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (1.0, 1.001, False),
        (1, True, False),
        (True, True, True),
        (None, None, True),
        (None, False, False),
        ("1", 1, False),
        ([1, [2]], [1.0, [2.0]], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ({"a": 1, "b": None}, {"b": None, "a": 1.0}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, [1], False),
        (10**400, 10**400, True),
        (10**400, 1.5, False),
    ],
)
def test_same_json(one, other, equal):
    assert same_json(one, other) is equal
    assert same_json(other, one) is equal


def test_shorten():
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "abc..."
