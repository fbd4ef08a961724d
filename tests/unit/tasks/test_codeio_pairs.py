"""The program that makes CodeIO pairs: what it keeps, and what the limits stop."""

import gzip
import json
import subprocess
import sys

import pytest

from fastslow.tasks import codeio_pairs
from fastslow.tasks.codeio import CodeIOTask

GENERATOR = "def generate_inputs(rng: Random) -> dict:\n    return {'x': rng.randint(0, 9)}"


def function(body: str, generator: str = GENERATOR) -> dict:
    return {
        "task_description": "What comes out?",
        "input_output_spec": "Input: `x` (int).",
        "code_sample": f"def main_solution(x):\n    {body}",
        "input_generator": generator,
    }


def test_pairs_are_different_inputs_with_their_outputs_and_always_the_same():
    double = function("print('noise')\n    return [x, 2.0 * x]")
    pairs, reason = codeio_pairs.run_function(double, 3)
    assert reason == "ok"
    assert len({given["x"] for given, _ in pairs}) == 3
    assert all(output == [given["x"], 2.0 * given["x"]] for given, output in pairs)
    assert codeio_pairs.run_function(double, 3) == (pairs, "ok")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import random; return random.random()", "gave no stable JSON output"),
        ("return float('nan')", "gave no stable JSON output"),
        ("return {1, 2}", "gave no stable JSON output"),
        ("raise ValueError(x)", "gave no stable JSON output"),
        ("import time\n    while True: time.sleep(1)", "took too long"),
        ("return open('mark', 'w').write('x')", "raised or hit a limit"),
        ("import os; return os.system('true')", "raised or hit a limit"),
        ("import subprocess; return subprocess.call(['true'])", "raised or hit a limit"),
        ("import socket; return str(socket.socket())", "raised or hit a limit"),
        ("return len(bytearray(1 << 30))", "gave no stable JSON output"),
    ],
)
def test_what_is_not_kept(monkeypatch, body, reason):
    monkeypatch.setattr(codeio_pairs, "WALL_S", 2)
    monkeypatch.setattr(codeio_pairs, "LIMITS", {**codeio_pairs.LIMITS, "RLIMIT_AS": 1 << 29})
    assert codeio_pairs.run_function(function(body), 2) == ([], reason)


def test_a_busy_loop_hits_the_cpu_limit(monkeypatch):
    monkeypatch.setattr(codeio_pairs, "LIMITS", {**codeio_pairs.LIMITS, "RLIMIT_CPU": 1})
    assert codeio_pairs.run_function(function("while True: pass"), 2) == ([], "raised or hit a limit")


def test_nothing_of_the_environment_is_inherited(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_USER", "1")
    body = "import os; return sorted(name for name in os.environ if not name.startswith('LC_'))"
    pairs, _ = codeio_pairs.run_function(function(body), 1)
    assert pairs[0][1] == ["HOME", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED"]


def test_the_file_is_what_the_task_reads(monkeypatch, tmp_path, capsys):
    bundled = [function(f"return x + {i}") for i in range(4)]
    bundled += [bundled[0], function("return 'long' * 1000"), function("return 1 / 0")]
    with gzip.open(tmp_path / "bundled.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in bundled)
    monkeypatch.setattr(
        codeio_pairs, "bundled_functions", lambda: codeio_pairs.read_functions(tmp_path / "bundled.jsonl.gz")
    )
    output = tmp_path / "data" / "pairs.jsonl"
    codeio_pairs.main([str(output), "--per-function", "2", "--jobs", "2"])
    shown = capsys.readouterr().out
    assert "8 pairs" in shown
    assert "4 functions: ok" in shown
    assert "1 functions: too long" in shown
    assert [path.name for path in output.parent.iterdir()] == ["pairs.jsonl"]
    task = CodeIOTask(str(output), validation=2, test=2)
    assert len(task.problems("train")) == 4
    assert codeio_pairs.make_pairs(bundled[0], 2, max_chars=10, max_output_chars=1000) == ([], "too long")


def test_reasoning_gyms_functions_are_found():
    functions = codeio_pairs.bundled_functions()
    assert len(functions) > 2000
    assert {"code_sample", "input_generator", "task_description", "input_output_spec"} <= functions[0].keys()


def test_it_is_started_as_messages_say():
    command = [sys.executable, "-m", "fastslow.tasks.codeio_pairs", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("usage: python -m fastslow.tasks.codeio_pairs ")
