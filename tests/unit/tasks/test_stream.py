"""A stream of tasks: stages, problems, scores, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError, TaskError
from fastslow.loop import train
from fastslow.runs.reader import read_candidates
from fastslow.tasks.base import check_splits
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.tasks.stream import StreamTask
from fastslow.training.build import check
from fastslow.training.observer import SilentObserver
from fastslow.types import Prompt

from runs import metrics_of, record_of, small_config

AMBER = {"name": "lab", "options": {"world": "amber", "train": 24, "validation": 8, "test": 8}}
FIR = {"name": "lab", "options": {"world": "fir", "train": 24, "validation": 8, "test": 8}}
LETTERS = {"name": "toy:LettersTask"}


def test_tasks_take_turns_and_the_last_goes_on() -> None:
    stream = StreamTask([AMBER, FIR], steps=10)
    assert [stream.stage(step).task.name for step in (0, 9, 10, 19, 20, 500)] == ["lab-amber"] * 2 + ["lab-fir"] * 4
    assert [stream.stage(step).first_step for step in (0, 9, 10, 500)] == [0, 0, 10, 10]
    assert [part.name for part in stream.parts] == ["lab-amber", "lab-fir"]


def test_a_task_may_come_again() -> None:
    stream = StreamTask([AMBER, FIR, AMBER], steps=10)
    assert [stream.stage(step).task.name for step in (0, 10, 20)] == ["lab-amber", "lab-fir", "lab-amber"]
    assert [stream.stage(step).first_step for step in (0, 10, 20)] == [0, 10, 20]
    assert [part.name for part in stream.parts] == ["lab-amber", "lab-fir"]
    assert check_splits(stream) == {"train": 48, "validation": 16, "test": 16}


def test_problems_are_those_of_all_tasks_and_each_is_scored_by_its_own() -> None:
    stream = StreamTask([AMBER, FIR], steps=10)
    assert check_splits(stream) == {"train": 48, "validation": 16, "test": 16}
    amber, fir = stream.problems("train")[0], stream.problems("train")[-1]
    scores = stream.score_batch([fir, amber, fir], ["x", "y", "z"])
    assert scores == [
        stream.tasks[1].score(fir, "x"),
        stream.tasks[0].score(amber, "y"),
        stream.tasks[1].score(fir, "z"),
    ]
    assert stream.score(fir, "x") == stream.tasks[1].score(fir, "x")
    assert stream.messages(amber, Prompt.of("p")) == stream.tasks[0].messages(amber, Prompt.of("p"))


def test_a_seed_prompt_of_the_config_holds_for_every_task() -> None:
    config = TaskConfig(name="stream", options={"tasks": [AMBER, FIR], "steps": 10}, seed_prompt="Hello.")
    stream = build_task(config)
    assert stream.seed_prompt == Prompt.of("Hello.")
    assert stream.stage(15).task.name == "lab-fir"
    assert stream.stage(15).task.seed_prompt == Prompt.of("Hello.")
    assert [part.name for part in stream.parts] == ["lab-amber", "lab-fir"]


@pytest.mark.parametrize(
    ("tasks", "steps", "message"),
    [
        ([], 5, "a stream needs tasks"),
        ([AMBER], 0, "steps >= 1"),
        ([AMBER, {**AMBER, "options": {"world": "amber"}}], 5, "'lab-amber' stands for two tasks that differ"),
        ([{"nam": "lab"}], 5, r"task\.options\.tasks: name: Field required.*write each task as"),
        ([AMBER, LETTERS], 5, "one and the same seed prompt"),
    ],
)
def test_what_makes_no_stream_is_refused(tasks: list[dict[str, object]], steps: int, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        StreamTask(tasks, steps)


def stream_config(model: Path, output: Path, steps: int = 2, **changes: object) -> object:
    first = {"name": "toy:LettersTask", "options": {"train": 12}}
    second = {"name": "toy:OtherLettersTask", "options": {"train": 12}}
    task = {"name": "stream", "options": {"tasks": [first, second], "steps": steps}}
    return small_config(model, output, task=task, steps=4, **changes)


def test_a_task_that_would_change_in_the_middle_of_a_cycle_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.options\.steps: 3 steps.*multiple of loop\.steps_per_cycle, 2"):
        check(stream_config(tiny_model_dir, tmp_path / "run", steps=3))


def test_a_run_goes_from_task_to_task_and_measures_each(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(stream_config(tiny_model_dir, tmp_path / "run", evaluation={"every": 1}, rollout_samples=64))
    samples = {
        step: (tmp_path / "run" / "rollouts" / f"step_{step}.jsonl").read_text(encoding="utf-8") for step in range(1, 5)
    }
    assert ["other-letters" in samples[step] for step in range(1, 5)] == [False, False, True, True]
    lines = metrics_of(tmp_path / "run")
    for line in lines:
        current = "letters" if line["step"] <= 2 else "other-letters"
        assert line["val/mean@2"] == line[f"val/{current}/mean@2"]
    assert lines[-1]["val/letters/mean@2"] is not None


@pytest.mark.parametrize("stop", [None, 4])
def test_a_task_that_comes_back_finds_its_own_prompts(tiny_model_dir: Path, tmp_path: Path, stop: int | None) -> None:
    config = stream_config(tiny_model_dir, tmp_path / "run", evaluation={"every": 1})
    options = config.task.options
    config = config.model_copy(
        update={
            "steps": 6,
            "seed": 1,  # at which the two searches leave different prompts
            "task": config.task.model_copy(
                update={"options": {**options, "tasks": [*options["tasks"], options["tasks"][0]]}}
            ),
        }
    )
    left = {}

    class Watching(SilentObserver):
        def on_event(self, kind: str, payload: dict[str, Any]) -> None:
            if kind == "cycle":
                left[payload["cycle"]] = [prompt.hash for prompt in payload["population"]]

    if stop is not None:
        train(config.model_copy(update={"steps": stop}), observer=Watching())
    train(config, resume=tmp_path / "run" if stop is not None else None, observer=Watching())
    library = json.loads((tmp_path / "run" / "library.json").read_text(encoding="utf-8"))
    assert {task: [item["hash"] for item in kept] for task, kept in library.items()} == {
        "letters": left[1],
        "other-letters": left[2],
    }
    # The third search began with the prompts of the first phase, not with those of the second.
    begun = [
        line["hash"] for line in read_candidates(tmp_path / "run") if line["cycle"] == 3 and line["parent"] is None
    ]
    assert set(begun) == set(left[1])
    assert set(left[1]) != set(left[2])
    lines = metrics_of(tmp_path / "run")
    assert [line.get("val/letters/own/mean@2") is not None for line in lines] == [False] * 3 + [True] * 2 + [False] * 2
    assert [line.get("val/other-letters/own/mean@2") is not None for line in lines] == [False] * 5 + [True] * 2


def test_a_stream_that_is_resumed_is_the_uninterrupted_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    # An evaluation each step: a run that is told to end early measures its last step.
    changes = {"fast": {"max_backoff": 2}, "evaluation": {"every": 1}}
    train(stream_config(tiny_model_dir, tmp_path / "whole", **changes))
    cut = stream_config(tiny_model_dir, tmp_path / "cut", **changes)
    train(cut.model_copy(update={"steps": 2}))
    train(cut, resume=tmp_path / "cut")
    assert record_of(tmp_path / "whole") == record_of(tmp_path / "cut")
