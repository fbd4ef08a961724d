"""The configs of experiments/real_model: each passes `--dry-run`, and each arm of it is a config that holds."""

import re
from pathlib import Path

import pytest

from fastslow.config import load_config
from fastslow.experiments.arms import ARMS, arm_parts, check_arms
from fastslow.experiments.parts import Experiment, part_config
from fastslow.plan import describe
from fastslow.reproduce.sections import SHORT_REFLECTIONS
from fastslow.training.build import check

CONFIGS = sorted((Path(__file__).parents[3] / "experiments" / "real_model").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_is_explained_and_each_of_its_arms_holds(path: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    # Fewer problems than a run has: each of them is looked at for each arm.
    few = ["task.options.train=64", "task.options.test=8"]
    config = load_config(path, [f"model.name={tiny_model_dir}", f"output={tmp_path / 'run'}", *few])
    assert f"or {config.max_rollouts} sampled rollouts" in describe(config)
    check_arms(config)
    arm, key, value = re.split("[:=]", SHORT_REFLECTIONS)
    parts = arm_parts(config, list(ARMS), [0], {"rl": {"slow.learning_rate": 1e-4}, arm: {key: int(value)}})
    experiment = Experiment("arms", config.model_dump(mode="json"), tuple(parts))
    made = {part.name: part_config(experiment, part, tmp_path) for part in parts}
    for part in made.values():
        check(part)
    proposer = made["fst-policy-0"].fast.proposer
    assert (proposer.kind, proposer.max_tokens) == ("policy", 256)
    assert made["prompt-rl-0"].slow.learning_rate == 1e-4 != made["fst-0"].slow.learning_rate
    cycles = {name: part.steps for name, part in made.items() if part.method == "prompt"}
    assert cycles == {"prompt-0": 40, "rl-prompt-0": 40, "prompt-rl-0-phase-1": 40}
    assert {part.steps for name, part in made.items() if name not in cycles} == {config.steps} != {40}
    for name, arm in ARMS.items():
        spent = [made[part.name].max_rollouts or 0 for part in parts if part.labels["arm"] == name]
        assert len(spent) == len(arm.phases) and sum(spent) == config.max_rollouts


def test_there_is_a_config_for_each_task() -> None:
    assert {path.stem for path in CONFIGS} == {
        "json", "boxed", "tags", "gsm_symbolic", "letter_counting", "tool_protocol", "star_graph"
    }  # fmt: skip
