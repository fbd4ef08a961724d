"""reasoning-gym's generators: the feedback, the verifiers that trip, and the guards before those that run code."""

import inspect
import re
import sys

import pytest

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks import guards
from fastslow.tasks.guards import is_formula, is_plain, safe_for
from fastslow.tasks.reasoning_gym import REFUSED, ReasoningGymTask, list_generators
from fastslow.types import Score

SMALL = {"train": 6, "validation": 2, "test": 2}
# They eval text of their own only, or have a parse_expr of their own that does not.
HARMLESS = {"basic_arithmetic", "bitwise_arithmetic", "gsm_symbolic", "number_sorting", "propositional_logic"}


def make(generator: str = "chain_sum", **options) -> ReasoningGymTask:
    return ReasoningGymTask(generator, **{**SMALL, **options})


def test_a_format_is_named_by_the_feedback_alone():
    task = make(answer_format="json")
    problem = task.problems("train")[0]
    answer = problem.data["entry"]["answer"]
    assert "json" not in str(problem.messages).lower()
    assert task.score(problem, f'{{"answer": {answer}}}') == Score(1.0, "Correct.")
    rule = 'Reply with only a JSON object of the form {"answer": ...} and nothing else.'
    assert task.score(problem, answer) == Score(0.0, rule)
    assert task.score(problem, '{"answer": "x"}').feedback == f"The answer was x, the correct one is {answer}."


def test_exact_gives_no_partial_credit():
    answers = make("products", exact=True), make("products", exact=False)
    problem = answers[0].problems("train")[0]
    completion = f"{problem.data['entry']['answer']} or so"
    assert answers[0].score(problem, completion).reward == 0.0
    assert 0.0 < answers[1].score(problem, completion).reward < 1.0


@pytest.mark.parametrize(
    ("generator", "answer"), [("prime_factorization", "x"), ("boxnet", "0"), ("game_of_life", '{"answer": 1}')]
)
def test_a_verifier_that_raises_on_the_answer_scores_0(generator, answer):
    task = make(generator)
    problem = task.problems("train")[0]
    with pytest.raises((ValueError, TypeError, KeyError)):
        task._dataset.score_answer(answer, problem.data["entry"])
    assert task.score(problem, answer).reward == 0.0


def test_a_verifier_that_raises_on_the_right_answer_too_is_broken(monkeypatch):
    task = make()
    problem = task.problems("train")[0]

    def broken(answer, entry):
        raise RuntimeError("bug")

    monkeypatch.setattr(task._dataset, "score_answer", broken)
    (failure,) = task.score_batch([problem], ["5"])
    assert failure.reason == "RuntimeError: bug"


def test_splits_stay_when_the_training_size_changes():
    small, large = make(), make(train=40)
    assert small.problems("test") == large.problems("test")
    assert small.problems("validation") == large.problems("validation")


@pytest.mark.parametrize(
    ("generator", "options", "error", "message"),
    [
        ("chain_sums", {}, ConfigError, "no generator 'chain_sums'. Did you mean .*chain_sum"),
        (
            "codeio",
            {},
            ConfigError,
            "'reasoning_gym:codeio' is not on offer: it runs its bundled code .*; take the task 'codeio'",
        ),
        ("chain_sum", {"params": {"terms": 3}}, TaskError, r"params: reasoning-gym's chain_sum does not take .*terms"),
        ("chain_sum", {"params": {"min_terms": 5, "max_terms": 2}}, TaskError, "does not take"),
        ("chain_sum", {"answer_format": "xml"}, TaskError, "answer_format: 'xml' is unknown"),
        (
            "chain_sum",
            {"params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}, "train": 500},
            TaskError,
            r"has only \d+ different questions with these params, 504 are asked",
        ),
    ],
)
def test_errors(generator, options, error, message):
    with pytest.raises(error, match=message):
        make(generator, **options)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=r"reasoning-gym is not installed: pip install 'fastslow\[tasks\]'"):
        make()


def test_every_generator_on_offer_has_one_line():
    listed = dict(list_generators())
    assert len(listed) > 90
    assert REFUSED.keys().isdisjoint(listed)
    assert all(line and "\n" not in line and "Config(" not in line for line in listed.values())


def test_every_verifier_that_runs_text_is_guarded():
    from reasoning_gym.factory import DATASETS

    runs_text = {
        name
        for name, (dataset, _) in DATASETS.items()
        if re.search(r"\beval\(|\bexec\(|parse_expr\(|sympify\(", inspect.getsource(inspect.getmodule(dataset)))
    }
    assert runs_text - HARMLESS - REFUSED.keys() == guards.EVALUATES | guards.PARSES_FORMULAS


@pytest.mark.parametrize("generator", sorted(guards.EVALUATES | guards.PARSES_FORMULAS))
def test_guards_let_right_answers_through_and_stop_code(generator, tmp_path):
    task = make(generator, train=3)
    mark = tmp_path / "ran"
    for problem in task.problems("train"):
        assert task.score(problem, str(problem.data["entry"]["answer"])).reward == 1.0
        assert task.score(problem, f"open({str(mark)!r}, 'w')") == Score(0.0, guards.RULE)
    assert not mark.exists()


def test_the_guard_is_needed(tmp_path):
    task = make("string_insertion")
    mark = tmp_path / "ran"
    task._dataset.score_answer(f"open({str(mark)!r}, 'w')", task.problems("train")[0].data["entry"])
    assert mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "print(1)",
        "[1 for a in answer for b in answer]",
        "9**9**9**9",
        "().__class__",
        "lambda: 1",
        "a.__class__",
    ],
)
def test_is_plain_stops(text):
    assert not is_plain(text)


@pytest.mark.parametrize("text", ["1 2 3", "[[1, 2], [3, 4]]", "_ Q _\nQ _ _", "['A', 'B']", "ABCDE", "(1, 2)", "-1.5"])
def test_is_plain_lets_through(text):
    assert is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "x.args",
        "(x).args",
        "factorial(10)",
        "9**9**9",
        "9 ** 9 ** 9",
        "9**(9**9)",
        "2**123456",
        "2^999",
        "9**9.9",
        "9**x(2)",
        "1e999",
        "((((9**99)**99)**99)**99)",
        "1+" * 600 + "1",
        "Integral(x, x)",
        "x_1",
    ],
)
def test_is_formula_stops(text):
    assert not is_formula(text)


@pytest.mark.parametrize(
    "text", ["2*x**3/3 + C", "-exp(2*x)/2", "(3 + 5) * 4 - 8", "x^2", "sin(x)**2", "2**-1", "1.5e3"]
)
def test_is_formula_lets_through(text):
    assert is_formula(text)


def test_nan_is_not_every_complex_number():
    task = make("complex_arithmetic")
    problem = task.problems("train")[0]
    assert task._dataset.score_answer("nan", problem.data["entry"]) == 1.0
    assert task.score(problem, "nan").reward == 0.0


def test_other_generators_need_no_guard():
    assert safe_for("chain_sum", "__import__('os')")
