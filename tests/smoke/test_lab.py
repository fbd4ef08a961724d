"""`fastslow lab demo` and `fastslow lab reproduce`, small."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from fastslow.config import load_config
from fastslow.lab import worlds
from fastslow.lab.commands import EXPERIMENTS
from fastslow.lab.demo import Compared, base_config
from fastslow.lab.tasks import WORLDS, right_prompts
from fastslow.loop import train
from fastslow.runs.files import read_lines
from fastslow.runs.reader import read_metrics
from fastslow.tasks.settings import TaskConfig

SMALL = {
    "LEARNING_RATES": {"1e-4": 1e-4, "3e-4": 3e-4}, "COMPARED": ("amber", "hazel"), "STREAM": ("amber", "birch"),
    "ABLATIONS": {"K": {"1": {"loop.population_size": 1}}},
    "BEYOND": {"default": ("FST as it is", "fst", {}), "bare": ("bare", "fst", {"slow.gradient_context": "bare"}),
               "distilled": ("distillation", "distill", {"distill.cycles": 1})},
    "ROLLOUTS_A_STEP": 16,
}  # fmt: skip
SMALL_RUNS: dict[str, dict[str, Any]] = {
    "loop": {"population_size": 2, "group_size": 4, "problems_per_step": 4},
    "fast": {"anchor_problems": 8, "metric_calls": 48, "reflection_minibatch": 4, "proposals_per_iteration": 2},
    "evaluation": {"problems": 8, "k": 2, "kl_problems": 8},
}
"""What a run is made of, in place of the lab's own sizes: here it is the commands that are tested."""


SMALL_SIZE = worlds.Size(
    steps=5,
    second_steps=5,
    stream_steps=10,
    ablation_steps=5,
    cycles=2,
    tuning_seeds=(100,),
    settings={f"{section}.{key}": value for section, sizes in SMALL_RUNS.items() for key, value in sizes.items()},
    options={"test": 8},
)


def small_lab() -> dict[str, Any]:
    tree = base_config()
    return {**tree, **{name: {**tree[name], **sizes} for name, sizes in SMALL_RUNS.items()}}


def test_the_demo_runs_and_says_what_happened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastslow.lab.demo.base_config", small_lab)
    assert main(["lab", "demo", "--output", str(tmp_path / "demo"), "--steps", "5"]) == 0
    said = capfd.readouterr().out
    for expected in (
        "sampled rollouts to 90%", "KL at the end", "following other prompts", "second task (birch)", "FST lost on:",
        "The prompt that FST evolved:", "You are a helpful assistant.", "curves.png",
    ):  # fmt: skip
        assert expected in said, expected
    assert (tmp_path / "demo" / "curves.png").stat().st_size > 10_000
    lines = {line["part"]: line for line in read_lines(tmp_path / "demo" / "results.jsonl")}
    assert set(lines) == {"fst", "rl", "second-after-fst", "second-after-rl", "second-after-nothing"}
    # The second phase begins with the first one's weights.
    assert "checkpoints/step_5" in (tmp_path / "demo" / "second-after-fst" / "config.yaml").read_text(encoding="utf-8")


def test_the_table_says_who_is_better_and_never_loses_to_anything() -> None:
    assert Compared("x", 1.0, 2.0, 0, smaller_is_better=True).verdict() == "fst"
    assert Compared("x", 1.0, 2.0, 0, smaller_is_better=False).verdict() == "rl"
    assert Compared("x", 0.9001, 0.9004, 3, smaller_is_better=False).verdict() == "even"
    assert Compared("x", None, 2.0, 0, smaller_is_better=True).verdict() == "rl"
    assert Compared("x", 5.0, None, 0, smaller_is_better=True).verdict() == "fst"
    assert Compared("x", None, None, 0, smaller_is_better=True).verdict() == "even"
    assert Compared("x", None, 1.0, 1, smaller_is_better=True).text(None) == "never"


@pytest.mark.slow
def test_reproduce_runs_every_experiment_once_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(worlds, name, value)
    monkeypatch.setattr("fastslow.reproduce.sections.QUICK", SMALL_SIZE)
    arguments = ["reproduce", "lab", "--quick", "--output", str(tmp_path)]
    assert main(arguments) == 0
    results = tmp_path / "results" / "lab"
    report = (results / "README.md").read_text(encoding="utf-8")
    assert report.startswith("# The lab: a quick run")
    for expected in (
        "Chosen: FST",
        "### hazel",
        "following other prompts",
        "Plasticity",
        "A stream of tasks",
        "## bfloat16 on amber",
        "Ablations",
    ):
        assert expected in report, expected
    pictures = {path.name for path in results.glob("*.png")}
    assert pictures == {"compare_amber.png", "compare_hazel.png", "plasticity.png", "continual.png"}
    files = {path.name: path.read_bytes() for path in results.glob("*.jsonl")}
    tuned = [json.loads(line) for line in files["tune.jsonl"].decode().splitlines()]
    chosen = worlds.chosen_methods(tuned, SMALL_SIZE)
    compared = [json.loads(line) for line in files["compare.jsonl"].decode().splitlines()]
    used = {line["settings"]["slow.learning_rate"] for line in compared if line["labels"].get("method") == "fst"}
    assert used == {chosen["fst"]["slow.learning_rate"]}
    lengths = {line["part"]: line["totals"]["steps"] for line in compared}
    assert (lengths["amber-fst-0"], lengths["amber-prompt-0"], lengths["second-fst-0"]) == (5, 2, 5)
    page = (tmp_path / "results" / "results.md").read_text(encoding="utf-8")
    assert page.startswith("# Results: a quick run") and "| lab: [amber][lab] | 1 |" in page
    assert "**too few seeds**" in page and "**held**" not in page.partition("## In short")[2]
    capfd.readouterr()
    assert main([*arguments, "--list"]) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("lab/")]
    assert [row[0] for row in rows] == [f"lab/{name}" for name in ("tune", *EXPERIMENTS)]
    assert {row[2] for row in rows} == {"-"}, "nothing is missing"
    # Nothing is run again, also through the other door.
    assert main(arguments) == 0
    assert {path.name: path.read_bytes() for path in results.glob("*.jsonl")} == files


def test_the_help_of_reproduce_names_its_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(worlds.experiments(1)) == EXPERIMENTS
    with pytest.raises(SystemExit):
        main(["lab", "reproduce", "--help"])
    assert ", ".join(EXPERIMENTS) in " ".join(capsys.readouterr().out.split())


def test_an_unknown_experiment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "reproduce", "comparison"]) == 2
    assert "'comparison' is unknown: take some of compare, continual, precision, ablate" in capsys.readouterr().err


@pytest.mark.slow
def test_a_prompt_goes_into_the_weights(tmp_path: Path) -> None:
    (prompt,) = right_prompts(WORLDS["amber"]).values()
    overrides = [
        "method=distill", f"distill.prompt={json.dumps(prompt.as_dict())}", f"output={tmp_path / 'run'}", "steps=16",
        "slow.learning_rate=5e-4", "evaluation.every=16", "evaluation.kl_problems=0",
    ]  # fmt: skip
    train(load_config("package:fastslow.lab/lab.yaml", overrides))
    start, *_, end = read_metrics(tmp_path / "run")
    # Under the seed prompt, before and after.
    assert start["val/mean@4"] < 0.1
    assert end["val/mean@4"] > start["val/mean@4"] + 0.25
    assert end["slow/loss"] < 0.5 * read_metrics(tmp_path / "run")[1]["slow/loss"]


@pytest.mark.slow
def test_the_loop_leaves_zero_reward_and_survives_a_change_of_task(tmp_path: Path) -> None:
    tasks = [{"name": "lab", "options": {"world": name}} for name in ("fir", "ginkgo")]
    base = load_config(
        "package:fastslow.lab/lab.yaml", [f"output={tmp_path / 'run'}", "steps=20", "evaluation.every=10"]
    )
    stream = TaskConfig(name="stream", options={"tasks": tasks, "steps": 10})
    train(base.model_copy(update={"task": stream}))
    start, switch, end = read_metrics(tmp_path / "run")[0], *read_metrics(tmp_path / "run")[10::10]
    # Both floors are zero: whatever is there came from the feedback's words.
    assert start["val/lab-fir/mean@4"] == start["val/lab-ginkgo/mean@4"] == 0.0
    assert switch["val/lab-fir/mean@4"] > 0.3
    assert switch["val/lab-ginkgo/mean@4"] < 0.1
    assert end["val/lab-ginkgo/mean@4"] > 0.3
