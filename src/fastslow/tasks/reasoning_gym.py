"""Any generator of reasoning-gym as a task: `reasoning_gym:<generator>`.

The answer's format is named by the feedback alone, never by the problem, so a strict format is the paper's zero-reward
regime: nothing but the verifier's words leads out of it.
"""

import difflib
import hashlib
import random
from collections.abc import Sequence
from typing import Any

from fastslow.errors import ConfigError, TaskError
from fastslow.tasks.base import SPLITS, Split, Task
from fastslow.tasks.formats import get_format
from fastslow.types import Problem, Score


def import_reasoning_gym() -> Any:
    """The package. Raises ConfigError that names the extra where it is missing."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError("task.name: reasoning-gym is not installed: pip install 'fastslow[tasks]'") from error
    return reasoning_gym


class ReasoningGymTask(Task):
    """Problems of one generator, judged by its own verifier.

    Splits are disjoint ranges of one dataset's indices with repeated questions left out: seeds of their own would let the
    splits share questions. `exact` gives no partial credit.
    """

    def __init__(
        self,
        generator: str,
        params: dict[str, Any] | None = None,
        answer_format: str = "plain",
        train: int = 2000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
        exact: bool = True,
    ) -> None:
        self.name = f"reasoning_gym:{generator}"  # type: ignore[misc]
        self.format = get_format(answer_format)
        self.exact = exact
        self.sizes: dict[Split, int] = {"test": test, "validation": validation, "train": train}
        self.generator = generator
        # Half as many again as are needed, since repeated questions are left out.
        self._dataset = _create(generator, {**(params or {}), "seed": seed, "size": 2 * sum(self.sizes.values()) + 50})
        self._splits = self._split()

    def problems(self, split: Split) -> Sequence[Problem]:
        return self._splits[split]

    def score(self, problem: Problem, completion: str) -> Score:
        answer = self.format.extract(completion)
        if answer is None:
            return Score(0.0, self.format.rule)
        entry = problem.data["entry"]
        reward = min(1.0, max(0.0, float(self._dataset.score_answer(answer, entry))))
        if reward == 1.0:
            return Score(1.0, "Correct.")
        feedback = f"The answer was {_short(answer)}, the correct one is {_short(str(entry['answer']))}."
        return Score(0.0 if self.exact else reward, feedback)

    def _split(self) -> dict[Split, list[Problem]]:
        splits: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
        wanted = [split for split, size in self.sizes.items() for _ in range(size)]
        seen: set[str] = set()
        for index in range(len(self._dataset)):
            if len(seen) == len(wanted):
                break
            entry = _entry(self._dataset, index)
            key = hashlib.sha256(entry["question"].encode()).hexdigest()[:12]
            if key not in seen:
                split = wanted[len(seen)]
                seen.add(key)
                messages = ({"role": "user", "content": entry["question"]},)
                splits[split].append(Problem(f"{self.generator}-{key}", messages, {"entry": entry}))
        if len(seen) < len(wanted):
            raise TaskError(
                f"task {self.name!r} has only {len(seen)} different questions with these params, {len(wanted)} are asked "
                f"for (train + validation + test): lower the sizes or widen the params"
            )
        return splits


def _create(generator: str, params: dict[str, Any]) -> Any:
    package = import_reasoning_gym()
    known = package.factory.DATASETS
    if generator not in known:
        close = difflib.get_close_matches(generator, known, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise TaskError(f"task.name: reasoning-gym has no generator {generator!r}.{hint}")
    try:
        return package.create_dataset(generator, **params)
    except (TypeError, ValueError, AssertionError) as error:
        raise TaskError(f"task.options.params: reasoning-gym's {generator} does not take {params}: {error}") from error


def _entry(dataset: Any, index: int) -> dict[str, Any]:
    """One item. Some generators draw from the global random state, which must neither steer them nor be disturbed."""
    state = random.getstate()
    random.seed(index)
    try:
        entry: dict[str, Any] = dataset[index]
    finally:
        random.setstate(state)
    return entry


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
