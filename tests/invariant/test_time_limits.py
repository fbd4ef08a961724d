"""`task.timeout_s` and `episodes.step_timeout_s` hold for whatever is given from Python, at every door: a call that
never returns masks its rollouts, and the run, or the measurement, ends.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import fastslow
from callers import once
from fastslow.api.objects import merged
from fastslow.errors import InfrastructureError
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.base import Split, Task
from fastslow.types import Problem, Score

from runs import small_config

ROWS = [{"prompt": f"say {number}", "answer": "abcdefgh"[number % 8]} for number in range(24)]
FOR_EVER_S, LIMIT_S = 1e6, 0.3
WHY = "it did not answer within task.timeout_s = 0.3 s"


def sleeps(completions: Sequence[str], **columns: Any) -> list[float]:
    time.sleep(FOR_EVER_S)
    return [0.0] * len(completions)


async def waits(completions: Sequence[str], **columns: Any) -> list[float]:
    await asyncio.sleep(FOR_EVER_S)
    return [0.0] * len(completions)


class Letters(Task):
    """Its scorer never returns."""

    name = "hanging_letters"

    def problems(self, split: Split) -> Sequence[Problem]:
        return [Problem(f"{split}-{n}", ({"role": "user", "content": f"{split} {n}"},)) for n in range(6)]

    def score(self, problem: Problem, completion: str) -> Score:
        time.sleep(FOR_EVER_S)
        return Score(0.5, "Say less.")


class Counter:
    """An environment of TRL's kind whose reward never comes."""

    def reset(self, **columns: Any) -> str:
        return "Count."

    def get_reward(self) -> float:
        time.sleep(FOR_EVER_S)
        return 0.0

    def add(self, step: int) -> int:
        """Add to the counter.

        Args:
            step: what to add
        """
        return step


class Stuck(Counter):
    """One that is never reset."""

    def reset(self, **columns: Any) -> str:
        time.sleep(FOR_EVER_S)
        return ""


def settings(output: Path, **more: Any) -> dict[str, Any]:
    config = small_config(Path("nowhere"), output, steps=1, method="rl", loop={"population_size": 1})
    tree = config.model_dump(mode="json")
    kept = {key: value for key, value in tree.items() if key not in ("model", "task", "fast")}
    changes: dict[str, Any] = {"evaluation": {"every": 0}, "episodes": {"step_timeout_s": LIMIT_S, "max_turns": 2}}
    return merged(kept, {**changes, **more})


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < 300.0


AGENT = "the agent made no call and did not end within 0.3 s"
DOORS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "function": (lambda: {"dataset": ROWS, "reward_funcs": sleeps}, WHY),
    "async function": (lambda: {"dataset": ROWS, "reward_funcs": waits}, WHY),
    "agent": (lambda: {"task": AgentTask(once, Letters())}, AGENT),
    "Task": (lambda: {"task": Letters()}, WHY),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_scorer_that_is_given_and_hangs_masks_its_rollouts(door: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    given, why = DOORS[door]
    more = {"task.timeout_s": LIMIT_S, **settings(tmp_path / "run")}
    with pytest.raises(InfrastructureError, match=f"12 of 12 rollouts of step 1 could not be scored.*: {why}"):
        fastslow.train(model=str(tiny_model_dir), **given(), **more)


def test_in_a_notebook_too(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Where a loop runs already, an async function runs in a thread, which must not be waited for."""
    more = {"task.timeout_s": LIMIT_S, **settings(tmp_path / "run")}

    async def cell() -> None:
        fastslow.train(model=str(tiny_model_dir), dataset=ROWS, reward_funcs=waits, **more)

    with pytest.raises(InfrastructureError, match=f"12 of 12 rollouts of step 1 could not be scored.*: {WHY}"):
        asyncio.run(cell())


@pytest.mark.parametrize(("environment", "asked"), [(Counter, "score"), (Stuck, "start")])
def test_an_environment_class_that_hangs_masks_its_rollouts(
    environment: type, asked: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    options = {"options": {"train": 6, "validation": 2, "test": 0}}
    why = f"the environment's `{asked}` failed: it did not answer within 0.3 s"
    with pytest.raises(InfrastructureError, match=f"12 of 12 rollouts of step 1 could not be scored.*: {why}"):
        fastslow.train(model=str(tiny_model_dir), environment=environment, task=options, **settings(tmp_path / "run"))


def test_a_measurement_ends_as_well(tiny_model_dir: Path) -> None:
    more = {"problems": 2, "k": 1, "sampling": {"max_tokens": 4}, "task.timeout_s": LIMIT_S}
    with pytest.raises(InfrastructureError, match=f"no rollout of the evaluation could be scored.*: {WHY}"):
        fastslow.evaluate(str(tiny_model_dir), dataset=ROWS, reward_funcs=sleeps, **more)
