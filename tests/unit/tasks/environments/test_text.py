"""Text environments with init and step: turns, sums of rewards, words, what breaks; and one of SkyRL-gym's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError
from fastslow.fast.transcript import turns_of
from fastslow.tasks.base import Task
from fastslow.tasks.environments.text import GO_ON, TextEnvironmentTask
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.testing.episodes import check_episodes
from fastslow.testing.tasks import check_task
from fastslow.types import Rollout
from speaker import Speaker, roll

SIZES = {"train": 8, "validation": 3, "test": 3}
PATH = "text_environments:CountDown"


def task_of(**options: Any) -> Task:
    return build_task(TaskConfig(name="text_environment", options={"environment": PATH, **options}))


def rows(path: Path, start: int = 3) -> str:
    path.write_text("".join(json.dumps({"prompt": f"{i}. ", "from": start}) + "\n" for i in range(6)))
    return str(path)


def from_rows(tmp_path: Path, **options: Any) -> Task:
    return task_of(data=rows(tmp_path / "rows.jsonl"), splits={"train": "rest", "validation": 1}, **options)


def one(task: Task, *texts: str) -> Rollout:
    return roll(Speaker(*texts), task)[0][0]


def test_the_suite_for_authors_passes(tmp_path: Path) -> None:
    check_task(task_of(**SIZES), again=task_of(**SIZES))
    task = from_rows(tmp_path, env_config={"bonus": 0.25})
    check_task(task, again=from_rows(tmp_path, env_config={"bonus": 0.25}))
    check_episodes(task, plays=lambda problem: ["3", "2", "1"])


def test_turns_rewards_and_words(tmp_path: Path) -> None:
    task = from_rows(tmp_path)
    number = task.problems("train")[0].messages[0]["content"]
    rollout = one(task, "3", "hm", "2", "1")
    assert (rollout.reward, rollout.end) == (0.75, "done")
    assert turns_of(rollout)[:5] == (
        ("user", f"{number}Count down from 3 to 1."),
        ("assistant", "3"),
        ("user", "Right."),
        ("assistant", "hm"),
        ("user", GO_ON),
    )
    assert one(task, "x").feedback == "Say one number and nothing else."
    assert one(task, "3", "2", "1").feedback == "reward: 0.75"


def test_the_sum_is_mapped_and_one_outside_is_masked(tmp_path: Path) -> None:
    assert one(from_rows(tmp_path, reward_range=[0.0, 1.5]), "3", "2", "1").reward == 0.5
    task = from_rows(tmp_path, env_config={"bonus": 9.0})
    rollout = one(task, "3", "2", "1")
    assert rollout.reward is None and "task.options.reward_range" in str(rollout.failure)


@pytest.mark.parametrize(("text", "words"), [("crash", "the server is gone"), ("nonsense", "without 'reward'")])
def test_an_environment_that_breaks_masks_the_rollout(text: str, words: str, tmp_path: Path) -> None:
    rollout = one(from_rows(tmp_path), "3", text)
    assert rollout.reward is None and rollout.end == "failed" and words in str(rollout.failure)


def test_what_it_draws_is_the_problems_own_and_it_is_closed_once() -> None:
    task: Any = task_of(**SIZES)
    openings = []
    for problem in [*task.problems("train"), *task.problems("train")]:
        episode = task.episode(problem, task.seed_prompt)
        openings.append(episode.start()[-1]["content"])
        episode.close()
        assert episode.environment.closed == 1
    assert openings[:8] == openings[8:] and len(set(openings)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": "text_environments:Gone"}, "task.options.environment: 'text_environments:Gone' cannot be"),
        ({"environment": "json:JSONDecoder"}, "'JSONDecoder' has no method `init`"),
        ({"environment": "json:__all__"}, "name a class"),
        ({"reward_range": [1.0, 0.0]}, r"reward_range: \[1.0, 0.0\] must be"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_loads(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of(**options)


def test_an_environment_of_skyrl_gym_runs_unchanged(tmp_path: Path) -> None:
    pytest.importorskip("skyrl_gym")
    path = tmp_path / "rows.jsonl"
    record = {"prompt": [{"role": "user", "content": "1 + 1?"}], "reward_spec": {"ground_truth": "2"}, "max_turns": 3}
    path.write_text("".join(json.dumps({**record, "number": i}) + "\n" for i in range(4)))
    task = TextEnvironmentTask(
        "skyrl_gym.envs.gsm8k.multi_turn_env:GSM8kMultiTurnEnv",
        data=str(path),
        splits={"train": "rest", "validation": 1},
        reward_range=[0.0, 1.2],
    )
    rollout = roll(Speaker("#### 3", "#### 2"), task)[0][0]
    assert len(rollout.turns) == 2 and rollout.reward == pytest.approx((1.0 + 0.2 / 3) / 1.2)
    assert "#### ANSWER" in rollout.turns[1].messages[0]["content"]
