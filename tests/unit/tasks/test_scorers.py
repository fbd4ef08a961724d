"""Built-in scorers and scorer functions of the user's own."""

import json
from pathlib import Path

import pytest

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks import scorers
from fastslow.tasks.formats import FORMATS
from fastslow.tasks.scorers import CHOICE_RULE, JSON_RULE, NUMBER_RULE, SCORERS, as_score, find_scorer, from_function
from fastslow.types import Score

TABLES = Path(__file__).with_name("verdicts")


def judge(name: str, answer, completion: str, form: str = "plain") -> Score:
    scorer = find_scorer(name)
    return scorer.judge(completion, scorer.prepare(answer), FORMATS[form])


@pytest.mark.parametrize("name", SCORERS)
def test_the_verdicts_of_a_hundred_answers_written_by_hand(name):
    """One line a verdict: answer, completion, reward; `why` is the rule where it could have been another."""
    rows = [json.loads(line) for line in (TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 100
    assert {row["reward"] for row in rows} == {0, 1}
    wrong = []
    for row in rows:
        score = judge(name, row["answer"], row["completion"], row.get("format", "plain"))
        if score.reward != row["reward"]:
            wrong.append((row, score))
        assert score.feedback
    assert not wrong


@pytest.mark.parametrize("generator", ["chain_sum", "gcd", "fraction_simplification", "products", "decimal_arithmetic"])
def test_a_number_is_right_where_the_verifier_of_reasoning_gym_says_so(generator):
    reasoning_gym = pytest.importorskip("reasoning_gym")
    dataset = reasoning_gym.create_dataset(generator, size=20, seed=3)
    answers = [dataset[index]["answer"] for index in range(20)]
    for index in range(20):
        for given in {answers[index], answers[(index + 1) % 20]}:
            theirs = dataset.score_answer(given, dataset[index])
            assert judge("number", answers[index], given).reward == float(theirs == 1.0), (answers[index], given)


@pytest.mark.parametrize(
    ("name", "answer", "right", "wrong"),
    [
        ("exact", "Paris", "<think>Rome</think> Paris ", "paris"),
        ("exact", 42, "42", "42.0"),
        ("number", "... so #### 1,200", "It is 1200.0", "1201"),
        ("number", 0.3333333, "0.33333333", "0.3334"),
        ("number", 0, "0.0", "0.001"),
        ("choice", "B", "(b)", "A"),
        ("choice", "B", "B) because", "C. no"),
        ("choice", 1, "[B]", "A"),
        ("json", '{"a": [1]}', 'So\n```json\n{"a": [1.0]}\n```', '{"a": [2]}'),
        ("json", {"a": None}, '{"a": null}', '{"a": 0}'),
        ("json", "plain text", '"plain text"', '"other"'),
        ("math", "\\frac{1}{2}", "so \\boxed{0.5}", "\\boxed{0.6}"),
        ("math", "the answer is \\boxed{x^2+2x+1}", "\\boxed{(x+1)^2}", "\\boxed{(x-1)^2}"),
        ("math", 12, "\\boxed{12}", "\\boxed{}}{"),
    ],
)
def test_right_scores_1_and_wrong_scores_0_and_says_why(name, answer, right, wrong):
    assert judge(name, answer, right) == Score(1.0, "Correct.")
    score = judge(name, answer, wrong)
    assert score.reward == 0.0
    assert score.feedback


@pytest.mark.parametrize(
    ("name", "answer", "completion", "form", "rule"),
    [
        ("exact", "4", "", "plain", FORMATS["plain"].rule),
        ("exact", "4", "4", "boxed", FORMATS["boxed"].rule),
        ("number", "4", "four", "plain", NUMBER_RULE),
        ("number", "4", "4", "tags", FORMATS["tags"].rule),
        ("choice", "A", "Mitochondria", "plain", CHOICE_RULE),
        ("choice", "A", "A", "brackets", FORMATS["brackets"].rule),
        ("json", "4", "[" * 100_000, "plain", JSON_RULE),
        ("json", "4", "The answer is 4", "plain", JSON_RULE),
        ("math", "4", "4", "plain", FORMATS["boxed"].rule),
        ("math", "4", "<think>\\boxed{4}</think>", "plain", FORMATS["boxed"].rule),
    ],
)
def test_a_broken_format_scores_0_and_the_rule_comes_first(name, answer, completion, form, rule):
    score = judge(name, answer, completion, form)
    assert score.reward == 0.0
    assert score.feedback.splitlines()[0] == rule


@pytest.mark.parametrize("depth", [10, 300, 900, 960, 980, 990, 5000])
@pytest.mark.parametrize("name", ["json", "exact"])
def test_no_depth_of_nesting_breaks_a_scorer(name, depth):
    nested = "[" * depth + "]" * depth
    assert judge(name, "4", f'{{"answer": {nested}}}', "json").reward == 0.0


@pytest.mark.parametrize("text", ["\\frac{", "}{", "\\int", "x = = 2", "\\boxed{", "None", "1/0", "\\", "%%", "[1,2"])
def test_text_that_is_no_mathematics_is_wrong_not_broken(text):
    assert judge("math", "7", f"\\boxed{{{text}}}").reward == 0.0


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("exact", " ", "is empty"),
        ("json", " ", "is empty"),
        *((name, None, "is missing") for name in ("exact", "number", "json", "choice", "math")),
        *((name, float("nan"), "is missing") for name in ("exact", "number", "choice", "math")),
        *((name, ["5"], "is not one value") for name in ("exact", "number", "choice", "math")),
        ("json", float("nan"), "Out of range float values"),
        ("json", {"a": [float("inf")]}, "Out of range float values"),
        ("number", True, "holds no number"),
        ("number", "6*7", "holds no number"),
        ("math", True, "is no mathematics"),
        ("math", "so we get \\boxed 2$.", "without its braces"),
        ("math", "we get \\boxed{ }", "is empty"),
        ("number", "none", "holds no number"),
        ("choice", "Mitochondria", "is not the letter of an option"),
        ("math", "", "is empty"),
    ],
)
def test_an_answer_of_no_use_is_refused(name, answer, message):
    with pytest.raises(ValueError, match=message):
        find_scorer(name).prepare(answer)


def test_an_unknown_scorer_is_named_with_the_known_ones():
    with pytest.raises(
        ConfigError,
        match=r"scorer: 'exakt' is unknown. Did you mean 'exact'\? Known: exact, number, choice, json, math, and",
    ):
        find_scorer("exakt")


def test_the_second_parameter_says_what_a_function_gets():
    def by_answer(completion, answer):
        return completion == answer, "compared"

    def by_record(completion, record):
        return len(record)

    record = {"question": "q", "solution": "s"}
    assert from_function(by_answer, "f", "solution")("s", record) == Score(1.0, "compared")
    assert from_function(by_record, "f", "solution")("s", {"solution": "s"}) == Score(1.0)
    assert from_function(by_record, "f", None)("s", {"solution": "s"}) == Score(1.0)
    with pytest.raises(ConfigError, match=r"task\.options\.answer: is missing: 'f' wants the answer"):
        from_function(by_answer, "f", None)


@pytest.mark.parametrize("function", [lambda completion: 1.0, lambda a, b, c: 1.0])
def test_a_function_that_cannot_be_called_is_refused(function):
    with pytest.raises(ConfigError, match=r"'f' must take \(completion, answer\) or \(completion, record\)"):
        from_function(function, "f", "answer")


def test_what_a_function_may_return():
    assert as_score(0.5, "f") == Score(0.5)
    assert as_score((1, "Well done."), "f") == Score(1.0, "Well done.")
    assert as_score(Score(0.25, "x"), "f") == Score(0.25, "x")
    assert as_score((1, None), "f") == Score(1.0)  # no feedback, not the text "None"
    assert as_score(True, "f") == Score(1.0)


@pytest.mark.parametrize(
    "value", [None, "good", "0.5", ("1", "x"), (1, 2), (1, ["x"]), [1.0, "x"], (1, 2, 3), {"reward": 1}]
)
def test_what_a_function_may_not_return(value):
    with pytest.raises(TaskError, match=r"'f' returned .*: return a reward, a Score or \(reward, feedback\)"):
        as_score(value, "f")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(ConfigError, match=r"math-verify is not installed: pip install 'fastslow\[math\]'"):
        scorers.find_scorer("math")
