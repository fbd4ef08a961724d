from pathlib import Path

import numpy as np
import pytest

from fastslow.config import ModelConfig
from fastslow.errors import InfrastructureError
from fastslow.evaluation import bootstrap_interval, evaluate_prompt, kl_to_base
from fastslow.slow.engine import SamplingParams
from fastslow.slow.local import LocalEngine

from toy import LettersTask


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalEngine:
    return LocalEngine(ModelConfig(name=str(tiny_model_dir)), threads=1)


def test_mean_and_best_are_those_of_the_rollouts(engine: LocalEngine) -> None:
    task = LettersTask()
    result = evaluate_prompt(engine, task, task.problems("train"), task.seed_prompt, 3, SamplingParams(8, 0.6, 0.95), 1)
    rewards = np.array([rollout.reward for rollout in result.rollouts]).reshape(12, 3)
    assert rewards.any()
    assert result.mean == pytest.approx(rewards.mean())
    assert result.best == pytest.approx(rewards.max(1).mean())
    assert result.mean_interval[0] <= result.mean <= result.mean_interval[1]
    assert result.cut_off == sum(r.completion.finish_reason == "length" for r in result.rollouts)


def test_masked_rollouts_are_in_no_mean(engine: LocalEngine) -> None:
    params = SamplingParams(8)
    whole = LettersTask()
    broken = LettersTask(broken_every=5)
    problems = whole.problems("train")
    expected = evaluate_prompt(engine, whole, problems, whole.seed_prompt, 2, params, 1)
    result = evaluate_prompt(engine, broken, problems, whole.seed_prompt, 2, params, 1)
    assert result.masked == 4
    kept = [[] for _ in problems]
    for index, rollout in enumerate(expected.rollouts):
        if (index + 1) % 5:
            kept[index // 2].append(rollout.reward)
    assert result.mean == pytest.approx(np.mean([np.mean(rewards) for rewards in kept]))


def test_nothing_to_report_is_an_error(engine: LocalEngine) -> None:
    task = LettersTask(broken_every=1)
    with pytest.raises(InfrastructureError, match="the sandbox timed out"):
        evaluate_prompt(engine, task, task.problems("train"), task.seed_prompt, 1, SamplingParams(4), 1)


def test_the_base_has_no_distance_to_itself(engine: LocalEngine) -> None:
    task = LettersTask()
    measured = kl_to_base(engine, task, task.problems("validation"), task.seed_prompt, SamplingParams(6), 0)
    assert measured.mean == 0.0
    assert measured.tokens > 0


def test_the_bootstrap_interval_of_a_known_sample() -> None:
    # The mean of n draws from {0, 1} with p = 1/2 has a standard deviation of 1 / (2 sqrt(n)).
    low, high = bootstrap_interval([0.0, 1.0] * 200, seed=0)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)
    assert bootstrap_interval([0.25] * 9, seed=0) == (0.25, 0.25)


def test_weights_make_it_a_ratio_of_sums() -> None:
    low, high = bootstrap_interval([1.0, 6.0], [1.0, 3.0], seed=0)
    assert (low, high) == (pytest.approx(1.0), pytest.approx(2.0))
