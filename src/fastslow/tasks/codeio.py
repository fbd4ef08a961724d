"""CodeIO, output prediction: given a problem, its reference code and an input, predict the function's return value.

reasoning-gym bundles the problems (code and input generators, about 3,000) but no input/output pairs: its own dataset
runs the bundled code in the training process each time an item is read. This task runs nothing. It reads ready pairs
from a JSONL file that `python -m fastslow.tasks.codeio_pairs FILE` makes once, in limited subprocesses. One line a
pair: `task_description`, `input_output_spec`, `code_sample`, `input` (an object: the arguments), `output` (any JSON
value). All pairs of one function go to the same split, so that no split knows another's code.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastslow.errors import TaskError
from fastslow.tasks.base import SPLITS, Split, Task
from fastslow.tasks.formats import json_value_text, read_json, same_json, shorten
from fastslow.tasks.sources import read_jsonl
from fastslow.types import Problem, Score

RULE = "Give the output as a single JSON value, bare or as the last ```json block."
FIELDS = ("task_description", "input_output_spec", "code_sample", "input", "output")
QUESTION = """A function is described as follows:

{task_description}

{input_output_spec}

Its code:

```python
{code_sample}
```

Given this input, what does `main_solution` return? Work it out without running any code.

{input}"""


class CodeIOTask(Task):
    """CodeIO output prediction on ready pairs: a JSON value equal to the function's return value, nothing executed."""

    name = "codeio"

    def __init__(
        self, pairs: str, train: int | None = None, validation: int = 200, test: int = 200, seed: int = 0
    ) -> None:
        path = Path(pairs)
        if not path.is_file():
            raise TaskError(
                f"task.options.pairs: file {pairs!r} does not exist. Make it once: python -m "
                f"fastslow.tasks.codeio_pairs {shlex.quote(pairs)}"
            )
        self._splits = _deal(_read(path), {"test": test, "validation": validation, "train": train}, seed)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def reference(self, problem: Problem) -> str | None:
        """The function's output as JSON."""
        return json.dumps(problem.data["output"], ensure_ascii=False)

    def score(self, problem: Problem, completion: str) -> Score:
        """1 where the JSON value equals the function's output, 0 otherwise."""
        right, text = problem.data["output"], json_value_text(completion) or ""
        expected = shorten(json.dumps(right))
        try:
            value = read_json(text)
        except ValueError:
            return Score(0.0, f"{RULE}\nThe expected output is {expected}.")
        if same_json(value, right):
            return Score(1.0, "Correct.")
        return Score(0.0, f"The output was {shorten(text)}, the expected one is {expected}.")


def _read(path: Path) -> dict[str, list[Problem]]:
    """Problems by function."""
    functions: dict[str, list[Problem]] = {}
    seen: dict[str, int] = {}
    for line, record in read_jsonl(path):
        missing = [field for field in FIELDS if field not in record]
        if missing:
            raise TaskError(f"{path}, line {line}: has no {' and no '.join(map(repr, missing))}: a pair needs {FIELDS}")
        for field in FIELDS[:3]:
            if not isinstance(record[field], str) or not record[field].strip():
                raise TaskError(f"{path}, line {line}: {field!r} must hold a text, not {record[field]!r}")
        if not isinstance(record["input"], dict):
            raise TaskError(f"{path}, line {line}: 'input' must hold the arguments by name, not {record['input']!r}")
        try:
            json.dumps([record["input"], record["output"]], allow_nan=False)
        except ValueError:
            raise TaskError(
                f"{path}, line {line}: input or output holds NaN or an infinity, which JSON has not"
            ) from None
        problem = _problem(record)
        if problem.id in seen:
            raise TaskError(f"{path}: lines {seen[problem.id]} and {line} hold the same function with the same input")
        seen[problem.id] = line
        functions.setdefault(_digest(record["code_sample"]), []).append(problem)
    return functions


def _problem(record: Mapping[str, object]) -> Problem:
    shown = json.dumps(record["input"], ensure_ascii=False)
    question = QUESTION.format(**{**{field: record[field] for field in FIELDS}, "input": shown})
    return Problem(
        f"codeio-{_digest(question)[:12]}", ({"role": "user", "content": question},), {"output": record["output"]}
    )


def _deal(
    functions: Mapping[str, list[Problem]], sizes: Mapping[Split, int | None], seed: int
) -> dict[Split, list[Problem]]:
    """Whole functions, in the order of a seeded hash, fill test, validation, then train; None takes all the rest."""
    splits: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
    order = iter(sorted(functions, key=lambda code: _digest(f"{seed}:{code}")))
    for split, size in sizes.items():
        chosen = splits[split]
        while size is None or len(chosen) < size:
            code = next(order, None)
            if code is None:
                break
            chosen.extend(functions[code])
        if size is None:
            continue
        if len(chosen) < size:
            raise TaskError(
                f"task.options.{split}: {size} pairs are asked for, {len(chosen)} are left (test and validation are "
                "dealt first, whole functions at a time): lower the sizes or make more pairs"
            )
        del chosen[size:]
    return splits


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
