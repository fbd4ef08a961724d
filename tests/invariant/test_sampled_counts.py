"""Everything that is sampled from the policy while it trains is counted, whoever asked for it.

What the comparison of sampler and learner draws before the first step is not: nothing of it is scored or trained on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.loop import train
from fastslow.slow.agreement import measure_agreement
from fastslow.slow.local.engine import LocalEngine

from runs import metrics_of, small_config


@pytest.mark.parametrize("kind", ["policy", "lesson"])
def test_the_total_is_what_the_engine_sampled(
    kind: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"completions": 0, "tokens": 0}
    sample = LocalEngine.sample

    def counted(self: LocalEngine, requests: Sequence[Any], params: Any) -> Any:
        completions = sample(self, requests, params)
        made["completions"] += sum(len(group) for group in completions)
        made["tokens"] += sum(len(completion.tokens) for group in completions for completion in group)
        return completions

    def compared(*arguments: Any) -> Any:
        before = dict(made)
        found = measure_agreement(*arguments)
        assert 0 < made["completions"] - before["completions"] <= 16
        made.update(before)
        return found

    monkeypatch.setattr(LocalEngine, "sample", counted)
    monkeypatch.setattr("fastslow.slow.agreement.measure_agreement", compared)
    fast = {"anchor_problems": 6, "metric_calls": 24, "reflection_minibatch": 3}
    own = {"max_tokens": 16} if kind == "policy" else {}
    settings: dict[str, Any] = {
        "evaluation": {"every": 0},
        "fast": {**fast, "proposer": {"kind": kind, "max_prompt_chars": 400, **own}},
    }
    train(small_config(tiny_model_dir, tmp_path / "run", **settings))
    lines = metrics_of(tmp_path / "run")
    assert lines[-1]["rollouts/sampled_total"] == made["completions"] == sum(line["rollouts/sampled"] for line in lines)
    assert sum(line["rollouts/sampled_tokens"] for line in lines) == made["tokens"]
    reflected = sum(line["rollouts/sampled_reflection"] for line in lines)
    assert reflected == (sum(line["fast/reflection_calls"] for line in lines) if kind == "policy" else 0)
    assert (reflected > 0) == (kind == "policy")
    parts = ("rollouts/sampled_rl", "rollouts/sampled_gepa", "rollouts/sampled_reflection")
    assert all(line["rollouts/sampled"] == sum(line[part] for part in parts) for line in lines)

    # They spend the budget as well: with room for all but one of them the run ends earlier.
    budget = lines[-1]["rollouts/sampled_total"] - lines[-1]["rollouts/sampled"] - 1
    if kind == "policy":
        train(small_config(tiny_model_dir, tmp_path / "short", **settings, max_rollouts=budget))
        ended = metrics_of(tmp_path / "short")[-1]
        assert ended["step"] < lines[-1]["step"]
        assert ended["rollouts/sampled_total"] >= budget
