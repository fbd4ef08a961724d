"""CodeIO: ready pairs, whole functions a split, JSON compared, nothing run."""

import json

import pytest

from fastslow.errors import TaskError
from fastslow.tasks.base import check_splits
from fastslow.tasks.codeio import RULE, CodeIOTask
from fastslow.types import Problem


def pair(function: int, argument: int) -> dict:
    return {
        "task_description": f"Add {function}.",
        "input_output_spec": "Input: `x` (int). Output: `return` (int).",
        "code_sample": f"def main_solution(x):\n    return x + {function}",
        "input": {"x": argument},
        "output": argument + function,
    }


@pytest.fixture
def pairs(tmp_path):
    return write(tmp_path, [pair(function, argument) for function in range(12) for argument in range(3)])


def write(tmp_path, lines):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def functions(task, split):
    return {problem.messages[0]["content"].split("\n")[2] for problem in task.problems(split)}


def test_no_two_splits_share_a_function(pairs):
    task = CodeIOTask(pairs, validation=4, test=4)
    # 4 pairs are 2 functions of 3, the second one in part; what is left of it goes to no other split.
    assert check_splits(task) == {"train": 24, "validation": 4, "test": 4}
    parts = [functions(task, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [8, 2, 2]
    assert len(set().union(*parts)) == 12
    smaller = CodeIOTask(pairs, train=5, validation=4, test=4)
    assert smaller.problems("test") == task.problems("test")
    assert CodeIOTask(pairs, validation=4, test=4, seed=1).problems("test") != task.problems("test")


def test_the_question_shows_code_and_input_and_not_the_output(tmp_path):
    pairs = [{**pair(function, 7), "input": {"x": 41000 + function}, "output": "the output"} for function in range(12)]
    problems = CodeIOTask(write(tmp_path, pairs), validation=3, test=3).problems("train")
    shown = [problem.messages[0]["content"] for problem in problems]
    for text in shown:
        function = int(text.split("return x + ")[1].split("\n")[0])
        assert f"Add {function}." in text
        assert f"```python\ndef main_solution(x):\n    return x + {function}\n```" in text
        assert text.endswith(f'\n\n{{"x": {41000 + function}}}')
        assert "the output" not in text
    assert len(set(shown)) == 6


@pytest.mark.parametrize(
    ("output", "completion", "reward", "feedback"),
    [
        (3, "3", 1.0, "Correct."),
        (3, "<think>4</think> 3.0", 1.0, "Correct."),
        ({"a": [1, None]}, 'So:\n```json\n{"a": [1, null]}\n```', 1.0, "Correct."),
        (True, "1", 0.0, "The output was 1, the expected one is true."),
        ("3", "3", 0.0, 'The output was 3, the expected one is "3".'),
        (3, "The answer is 3", 0.0, f"{RULE}\nThe expected output is 3."),
        (3, "", 0.0, f"{RULE}\nThe expected output is 3."),
        (3, "[" * 100_000, 0.0, f"{RULE}\nThe expected output is 3."),
        ([1] * 200, "4", 0.0, f"The output was 4, the expected one is {json.dumps([1] * 200)[:200]}...."),
    ],
)
def test_score(pairs, output, completion, reward, feedback):
    score = CodeIOTask(pairs, validation=3, test=3).score(Problem("p", (), {"output": output}), completion)
    assert (score.reward, score.feedback) == (reward, feedback)


def test_a_missing_file_names_the_script(tmp_path):
    with pytest.raises(
        TaskError, match=r"pairs: file '.*none.jsonl' does not exist.*python -m fastslow.tasks.codeio_pairs .*none"
    ):
        CodeIOTask(str(tmp_path / "none.jsonl"))


def test_what_is_wrong_with_a_pairs_file(tmp_path):
    short = {key: value for key, value in pair(1, 1).items() if key != "output"}
    with pytest.raises(TaskError, match="line 2: has no 'output': a pair needs"):
        CodeIOTask(write(tmp_path, [pair(1, 1), short]))
    with pytest.raises(TaskError, match="lines 1 and 3 hold the same function with the same input"):
        CodeIOTask(write(tmp_path, [pair(1, 1), pair(2, 1), pair(1, 1)]))
    with pytest.raises(TaskError, match=r"validation: 3 pairs are asked for, 2 are left"):
        CodeIOTask(write(tmp_path, [pair(1, 1), pair(1, 2), pair(2, 1), pair(2, 2)]), validation=3, test=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_description": None}, "line 2: 'task_description' must hold a text, not None"),
        ({"code_sample": " "}, "line 2: 'code_sample' must hold a text, not ' '"),
        ({"input": [1]}, r"line 2: 'input' must hold the arguments by name, not \[1\]"),
        ({"output": float("nan")}, "line 2: input or output holds NaN or an infinity"),
        ({"output": [1, float("inf")]}, "line 2: input or output holds NaN or an infinity"),
    ],
)
def test_a_pair_that_is_silently_something_else(tmp_path, changes, message):
    with pytest.raises(TaskError, match=message):
        CodeIOTask(write(tmp_path, [pair(1, 1), {**pair(2, 1), **changes}]), validation=0, test=0)
