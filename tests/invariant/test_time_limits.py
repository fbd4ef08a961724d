"""`task.timeout_s` and `episodes.step_timeout_s` hold for whatever is given from Python, at every door: a call that never
returns masks its rollouts, and the run, or the measurement, ends.
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
from fastslow.runs.reader import Run
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.base import Split, Task
from fastslow.types import Problem, Score

from runs import metrics_of, small_config

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
    """Its scorer never returns where a problem's number is odd."""

    name = "hanging_letters"

    def problems(self, split: Split) -> Sequence[Problem]:
        return [Problem(f"{split}-{n}", ({"role": "user", "content": f"{split} {n}"},)) for n in range(6)]

    def score(self, problem: Problem, completion: str) -> Score:
        if int(problem.id.rpartition("-")[2]) % 2:
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
    assert time.monotonic() - begin < 120.0


def failures(run: Path) -> list[Any]:
    return [line["failure"] for lines in Run(run).samples.values() for line in lines]


DOORS: dict[str, Callable[[], dict[str, Any]]] = {
    "function": lambda: {"dataset": ROWS, "reward_funcs": sleeps},
    "async function": lambda: {"dataset": ROWS, "reward_funcs": waits},
    "agent": lambda: {"task": AgentTask(once, Letters())},
    "Task": lambda: {"task": Letters()},
}


@pytest.mark.parametrize("door", DOORS)
def test_a_scorer_that_is_given_and_hangs_masks_its_rollouts(door: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    given = DOORS[door]()
    result = fastslow.train(
        model=str(tiny_model_dir), **given, **{"task.timeout_s": LIMIT_S}, **settings(tmp_path / "run")
    )
    assert result.steps == 1
    why = {reason for reason in failures(tmp_path / "run") if reason}
    assert len(why) == 1 and WHY in why.pop()


def test_in_a_notebook_too(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Where a loop runs already, an async function runs in a thread, which must not be waited for."""

    async def cell() -> None:
        fastslow.train(
            model=str(tiny_model_dir),
            dataset=ROWS,
            reward_funcs=waits,
            **{"task.timeout_s": LIMIT_S},
            **settings(tmp_path / "run"),
        )

    asyncio.run(cell())
    assert set(failures(tmp_path / "run")) == {WHY}


@pytest.mark.parametrize("environment", [Counter, Stuck])
def test_an_environment_class_that_hangs_masks_its_rollouts(
    environment: type, tiny_model_dir: Path, tmp_path: Path
) -> None:
    options = {"options": {"train": 6, "validation": 2, "test": 0}}
    fastslow.train(model=str(tiny_model_dir), environment=environment, task=options, **settings(tmp_path / "run"))
    (line,) = metrics_of(tmp_path / "run")[1:]
    assert line["episodes/environment_timed_out"] == line["rollouts/failed"] == 12


def test_a_measurement_ends_as_well(tiny_model_dir: Path) -> None:
    report = fastslow.evaluate(
        str(tiny_model_dir),
        dataset=ROWS,
        reward_funcs=sleeps,
        problems=2,
        k=1,
        sampling={"max_tokens": 4},
        **{"task.timeout_s": LIMIT_S},
    )
    assert report.rows[0].result.masked == 2
    found = fastslow.evaluate(
        str(tiny_model_dir), task=Letters(), problems=4, k=1, sampling={"max_tokens": 4}, **{"task.timeout_s": LIMIT_S}
    )
    assert found.rows[0].result.masked == 2
