"""One agent, written once with the OpenAI client, trained by FST in two settings: the local engine and a server."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.config import parse_config
from fastslow.loop import train
from fastslow.runs.reader import read_metrics
from lab_runs import STATED_RULES, float32_lab_model

from skyrl_server import SkyrlServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def tree_of(model: Path, output: Path) -> dict[str, Any]:
    return {
        "model": {"name": str(model), "lora": {"rank": 4}},
        "task": {
            "name": "agent",
            "seed_prompt": STATED_RULES,
            "options": {
                "agent": "experiments.agents.vote:vote",
                "problems": {"name": "lab", "options": {"world": "amber"}},
            },
        },
        "output": str(output),
        "steps": 2,
        "loop": {"steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 4},
        "sampling": {"max_tokens": 16},
        "slow": {"learning_rate": 1e-3, "warmup_steps": 2, "kl_coefficient": 0.0},
        "fast": {
            "anchor_problems": 4, "metric_calls": 16, "reflection_minibatch": 2,
            "proposer": {"kind": "lesson", "phrasebook": "package:fastslow.lab/model/phrasebook.json"},
        },
        "evaluation": {"every": 0},
    }  # fmt: skip


def test_the_same_agent_trains_on_the_local_engine_and_on_a_server(
    python: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    server = SkyrlServer(float32_lab_model(tmp_path / "model"), tmp_path / "server", python, compiled)
    remote = {"engine": "tinker", "tinker": {"base_url": server.url, "backend": "jax"}}
    try:
        server.start()
        for name, engine in (("local", {}), ("server", remote)):
            train(parse_config({**tree_of(server.model, tmp_path / "runs" / name), **engine}))
    finally:
        server.kill()
    for name in ("local", "server"):
        trained = [line for line in read_metrics(tmp_path / "runs" / name) if line["step"]]
        assert len(trained) == 2, name
        # Three choices a call are three turns; what was cut off ended its episode there.
        assert all(line["episodes/turns"] == 3.0 and line["rollouts/failed"] == 0 for line in trained), name
        assert sum(line["reward/mean"] for line in trained) > 0.0, name
        assert any(line["slow/datums"] for line in trained) and trained[-1]["policy_version"] > 0, name
        first = next(line for line in trained if line["slow/datums"])
        assert first["slow/ratio_mean"] == pytest.approx(1.0, abs=0.02), name
