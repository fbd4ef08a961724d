"""docs/tasks.md is run: its new task, its reward functions, and every config that it shows."""

import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from fastslow.tasks.base import check_splits
from fastslow.tasks.registry import build_task, find_factory
from fastslow.tasks.settings import TaskConfig
from fastslow.types import Prompt, Score

DOCS = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
CONFIGS = [
    yaml.safe_load(block)["task"] for block in re.findall(r"^```yaml\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
]
NEW_TASK, _, REWARDS = re.findall(r"^```python\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(NEW_TASK)
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    yield
    for name in ("my_task", "my_rewards"):
        sys.modules.pop(name, None)


def test_the_new_task_has_20_lines_and_works():
    code = [line for line in NEW_TASK.splitlines() if line.strip()]
    assert len(code) <= 20
    task = build_task(TaskConfig.model_validate(CONFIGS[0]))
    assert check_splits(task) == {"train": 500, "validation": 50, "test": 50}
    assert task.seed_prompt == Prompt.of("You are a careful typist.")
    problem = task.problems("train")[0]
    word = problem.messages[0]["content"].split()[1]
    assert len(word) == 5 + 8
    assert task.score(problem, f" {word[::-1]}\n") == Score(1.0, "Correct.")
    assert task.score(problem, word) == Score(0.0, f"The answer is {word[::-1]}.")
    assert task.score(problem, "It is x.").feedback == "Answer with a single word and nothing else."


def test_the_reward_functions_work(tmp_path):
    (tmp_path / "data").mkdir()
    lines = [{"messages": [{"role": "user", "content": str(i)}], "solution": str(i)} for i in range(200, 320)]
    (tmp_path / "data" / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = build_task(TaskConfig.model_validate(next(c for c in CONFIGS if "reward_functions" in c.get("options", {}))))
    problem = task.problems("train")[0]
    right = problem.data["record"]["solution"]
    # 1 + 0.5 * 0.5 of 1.25; 1 of 1.25.
    rewards = [task.score(problem, text).reward for text in (f"{right}, please", right, "no")]
    assert rewards == pytest.approx([1.0, 0.8, 0.0])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["name"])
def test_every_option_shown_exists(config):
    parameters = inspect.signature(find_factory(TaskConfig.model_validate(config).name)).parameters
    assert config["options"].keys() <= parameters.keys()


def test_every_option_of_records_is_explained():
    section = DOCS.split("### `records`")[1]
    for option in inspect.signature(find_factory("records")).parameters:
        assert option in {"seed"} or f"`{option}`" in section or f"{option}:" in section
