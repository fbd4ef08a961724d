"""FST cycles of a real small model through a real server, killed in the middle: it comes back and loses nothing."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.config import Config, parse_config
from fastslow.errors import ServerError
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.runs.reader import read_metrics
from lab_runs import STATED_RULES, float32_lab_model

from skyrl_server import SkyrlServer

pytestmark = pytest.mark.slow

STEPS, KILLED_AFTER = 5, 3


def config_of(server: SkyrlServer, output: Path) -> Config:
    return parse_config(
        {
            "engine": "tinker",
            "tinker": {"base_url": server.url, "backend": "jax", "outage_s": 4.0},
            "model": {"name": str(server.model), "lora": {"rank": 4}},
            "task": {"name": "lab", "options": {"world": "amber"}, "seed_prompt": STATED_RULES},
            "output": str(output),
            "steps": STEPS,
            "checkpoint_every": 2,
            "loop": {"steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 4},
            "sampling": {"max_tokens": 16},
            "slow": {"learning_rate": 1e-3, "warmup_steps": 2},
            "fast": {
                "anchor_problems": 4, "metric_calls": 16, "reflection_minibatch": 2,
                "proposer": {"kind": "lesson", "phrasebook": "package:fastslow.lab/model/phrasebook.json"},
            },
            "evaluation": {"every": 2, "problems": 4, "k": 2, "kl_problems": 4},
        }
    )  # fmt: skip


class Killer:
    """Kills the server once a step has been written down."""

    def __init__(self, server: SkyrlServer, step: int) -> None:
        self.server, self.step = server, step

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "step" and payload["step"] == self.step:
            self.server.kill()


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in read_metrics(run)]


def test_a_run_outlives_its_server(python: Path, compiled: Path, tmp_path: Path) -> None:
    server = SkyrlServer(float32_lab_model(tmp_path / "model"), tmp_path / "server", python, compiled)
    output = tmp_path / "run"
    try:
        server.start()
        with pytest.raises(
            ServerError, match=rf"(?s)not been reachable.*after step 3.*--resume {output} \(it goes on from .* 2"
        ):
            train(config_of(server, output), observer=Killer(server, KILLED_AFTER))
        before = lines_of(output)
        assert [line["step"] for line in before] == [0, 1, 2, 3]
        server.start()
        result = train(config_of(server, output), resume=output)
        after = lines_of(output)
        assert (result.steps, [line["step"] for line in after]) == (STEPS, list(range(STEPS + 1)))
        assert after[:3] == before[:3]
        assert after[3]["policy_version"] == before[3]["policy_version"]
        assert (
            after[3]["reward/mean"] == before[3]["reward/mean"]
        )  # the same weights, seeds and store: the same rollouts
        # The store came back, too: what it served before the kill it serves again.
        assert [line["rollouts/reused"] for line in after[:4]] == [line["rollouts/reused"] for line in before]
        assert sum(line["rollouts/reused"] for line in after) > 0
        assert after[-1]["policy_version"] >= 2
        assert after[-1]["kl/base_estimate"] > 1e-4
        assert "kl/base" not in after[-1]
        # The server's weights and the downloaded adapter are the same policy.
        there = evaluate(output, prompt="best", problems=16, k=8, kl=True)
        here = evaluate(output, prompt="best", problems=16, k=8, kl=True, overrides=["engine=local"])
        assert there.rows[0].kl is not None and here.rows[0].kl is not None
        assert (there.rows[0].kl.exact, here.rows[0].kl.exact) == (False, True)
        assert there.rows[0].result.mean == pytest.approx(here.rows[0].result.mean, abs=0.2)
        assert 0.2 < here.rows[0].result.mean < 1.0  # neither always wrong nor always right
        assert here.rows[0].kl.mean > 1e-3  # the base's weights would be at 0
        assert there.rows[0].kl.mean == pytest.approx(here.rows[0].kl.mean, rel=0.5)
    finally:
        server.kill()
