"""`fastslow experiment arms` and `tune` with a tiny model: two phases, equal rollouts, the tables."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastslow
from fastslow.cli.main import main
from fastslow.errors import ConfigError
from fastslow.experiments.arms import ARMS

from runs import small_config

BUDGET = 60


@pytest.fixture()
def config(tiny_model_dir: Path, tmp_path: Path) -> Path:
    tree = small_config(tiny_model_dir, tmp_path / "unused").model_dump(mode="json")
    tree |= {"steps": 20, "max_rollouts": BUDGET, "distill": {"prompt": "evolve", "cycles": 1}}
    tree |= {"evaluation": {"every": 2, "problems": 4, "k": 1, "kl_problems": 2}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def lines_of(directory: Path) -> dict[str, dict[str, Any]]:
    lines = (directory / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["part"]: line for line in map(json.loads, lines)}


@pytest.mark.slow
def test_arms_of_two_phases_spend_one_budget_and_stand_in_the_tables(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "arms"
    arguments = ["experiment", "arms", str(config), "--output", str(out), "--seeds", "1"]
    arguments += ["--methods", "fst", "rl-prompt", "prompt-rl", "--method-set", "rl:slow.learning_rate=0.02"]
    assert main(arguments) == 0
    lines = lines_of(out)
    assert list(lines) == ["fst-0", "rl-prompt-0-phase-1", "rl-prompt-0", "prompt-rl-0-phase-1", "prompt-rl-0"]
    assert [lines[part]["settings"]["max_rollouts"] for part in lines] == [60, 45, 15, 15, 45]
    assert [lines[part]["settings"].get("slow.learning_rate") for part in lines] == [None, 0.02, None, None, 0.02]
    # The second phase has the first one's best prompt, or its weights.
    prompt = lines["prompt-rl-0-phase-1"]["prompt"]
    second = yaml.safe_load((out / "prompt-rl-0" / "config.yaml").read_text(encoding="utf-8"))
    assert second["task"]["seed_prompt"] == {"system": prompt} and lines["prompt-rl-0"]["prompt"] == prompt
    second = yaml.safe_load((out / "rl-prompt-0" / "config.yaml").read_text(encoding="utf-8"))
    assert "rl-prompt-0-phase-1/checkpoints/step_" in second["model"]["name"]
    # Its KL is that to the model which the first phase began with, and its seed prompt is the task's.
    measured = lines["rl-prompt-0"]["measures"]
    assert measured["own prompt"]["kl"]["mean"] > 0
    assert lines["prompt-rl-0"]["measures"]["seed prompt"]["prompt"]["components"] == {"system": "go"}
    text = (out / "README.md").read_text(encoding="utf-8")
    for name in ("fst", "rl-prompt", "prompt-rl"):
        assert f"| {ARMS[name].title} | 1 |" in text
    assert "Less FST, seed by seed" in text and (out / "arms.png").is_file()
    before = (out / "results.jsonl").read_bytes()
    assert main(arguments) == 0
    assert (out / "results.jsonl").read_bytes() == before


@pytest.mark.slow
def test_rates_are_searched_on_another_task_and_the_table_says_which_and_at_what_cost(
    config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tune"
    second = ["--second", "task.name=toy:OtherLettersTask"]
    arguments = ["experiment", "tune", str(config), "--output", str(out), "--seeds", "1", "--methods", "rl", *second]
    assert main([*arguments, "--values", "0.001", "0.02"]) == 0
    lines = lines_of(out)
    assert {line["settings"]["task.name"] for line in lines.values()} == {"toy:OtherLettersTask"}
    assert {line["labels"]["seed"] for line in lines.values()} == {100}
    text = (out / "README.md").read_text(encoding="utf-8")
    cost = sum(line["totals"]["sampled"] for line in lines.values())
    assert f"| {cost} |" in text and "--method-set rl:slow.learning_rate=" in text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("arms", {"overrides": ["max_rollouts=null"]}, "max_rollouts: arms are compared at equal sampled rollouts"),
        ("arms", {"overrides": ["evaluation.every=0"]}, "evaluation.every: 0 measures no learning curve"),
        ("arms", {"methods": ["sft"]}, "'sft' is unknown: take some of fst, rl, prompt, rl-prompt"),
        ("tune", {"values": [1e-4]}, "--second: name the task that learning rates are searched on"),
        ("tune", {"second": ["task.options.train=6"]}, "tune: name the learning rates"),
        ("tune", {"second": ["task.options.train=6"], "values": ["low"]}, "'low' is no learning rate"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    name: str, options: dict[str, Any], message: str, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message.replace("--", "--")):
        fastslow.experiment(name, config, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
