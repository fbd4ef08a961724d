"""The golden runs: every method; one kind of problems, several kinds, a stream; reuse on and off;
LoRA and all parameters.

Each is a few steps of the lab's model, so that all of them together take less than a minute. Seed prompts state some of
the hidden rules: groups have a signal, and searches have something left to find. A stream cannot be distilled.
"""

from pathlib import Path
from typing import Any

MODEL = "package:fastslow.lab/model"
FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = str(FIXTURES / "models" / "tiny")
LORA = {"name": MODEL, "lora": {"rank": 4, "alpha": 8}}
START = "You are a helpful assistant."
COMMAS, DEDUP, DOWN, TAGS = (
    "Put commas between the items.", "Drop repeated items.", "Sort the items downwards.", "Write answer tags around it."
)  # fmt: skip


def stating(*rules: str) -> str:
    """A system prompt that states some rules."""
    return "\n".join((START, *rules))


def world(name: str, *rules: str, train: int = 24) -> dict[str, Any]:
    """A task of the lab, small, whose seed prompt states some rules."""
    return {
        "name": "lab", "options": {"world": name, "train": train, "validation": 8, "test": 4},
        "seed_prompt": stating(*rules),
    }  # fmt: skip


def stream(*rules: str) -> dict[str, Any]:
    """Two worlds, of which the first comes again; one step each."""
    worlds = [world(name, *rules) for name in ("amber", "cedar", "amber")]
    return {"name": "stream", "options": {"tasks": worlds, "steps": 1}}


NORTH = (DOWN, TAGS, "Say done at the end.")
AMBER, AMBER_TOLD = world("amber", COMMAS, DEDUP, TAGS), world("amber", COMMAS, DEDUP, TAGS, DOWN)
HAZEL, HAZEL_TOLD = world("hazel", *NORTH), world("hazel", *NORTH, "Repeat the last item.")
ONE_STEP = {"steps_per_cycle": 1}

BASE: dict[str, Any] = {
    "model": {"name": MODEL},
    "task": AMBER,
    "seed": 5,
    "steps": 3,
    "threads": 1,
    "checkpoint_every": 50,
    "rollout_samples": 4,
    "loop": {"steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 4, "reuse_max_age": 2},
    "sampling": {"max_tokens": 20},
    "slow": {"learning_rate": 1.0e-3, "warmup_steps": 2},
    "fast": {
        "anchor_problems": 8,
        "metric_calls": 48,
        "reflection_minibatch": 4,
        "proposer": {"kind": "lesson", "phrasebook": "package:fastslow.lab/model/phrasebook.json"},
    },
    "evaluation": {"every": 2, "problems": 6, "k": 2, "kl_problems": 4},
}

CASES: dict[str, dict[str, Any]] = {
    "fst": {"steps": 4},
    "fst-lora": {"model": LORA},
    "fst-no-reuse": {"loop": {"reuse_max_age": 0}},
    "fst-anchors-from-store": {
        "steps": 4,
        "loop": {"baseline": "prompt", "batch_normalisation": False, "reuse_max_age": 4},
        "slow": {"loss": "importance_sampling", "kl_coefficient": 0.0, "weight_decay": 0.01},
        "fast": {"anchors_from_store": 0.5, "proposals_per_iteration": 2, "max_backoff": 2},
    },
    "fst-kinds": {"task": HAZEL},
    "fst-kinds-each-its-own": {
        "model": {"name": TINY, "lora": {"rank": 4, "alpha": 8}},
        "task": {"name": "toy:KindsTask"},
        "seed": 8,
        "steps": 4,
        "sampling": {"max_tokens": 8},
        "slow": {"learning_rate": 0.02},
        "fast": {"anchor_problems": 8, "metric_calls": 64, "proposer": {"kind": "lesson"}},
    },
    "fst-stream": {"task": stream(COMMAS, DEDUP, TAGS), "loop": ONE_STEP},
    "rl": {"method": "rl", "task": AMBER_TOLD},
    "rl-lora": {
        "method": "rl", "task": AMBER_TOLD, "model": LORA, "loop": {"divide_by_std": False},
        "sampling": {"temperature": 1.2}, "slow": {"loss": "importance_sampling", "prefix_sharing": False},
    },
    "rl-kinds-no-reuse": {"method": "rl", "task": HAZEL_TOLD, "loop": {"reuse_max_age": 0, "group_size": 8}},
    "rl-stream": {"method": "rl", "task": stream(COMMAS, DEDUP, TAGS, DOWN), "loop": ONE_STEP},
    "prompt": {"method": "prompt", "task": world("amber", COMMAS, DEDUP, TAGS, train=8), "steps": 2},
    "prompt-kinds-no-reuse": {"method": "prompt", "task": HAZEL, "loop": {"reuse_max_age": 0}, "steps": 2},
    "prompt-stream-lora": {"method": "prompt", "task": stream(COMMAS, DEDUP, TAGS), "model": LORA, "loop": ONE_STEP},
    "distill": {"method": "distill", "distill": {"cycles": 1}},
    "distill-lora-no-reuse": {
        "method": "distill", "distill": {"cycles": 1}, "model": LORA, "loop": {"reuse_max_age": 0},
    },
    "distill-kinds-given-prompt": {
        "method": "distill", "task": HAZEL, "distill": {"prompt": stating(*NORTH, "Repeat the last item.")}, "steps": 2,
    },
}  # fmt: skip
"""By name, what differs from `BASE`: sections are updated, other keys replaced."""

RESUMED = {"resumed-fst-lora-killed": 6, "resumed-rl": 5, "resumed-prompt-stream": 4, "resumed-distill-lora": 5}
"""Run directories of an earlier version (`tests/fixtures/runs`) that are gone on with, and to which step."""

NAMES = (*CASES, *RESUMED)


def config_tree(name: str) -> dict[str, Any]:
    """The config of a golden run, without its output directory."""
    tree = dict(BASE)
    for key, value in CASES[name].items():
        section = tree.get(key)
        merge = isinstance(value, dict) and isinstance(section, dict) and key not in ("task", "model")
        tree[key] = {**section, **value} if merge else value
    return tree
