"""What holds of runs holds of runs in which an agent calls the policy."""

import time
from pathlib import Path
from typing import Any

import pytest

from callers import talk
from fastslow.config import parse_config, read_yaml
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.runs.reader import read_candidates
from fastslow.slow.local.engine import LocalEngine
from lab_runs import STATED_RULES

from runs import metrics_of, record_of, small_episodes

DELAYS = {"s": 0.0}


def late_talk(base_url: str, api_key: str, messages: list[Any], problem: Any) -> tuple[float, str]:
    """The game, after a moment that is another one in each problem."""
    time.sleep(DELAYS["s"] * (int(problem.id.rpartition("-")[2]) % 3))
    return talk(base_url, api_key, messages, problem, bears=True)


AGENT = {"name": "agent", "options": {"agent": "test_agent_runs:late_talk", "problems": {"name": "toy:TalkTask"}}}


def config(model: Path, output: Path, **overrides: Any) -> Any:
    return small_episodes(model, output, **{"task": AGENT, "steps": 3, **overrides})


@pytest.fixture(scope="module", autouse=True)
def importable() -> Any:
    """The agent is named in a config, and so is this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        yield


@pytest.fixture(scope="module")
def whole(importable: None, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of fst."""
    output = tmp_path_factory.mktemp("agents") / "whole"
    train(config(tiny_model_dir, output))
    return output


def test_fst_trains_on_an_agents_calls(whole: Path) -> None:
    trained = [line for line in metrics_of(whole) if line["step"]]
    assert all(1.0 < line["episodes/turns"] <= 3.0 for line in trained)
    assert any(line["episodes/cut_off_max_turns"] for line in trained)
    assert all(line["episodes/forks"] == line["rollouts/failed"] == 0 for line in trained)
    children = [line for line in read_candidates(whole) if line["parent"] is not None]
    assert any("Write the letter" in child["components"]["system"] for child in children)
    first = next(line for line in trained if line["slow/datums"])
    assert first["slow/ratio_max"] == pytest.approx(1.0, abs=2e-3), "the learner agrees with the sampler on every turn"


def test_a_run_that_dies_between_two_calls_ends_like_the_uninterrupted_one_whoever_calls_first(
    whole: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, output = record_of(whole), tmp_path / "killed"
    sample, calls, deaths = LocalEngine.sample, 0, {4}

    def dies(self: LocalEngine, *arguments: Any) -> Any:
        nonlocal calls
        calls += any(request.continued_tokens for request in arguments[0])
        if calls in deaths:
            raise KeyboardInterrupt
        return sample(self, *arguments)

    monkeypatch.setattr(LocalEngine, "sample", dies)
    monkeypatch.setitem(DELAYS, "s", 0.02)
    with pytest.raises(KeyboardInterrupt):
        train(config(tiny_model_dir, output))
    deaths.clear()
    train(config(tiny_model_dir, output), resume=output)
    assert record_of(output) == expected


@pytest.mark.parametrize("method", ["rl", "prompt", "distill"])
def test_every_method_takes_agents(method: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    distill = {"distill": {"cycles": 1}} if method == "distill" else {}
    train(config(tiny_model_dir, tmp_path / method, method=method, steps=2, evaluation={"every": 0}, **distill))
    line = metrics_of(tmp_path / method)[-1]
    assert line["step"] == 2 and line["rollouts/sampled_tokens"] > 0
    if method == "distill":
        assert line["slow/datums"] > 12 and line["slow/loss"] > 0.0


def test_a_run_with_agents_is_evaluated_with_its_own_limits(whole: Path) -> None:
    result = evaluate(whole, prompt="best", k=2, problems=3, kl=True).rows[0]
    assert result.kl is not None and result.kl.tokens > 0
    assert max(len(rollout.turns) for rollout in result.result.rollouts) == 3


def test_the_agent_of_the_experiment_trains_on_the_labs_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root)
    tree = read_yaml((root / "experiments" / "agents" / "local.yaml").read_text(encoding="utf-8"), "local.yaml")
    tree["task"]["seed_prompt"] = STATED_RULES
    tree |= {"output": str(tmp_path / "run"), "steps": 2, "checkpoint_every": 2}
    tree["loop"] |= {"steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 4}
    tree["fast"] |= {"anchor_problems": 4, "metric_calls": 16, "reflection_minibatch": 2, "proposals_per_iteration": 1}
    tree["evaluation"] = {"every": 0}
    train(parse_config(tree))
    trained = [line for line in metrics_of(tmp_path / "run") if line["step"]]
    assert all(line["episodes/turns"] == 3.0 and line["rollouts/failed"] == 0 for line in trained)
    assert sum(line["reward/mean"] for line in trained) > 0.0 and any(line["slow/datums"] for line in trained)
