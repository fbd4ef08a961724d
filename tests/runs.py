"""Small real runs for tests: configs, and what of a run's record must not depend on the clock."""

import json
from pathlib import Path
from typing import Any

from fastslow.config import Config, parse_config


def small_config(model_dir: Path, output: Path, **overrides: Any) -> Config:
    """A run of a few seconds on the tiny model; `overrides` replace whole top-level keys or update sections."""
    tree: dict[str, Any] = {
        "model": {"name": str(model_dir)},
        "task": {"name": "toy:LettersTask"},
        "output": str(output),
        "method": "fst",
        "seed": 3,
        "steps": 6,
        "threads": 1,
        "checkpoint_every": 2,
        "loop": {
            "steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 3, "reuse_max_age": 2,
        },
        "sampling": {"max_tokens": 8},
        "slow": {"learning_rate": 0.01, "warmup_steps": 2},
        "fast": {"anchor_problems": 6, "metric_calls": 24, "reflection_minibatch": 3},
        "evaluation": {"every": 3, "problems": 4, "k": 2, "kl_problems": 2},
    }  # fmt: skip
    for key, value in overrides.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
    if ":" in tree["fast"].get("optimiser", ""):
        del tree["fast"]["reflection_minibatch"]  # gepa's alone
    return parse_config(tree)


def small_episodes(model_dir: Path, output: Path, task: dict[str, Any], steps: int, **overrides: Any) -> Config:
    """A small run whose episodes have up to three turns."""
    usual = {"episodes": {"max_turns": 3}, "evaluation": {"every": 2, "problems": 2}}
    return small_config(model_dir, output, **{"task": task, "steps": steps, **usual, **overrides})


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the times."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def record_of(run: Path) -> dict[str, Any]:
    """Everything that two equal runs must share to the last bit."""
    weights = max((run / "checkpoints").glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    return {
        "metrics": metrics_of(run),
        "prompts": (run / "prompts.jsonl").read_text(encoding="utf-8"),
        "population": (run / "population.json").read_text(encoding="utf-8"),
        "weights": (weights.name, next(weights.glob("*.safetensors")).read_bytes()),
        "rollouts": {path.name: path.read_text(encoding="utf-8") for path in sorted((run / "rollouts").iterdir())},
    }
