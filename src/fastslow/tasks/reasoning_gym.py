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
from fastslow.tasks.formats import get_format, shorten
from fastslow.tasks.guards import RULE as PLAIN_RULE
from fastslow.tasks.guards import safe_for
from fastslow.types import Problem, Score

REFUSED = {
    "codeio": "it runs its bundled code in this process; take the task 'codeio'",
    "coin_flip": "its verifier gives full marks to '0' for every probability below 1",
    "composite": "it is made of other generators; name one of them",
    "game_of_life_halting": "its verifier gives full marks to any text where the answer is False",
}


def import_reasoning_gym() -> Any:
    """The package. Raises ConfigError that names the extra where it is missing."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError("task.name: reasoning-gym is not installed: pip install 'fastslow[tasks]'") from error
    return reasoning_gym


class ReasoningGymTask(Task):
    """Problems of one generator, judged by its own verifier.

    Splits are disjoint ranges of one dataset's indices with repeated questions left out: seeds of their own
    would let the splits share questions. Questions whose own answer the guards refuse are left out too. `exact`
    gives no partial credit.
    """

    def __init__(
        self,
        generator: str,
        params: dict[str, object] | None = None,
        answer_format: str = "plain",
        train: int = 2000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
        exact: bool = True,
    ) -> None:
        self.name = f"reasoning_gym:{generator}"
        self.format = get_format(answer_format)
        self.exact = exact
        self.sizes: dict[Split, int] = {"test": test, "validation": validation, "train": train}
        self.generator = generator
        # Twice as many as are needed, since repeated questions are left out.
        self._dataset = _create(generator, {**(params or {}), "seed": seed, "size": 2 * sum(self.sizes.values()) + 50})
        self._splits = self._split()

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def reference(self, problem: Problem) -> str | None:
        """The generator's answer; several generators have none, and only judge."""
        answer = problem.data["entry"]["answer"]
        return None if answer is None else str(answer)

    def score(self, problem: Problem, completion: str) -> Score:
        """The generator's own verdict on the extracted answer, in [0, 1]; 0 or 1 where only exact answers count."""
        answer = self.format.extract(completion)
        if answer is None:
            return Score(0.0, self.format.rule)
        if not safe_for(self.generator, answer):
            return Score(0.0, PLAIN_RULE)
        entry = problem.data["entry"]
        reward = self._judge(answer, entry)
        if reward == 1.0:
            return Score(1.0, "Correct.")
        right = entry["answer"]
        verdict = "it is not correct" if right is None else f"the correct one is {shorten(str(right))}"
        return Score(0.0 if self.exact else reward, f"The answer was {shorten(answer)}, {verdict}.")

    def _judge(self, answer: str, entry: dict[str, object]) -> float:
        """The verifier's verdict, clipped to [0, 1]; 0 where it trips over the answer.

        Verifiers are pure, and several raise on an answer of the wrong shape: that is a wrong answer. Where one raises
        on the right answer as well, it is the verifier that is broken, and the exception goes through.
        """
        try:
            reward = float(self._dataset.score_answer(answer, entry))
        except (ImportError, MemoryError, OSError):
            raise
        except Exception:
            right = entry["answer"]
            self._dataset.score_answer("" if right is None else str(right), entry)
            return 0.0
        return min(1.0, max(0.0, reward))

    def _split(self) -> dict[Split, list[Problem]]:
        splits: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
        wanted = [split for split, size in self.sizes.items() for _ in range(size)]
        seen: set[str] = set()
        for index in range(len(self._dataset)):
            if len(seen) == len(wanted):
                break
            entry = _entry(self._dataset, index)
            key = hashlib.sha256(entry["question"].encode()).hexdigest()[:12]
            if key not in seen and safe_for(self.generator, str(entry["answer"])):
                split = wanted[len(seen)]
                seen.add(key)
                messages = ({"role": "user", "content": entry["question"]},)
                splits[split].append(Problem(f"{self.generator}-{key}", messages, {"entry": entry}))
        if len(seen) < len(wanted):
            raise TaskError(
                f"task {self.name!r} has only {len(seen)} different questions with these params, {len(wanted)} are "
                "asked for (train + validation + test): lower the sizes or widen the params"
            )
        return splits


def _create(generator: str, params: dict[str, object]) -> Any:
    package = import_reasoning_gym()
    known = package.factory.DATASETS
    if generator not in known:
        close = difflib.get_close_matches(generator, known, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(f"task.name: reasoning-gym has no generator {generator!r}.{hint}")
    if generator in REFUSED:
        raise ConfigError(f"task.name: 'reasoning_gym:{generator}' is not on offer: {REFUSED[generator]}")
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


def list_generators() -> list[tuple[str, str]]:
    """Name and one line of every generator on offer, sorted. Raises ConfigError where the package is missing."""
    known = import_reasoning_gym().factory.DATASETS
    return [(name, _describe(name, *known[name])) for name in sorted(known) if name not in REFUSED]


def _describe(name: str, *classes: type) -> str:
    for documented in classes:
        line = (documented.__doc__ or "").strip().split("\n")[0].strip().removeprefix("Configuration for ")
        # A dataclass without a docstring gets its signature for one.
        if line and not line.startswith(f"{documented.__name__}("):
            return line[0].upper() + line[1:]
    return name.replace("_", " ").capitalize()
