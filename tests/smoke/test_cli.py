"""The command line as a user calls it, in processes of its own, on the tiny model. One has a new interpreter; others
are forks, which cost no import of torch.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fastslow.runs.reader import read_metrics

from commands import TESTS, call, command
from runs import record_of, small_config


def write_config(model: Path, directory: Path, **overrides: object) -> Path:
    path = directory / "config.yaml"
    tree = small_config(model, directory / "run", **overrides).model_dump(mode="json")
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and what it printed."""
    directory = tmp_path_factory.mktemp("trained")
    arguments = [sys.executable, "-m", "fastslow", "train", str(write_config(tiny_model_dir, directory))]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    done = subprocess.run(
        arguments, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    (directory / "stdout").write_text(done.stdout)
    (directory / "stderr").write_text(done.stderr)
    return directory


@pytest.mark.slow
def test_train_shows_its_steps_and_leaves_the_run_directory(trained: Path) -> None:
    out = (trained / "stdout").read_text()
    assert [line for line in out.splitlines() if line.startswith("step 6 | reward")]
    assert (trained / "stderr").read_text() == ""
    run = trained / "run"
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "prompts.jsonl", "population.json", "rollouts", "checkpoints"} <= names
    documented = (
        "step", "cycle", "reward/mean", "reward/std", "rollouts/sampled", "rollouts/reused", "rollouts/sampled_total",
        "fast/metric_calls", "fast/population_size", "fast/usd", "slow/loss", "slow/grad_norm", "slow/ratio_mean",
        "slow/clip_fraction", "slow/entropy", "time/step_s", "time/sample_s", "time/update_s", "time/evolve_s",
    )  # fmt: skip
    for line in read_metrics(run):
        assert set(documented) <= set(line)
    assert {"val/mean@2", "val/best@2", "kl/base"} <= set(read_metrics(run)[-1])


@pytest.mark.slow
def test_checkpoints_are_ordinary_model_directories(trained: Path, tiny_model_dir: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = trained / "run" / "checkpoints" / "step_6"
    model, found = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    # Transformers draws at random what it does not find, and only warns.
    assert {name: list(keys) for name, keys in found.items() if keys} == {}
    saved, base = load_file(checkpoint / "model.safetensors"), load_file(tiny_model_dir / "model.safetensors")
    loaded = model.state_dict()
    assert saved.keys() == base.keys() == loaded.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in saved.items())
    assert all(not base[name].equal(tensor) for name, tensor in saved.items())  # these are the trained weights
    messages = [{"role": "system", "content": "go"}, {"role": "user", "content": "n1"}]
    tokens, expected = (
        AutoTokenizer.from_pretrained(directory).apply_chat_template(messages, add_generation_prompt=True)
        for directory in (checkpoint, tiny_model_dir)
    )
    assert tokens["input_ids"] == expected["input_ids"] != []


@pytest.mark.slow
def test_evaluate_gives_the_numbers_that_training_gave(trained: Path) -> None:
    run = trained / "run"
    files = ("--json", trained / "report.json", "--save", trained / "completions.jsonl")
    code, out, err = call("evaluate", run, "--problems", 4, *files, "--kl")
    assert code == 0, err
    assert "mean@2" in out and "wrote 8 completions to" in out
    (row,) = json.loads((trained / "report.json").read_text())["rows"]
    assert row["mean"] == pytest.approx(read_metrics(run)[-1]["val/mean@2"])
    assert row["kl"]["mean"] > 0.0
    saved = [json.loads(line) for line in (trained / "completions.jsonl").read_text().splitlines()]
    rewards: dict[str, list[float]] = {}
    for line in saved:
        rewards.setdefault(line["problem"], []).append(line["reward"])
    assert row["scores"] == rewards and [len(each) for each in rewards.values()] == [2] * 4
    assert sum(map(sum, rewards.values())) / 8 == pytest.approx(row["mean"])
    assert saved[0]["question"] == [{"role": "user", "content": "n1000"}]
    assert saved[0]["components"] == row["prompt"]["components"] and saved[0]["label"] == "best"


def test_a_file_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    code, _, err = call("evaluate", tmp_path, "--save", tmp_path / "missing" / "file.jsonl")
    assert code == 2 and "--save" in err and "name a file in a directory that exists" in err


@pytest.mark.slow
def test_evaluate_base_weights_under_every_prompt_of_the_population(trained: Path, tiny_model_dir: Path) -> None:
    report = trained / "base.json"
    arguments = ("--weights", "base", "--prompt", "population", "--kl", "--json", report)
    code, _, err = call("evaluate", trained / "run", *arguments)
    assert code == 0, err
    record = json.loads(report.read_text())
    assert all(row["kl"]["mean"] == 0.0 for row in record["rows"])
    code, _, err = call(
        "evaluate", tiny_model_dir, "--config", trained / "config.yaml", "--json", trained / "model.json"
    )
    assert code == 0, err
    seed = json.loads((trained / "model.json").read_text())["rows"][0]
    assert seed["prompt"]["components"] == {"system": "go"}


@pytest.mark.slow
def test_prompts_and_tasks(trained: Path) -> None:
    run = trained / "run"
    population = json.loads((run / "population.json").read_text())["population"]
    assert call("prompts", run, "--best")[1].rstrip("\n") == population[0]["components"]["system"]
    assert population[0]["hash"] in call("prompts", run)[1]
    assert "member of the population" in call("prompts", run, "--all")[1]
    assert "cycle 1" in call("prompts", run, "--id", population[0]["hash"])[1]
    code, out, _ = call("tasks", "toy:LettersTask", "--answer", "ae", "--show", "1")
    assert code == 0
    assert "12 train, 4 validation, 2 test" in out
    assert "to the answer 'ae':\n  reward 1\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "either a config file or --resume"),
        (("train", "nowhere.yaml"), "'nowhere.yaml' does not exist"),
        (("train", "--resume", "nowhere"), "'nowhere' holds no run"),
        (("evaluate", "nowhere"), "is not a run directory"),
        (("prompts", "nowhere"), "holds no run"),
        (("tasks", "star_grph"), "star_graph"),
    ],
)
def test_mistakes_get_one_clear_message_and_no_traceback(arguments: tuple[str, ...], message: str) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert err.startswith("fastslow: ")
    assert message in err
    assert "Traceback" not in err


def test_a_dry_run_checks_and_explains_and_writes_nothing(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = write_config(tiny_model_dir, tmp_path)
    code, out, err = call("train", path, "--dry-run")
    assert code == 0, err
    assert "clamped to [0, 4]" in out
    assert not (tmp_path / "run").exists()
    code, _, err = call("train", path, "--dry-run", "--set", "task.options.train=0")
    assert code == 2
    assert "no train problems" in err


def test_a_dry_run_steers_no_terminal(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    task = {"name": "lab", "seed_prompt": {"system": "x", "skill:a\x1b[31m\u202e": "y"}}
    model = {"name": "package:fastslow.lab/model"}
    config.write_text(yaml.safe_dump({"model": model, "task": task, "sampling": {"max_tokens": 24}}))
    _, out, err = call("train", config, "--dry-run")
    said = out + err
    assert "skill:a" in said and "\x1b" not in said and "\u202e" not in said


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    path = write_config(tiny_model_dir, tmp_path / "cut", steps=12, evaluation={"every": 4})
    process = command("train", path)
    run = tmp_path / "cut" / "run"
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.interrupt()
    code, out, err = process.end()
    assert code == 130, err
    assert f"fastslow train --resume {run}" in out
    assert "Traceback" not in err
    stopped = read_metrics(run)[-1]["step"]
    assert 2 <= stopped < 12
    code, _, err = call("train", "--resume", run, "--quiet")
    assert code == 0, err
    whole = write_config(tiny_model_dir, tmp_path / "whole", steps=12, evaluation={"every": 4})
    assert call("train", whole)[0] == 0
    assert record_of(run) == record_of(tmp_path / "whole" / "run")
