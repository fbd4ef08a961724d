"""Classes written for TRL's environment_factory: TRL's own conversation, rewards, isolation, what breaks, a run."""

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import fastslow
from fastslow.errors import ConfigError, TaskError
from fastslow.fast.transcript import feedback_of, turns_of
from fastslow.tasks.base import Task
from fastslow.tasks.registry import build_task
from fastslow.tasks.settings import TaskConfig
from fastslow.tasks.tool_calls import write_call
from fastslow.testing.tasks import check_task
from fastslow.types import Prompt, Rollout
from speaker import Speaker, roll

from runs import record_of, small_config

FIXTURE = Path(__file__).parents[3] / "fixtures" / "trl"
SIZES = {"train": 8, "validation": 3, "test": 3}
TARGETS = [{"prompt": f"Count to {i}.", "target": i} for i in range(1, 9)]
STEP = write_call("increment", {"step": 1})


def recorded() -> Any:
    """The script that recorded TRL's conversation."""
    spec = importlib.util.spec_from_file_location("record_trl", FIXTURE / "record_trl.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def task_of(**options: Any) -> Task:
    if "data" not in options:
        options = {**SIZES, **options}
    return build_task(TaskConfig(name="environment", options=options))


def on_file(path: Path, rows: list[dict[str, Any]], **options: Any) -> Task:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"environment": "trl_environments:TargetEnv", "splits": {"train": "rest", "validation": 1}} | options
    return task_of(data=str(path), **options)


def one(engine: Speaker, task: Task, index: int = 0, **settings: Any) -> Rollout:
    return roll(engine, task, problems=index + 1, **settings)[index][0]


# -- beside TRL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parser", [True, False], ids=["the tokenizer's own parser", "ours"])
@pytest.mark.parametrize("number", range(4))
def test_the_conversation_is_the_one_that_trls_trainer_has(number: int, parser: bool, tmp_path: Path) -> None:
    script = recorded()
    trl = json.loads((FIXTURE / "conversation.json").read_text())
    assert trl["trl"] == "1.16.0"
    rows = [{**row, "prompt": row["prompt"][1:]} for row in script.ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = task_of(
        environment={"count": "trl_environments:CountToEnv", "target": "trl_environments:TargetEnv"},
        data={"train": str(tmp_path / "rows.jsonl")},
        reward_functions=["trl_environments:brief"],
        reward_range=[0.0, 2.0],
    ).with_seed_prompt(Prompt.of(script.SYSTEM))
    engine = Speaker(*script.SCRIPTS[number], template=script.TEMPLATE)
    if parser:
        engine.tokenizer.response_template = script.RESPONSE  # type: ignore[attr-defined]
    rollout = one(engine, task, number // 2)
    assert rollout.failure is None and rollout.forks == 0
    assert list(rollout.turns[0].context_tokens) == trl["prompt_ids"][number]
    whole = list(rollout.turns[-1].tokens)
    assert whole[len(trl["prompt_ids"][number]) :] == trl["completion_ids"][number]
    mask = [0] * len(whole)
    for turn in rollout.turns:
        start = len(turn.context_tokens)
        mask[start : len(turn.tokens)] = [1] * len(turn.completion.tokens)
    assert mask[len(trl["prompt_ids"][number]) :] == trl["tool_mask"][number]
    assert rollout.reward == trl["rewards"][number] / 2


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IncrementEnv", "own data"])
def test_the_suite_for_authors_passes(name: str, tmp_path: Path) -> None:
    made = [
        on_file(tmp_path / "rows.jsonl", TARGETS)
        if name == "own data"
        else task_of(environment=f"trl_environments:{name}")
        for _ in range(2)
    ]
    check_task(made[0], again=made[1])


def test_what_an_environment_draws_comes_from_its_problem_and_splits_share_no_seed() -> None:
    task, other = (
        task_of(environment="trl_environments:IncrementEnv"),
        task_of(environment="trl_environments:IncrementEnv", seed=1),
    )
    seeds = [p.data["seed"] for split in SIZES for t in (task, other) for p in t.problems(split)]  # type: ignore[arg-type]
    assert len(set(seeds)) == len(seeds) == 28

    def asked(problem: Any) -> str:
        episode = task.episode(problem, task.seed_prompt)
        text = episode.start()[-1]["content"]
        episode.close()
        return text

    first = [asked(problem) for problem in task.problems("train")]
    assert len(set(first)) > 2
    assert [asked(problem) for problem in reversed(task.problems("train"))] == first[::-1]
    found: dict[int, list[str]] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: [asked(p) for p in task.problems("train")]}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [first] * 4


def test_the_seeded_random_is_the_real_one_elsewhere() -> None:
    import random

    import trl_environments

    task_of(environment="trl_environments:IncrementEnv")
    assert trl_environments.random is not random
    assert trl_environments.random.Random is random.Random
    random.seed(5)
    first = trl_environments.random.random()
    random.seed(5)
    assert first == random.random()


def test_an_environment_and_its_tools_are_of_the_problems_kind() -> None:
    task = task_of(
        environment={"coding": "trl_environments:CodingEnv", "count": "trl_environments:IncrementEnv"},
        reward_functions=["trl_environments:brief"],
        reward_range=[0.0, 2.0],
    )
    problems = task.problems("train")
    assert {problem.kind for problem in problems} == {"coding", "count"}
    tools = {p.kind: [t["function"]["name"] for t in task.episode(p, task.seed_prompt).tools] for p in problems}  # type: ignore[index]
    assert tools == {"coding": ["run_code"], "count": ["increment"]}
    index = [problem.kind for problem in problems].index("coding")
    rollout = one(Speaker(write_call("run_code", {"code": "x"}), "ok"), task, index)
    assert rollout.turns[1].messages == ({"role": "tool", "name": "run_code", "content": "ran 1 characters"},)
    assert (rollout.reward, rollout.feedback) == (0.5, "brief: 1")


# -- words and rewards -------------------------------------------------------------------------------------------------


def test_feedback_refused_calls_and_the_opening_reach_reflection(tmp_path: Path) -> None:
    task = on_file(tmp_path / "rows.jsonl", TARGETS)
    rollout = one(Speaker(write_call("increment", {"step": 7}), "I give up."), task)
    assert rollout.reward == 0.0
    assert feedback_of(rollout).splitlines() == ["Stop at the target.", "a step is 1 to 3"]
    spoken = turns_of(rollout)
    target = task.problems("train")[0].data["row"]["target"]
    assert spoken[0] == ("user", f"Count to {target}. The target is {target}.")
    assert ("tool", "{'error': 'a step is 1 to 3'}") in spoken


def test_feedback_of_an_earlier_episode_is_not_told_again(tmp_path: Path) -> None:
    class Forgets:
        def reset(self, **row: Any) -> None:
            self.tried = 0

        def get_reward(self) -> float:
            if self.tried:
                self.feedback = "Do not try."
            return 0.5

        def attempt(self) -> int:
            """Try it."""
            self.tried += 1
            return self.tried

    task = fastslow_task(Forgets)
    attempt = write_call("attempt", {})
    assert one(Speaker(attempt, "done"), task).feedback == "Do not try."
    assert one(Speaker("done"), task).feedback == "get_reward: 0.5"


def fastslow_task(made: type, **options: Any) -> Task:
    from fastslow.tasks.environments.trl import EnvironmentTask

    return EnvironmentTask(made, **{**SIZES, **options})


def test_a_reward_outside_the_range_is_masked_and_the_option_is_named(tmp_path: Path) -> None:
    task = on_file(tmp_path / "rows.jsonl", TARGETS, reward_range=[0.0, 0.5])
    target = task.problems("train")[0].data["row"]["target"]
    rollout = one(Speaker(*[STEP] * target, "done"), task)
    assert rollout.reward is None and "task.options.reward_range" in str(rollout.failure)
    task = on_file(tmp_path / "rows.jsonl", TARGETS, reward_range=[-1.0, 1.0])
    assert one(Speaker("done"), task).reward == 0.5


def test_rounds_of_tools_have_a_limit_after_which_the_episode_is_scored(tmp_path: Path) -> None:
    rows = [{"prompt": f"Count to 2, {i}.", "target": 2} for i in range(3)]
    task = on_file(tmp_path / "rows.jsonl", rows, max_tool_rounds=2)
    rollout = one(Speaker(STEP), task)
    assert (len(rollout.turns), rollout.end, rollout.reward) == (3, "done", 1.0)


# -- what breaks -------------------------------------------------------------------------------------------------------


def test_an_environment_that_breaks_masks_its_rollout_and_its_instance_is_never_used_again(tmp_path: Path) -> None:
    rows = [{"prompt": f"Count to 6, {i}.", "target": 6} for i in range(3)]
    task: Any = on_file(tmp_path / "rows.jsonl", rows)
    pool = task.pools[""]
    first = pool.sample
    broken = one(Speaker(write_call("increment", {"step": 3})), task)
    assert broken.reward is None and "the counter is jammed" in str(broken.failure)
    assert pool._free == []
    fine = one(Speaker(write_call("increment", {"step": 3}), write_call("increment", {"step": 2}), "5"), task)
    assert fine.reward == 0.0
    assert len(pool._free) == 1 and pool._free[0] is not first
    one(Speaker("x"), task)
    assert len(pool._free) == 1


def test_an_instance_that_hangs_is_left_behind_even_where_it_answers_later() -> None:
    class Slow:
        def reset(self, **row: Any) -> None: ...

        def get_reward(self) -> float:
            return 1.0

        def wait(self) -> str:
            """Wait."""
            woken.wait(10)
            return "awake"

    woken = threading.Event()
    task: Any = fastslow_task(Slow)
    rollout = one(Speaker(write_call("wait", {})), task, step_timeout_s=0.2)
    assert (rollout.end, rollout.reward) == ("timed_out", None)
    woken.set()
    assert task.pools[""]._free == []
    assert one(Speaker("done"), task).reward == 1.0


class NoReset:
    """No environment."""


class Untyped:
    def reset(self, **row: Any) -> None: ...

    def get_reward(self) -> float:
        return 0.0

    def act(self, what):  # type: ignore[no-untyped-def]
        """Act."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": "trl_environments:NoSuch"}, "task.options.environment: 'trl_environments:NoSuch' cannot be"),
        ({"environment": "trl_environments:CodingEnv"}, "nothing gives a reward: write a method `get_reward`"),
        ({"environment": NoReset, "reward_functions": ["trl_environments:brief"]}, "has no method `reset`"),
        ({"environment": lambda: 1 / 0}, "the environment cannot be made: ZeroDivisionError"),
        ({"environment": Untyped}, "tool 'act'.*It needs type hints"),
        ({"environment": {}}, "names no environment"),
        ({"environment": "trl_environments:IncrementEnv", "max_tool_rounds": 0}, "max_tool_rounds: 0"),
        ({"environment": "trl_environments:IncrementEnv", "test": 200_000}, "task.options.test: 200000 problems"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_loads(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, TaskError), match=message):
        task_of(**options)


def test_rows_that_are_wrong_are_named(tmp_path: Path) -> None:
    two = {"a": "trl_environments:IncrementEnv", "b": "trl_environments:CountToEnv"}
    with pytest.raises(TaskError, match=r"line 1: column 'environment' holds None: one of a, b is needed"):
        on_file(tmp_path / "rows.jsonl", TARGETS, environment=two)
    with pytest.raises(TaskError, match=r"line 1: column 'prompt' ends with the role 'assistant'"):
        on_file(tmp_path / "rows.jsonl", [{"prompt": [{"role": "assistant", "content": "x"}], "target": 1}])
    with pytest.raises(TaskError, match=r"line 1: column 'prompt' holds half of a character"):
        on_file(tmp_path / "rows.jsonl", [{"prompt": "\ud800", "target": 1}])


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_from_a_config_and_the_same_run_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": "environment", "options": {"environment": "trl_environments:IncrementEnv", **SIZES, "train": 12}}
    runs = []
    for name in ("a", "b"):
        config = small_config(
            tiny_model_dir, tmp_path / name, task=task, steps=2, method="rl", episodes={"max_turns": 2},
            loop={"group_size": 2, "problems_per_step": 2}, evaluation={"every": 0},
        )  # fmt: skip
        assert fastslow.train(config).metrics["episodes/turns"] >= 1.0
        runs.append(record_of(tmp_path / name))
    assert runs[0] == runs[1]
