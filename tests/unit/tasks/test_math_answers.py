"""math-verify in a process of its own: its time limit holds in any thread, and whose fault a failure is."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fastslow.errors import ConfigError, InfrastructureError, TaskError
from fastslow.tasks import math_answers, math_worker, scorers
from fastslow.tasks.formats import FORMATS
from fastslow.tasks.math_answers import AnswerTooHard, MathVerify
from fastslow.tasks.records import RecordsTask

pytest.importorskip("math_verify")
TOWER = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def verifier():
    made = MathVerify(limit_s=0.5)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch, verifier):
    """The scorer `math` with a limit of half a second."""
    monkeypatch.setattr(math_answers, "MATH_VERIFY", verifier)
    monkeypatch.setattr(scorers, "MATH_VERIFY", verifier)
    math_answers.same_math.cache_clear()
    yield
    math_answers.same_math.cache_clear()


def judge(answer, completion):
    scorer = scorers.find_scorer("math")
    return scorer.judge(completion, scorer.prepare(answer), FORMATS["plain"])


@pytest.mark.parametrize("given", [TOWER, "\\sum_{n=1}^{10^9} \\frac{1}{n^n}", "100000000!"])
def test_a_completion_that_takes_too_long_scores_0_and_hears_why(impatient, given):
    score = judge("5", f"\\boxed{{{given}}}")
    assert score.reward == 0.0
    assert score.feedback.splitlines()[0] == scorers.TOO_HARD_RULE
    assert "or too much memory, to compare with 5" in score.feedback
    assert judge("5", "\\boxed{5}").reward == 1.0


def test_the_limit_holds_in_a_thread(impatient):
    found = []
    thread = threading.Thread(target=lambda: found.append(judge("5", f"\\boxed{{{TOWER}}}").reward), daemon=True)
    thread.start()
    thread.join(60)
    assert found == [0.0]


def test_threads_do_not_get_one_anothers_verdicts(verifier):
    wrong = []

    def ask(number):
        for other in range(number - 2, number + 3):
            if verifier.equal(str(number), str(other)) != (number == other):
                wrong.append((number, other))

    threads = [threading.Thread(target=ask, args=(10 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_answer_in_the_data_that_takes_too_long_is_refused_with_its_row_before_anything_is_scored(
    impatient, tmp_path
):
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "a", "answer": "5"}\n{"q": "b", "answer": "9^{9^{9^{9}}}"}\n')
    options = {"splits": {"train": 1, "validation": 1}, "prompt": "q", "answer": "answer", "scorer": "math"}
    with pytest.raises(TaskError, match=r"a\.jsonl, line 2: .* takes math-verify more than 0\.5 s.*column 'answer'"):
        RecordsTask(str(path), **options)


def test_an_answer_in_the_data_is_told_from_a_completion_that_takes_too_long(verifier):
    with pytest.raises(TaskError, match=r"the record's answer '9\^.* takes math-verify more than 0\.5 s"):
        verifier.equal(TOWER, "5")
    with pytest.raises(AnswerTooHard):
        verifier.equal("5", TOWER)


@pytest.mark.parametrize(
    "given", ["(" * 50_000, "{" * 3000 + "}" * 3000, "\\frac{" * 400 + "1" + "}{2}" * 400, "\ud800"]
)
def test_a_text_that_breaks_the_parser_is_wrong_and_not_broken_machinery(impatient, given):
    assert judge("7", f"\\boxed{{{given}}}").reward == 0.0


def test_one_process_is_kept_warm_and_replaced_when_it_is_gone(verifier):
    assert verifier.equal("5", "5")
    first = verifier._process
    start = time.monotonic()
    assert not verifier.equal("5", "6")
    assert verifier._process is first
    assert time.monotonic() - start < 60
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert verifier.equal("5", "5")
    assert verifier._process is not first


def test_a_process_that_is_killed_from_outside_is_broken_machinery(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, signal, sys\n"
        "print('{\"ready\": true}', flush=True)\n"
        "sys.stdin.readline()\n"
        "print('{\"read\": true}', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(InfrastructureError, match="the process of math-verify ended with code -9"):
        MathVerify(worker=worker).equal("5", "5")


def test_an_interrupted_request_leaves_no_reply_for_the_next_one(verifier, monkeypatch):
    assert verifier.equal("5", "5")
    ask = verifier._exchange

    def interrupted(process, line, gold_was_read):
        if gold_was_read:
            raise KeyboardInterrupt
        return ask(process, line, gold_was_read)

    monkeypatch.setattr(verifier, "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verifier.equal("5", "6")
    monkeypatch.undo()
    assert verifier.equal("5", "5")


def test_the_process_does_not_outlive_the_pipe_to_it():
    made = MathVerify()
    made.start()
    process = made._process
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("error", [ImportError("no antlr"), OSError("no disk"), RuntimeError("broken")])
@pytest.mark.parametrize("function", ["parse", "verify"])
def test_a_verifier_that_breaks_on_everything_is_broken(monkeypatch, function, error):
    def breaks(*args, **kwargs):
        raise error

    math_worker.parse.cache_clear()
    monkeypatch.setattr(f"math_verify.{function}", breaks)
    reply = math_worker.read("5")
    reply = math_worker.answer("5", "6") if "read" in reply else reply
    assert reply == {"broken": f"{type(error).__name__}: {error}"}
    math_worker.parse.cache_clear()


def test_a_verifier_that_breaks_on_one_completion_gives_it_a_0(monkeypatch):
    import math_verify

    verify = math_verify.verify

    def fragile(gold, target, **options):
        if any(str(part) == "123321" for part in target):
            raise RuntimeError("sympy")
        return verify(gold, target, **options)

    monkeypatch.setattr(math_verify, "verify", fragile)
    assert math_worker.answer("5", "123321") == {"equal": False}
    assert math_worker.answer("5", "5") == {"equal": True}


def test_a_parser_that_is_missing_is_told_before_any_data_is_read(monkeypatch, tmp_path):
    """math-verify swallows the error and compares LaTeX as text."""
    worker = tmp_path / "worker.py"
    source = Path(math_worker.__file__).read_text()
    worker.write_text(
        source.replace("def main()", "sys.modules['latex2sympy2_extended.latex2sympy2'] = None\n\n\ndef main()")
    )
    made = MathVerify(worker=worker)
    monkeypatch.setattr(scorers, "MATH_VERIFY", made)
    with pytest.raises(ConfigError, match=r"scorer: math-verify is broken: .*"):
        scorers.find_scorer("math")
    made.close()
