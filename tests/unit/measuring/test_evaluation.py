import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastslow.errors import ConfigError, InfrastructureError
from fastslow.loop import train
from fastslow.measuring.evaluate import _problems, evaluate
from fastslow.measuring.evaluation import (
    EvaluationResult,
    by_kind_mean,
    complementary_mean,
    evaluate_prompt,
    expected_best,
    kl_to_base,
)
from fastslow.slow.engine import SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig
from fastslow.types import Completion, Problem, Prompt, Rollout, Turn

from runs import small_config
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
    assert result.cut_off == sum(r.finish_reason == "length" for r in result.rollouts)


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


def test_masked_rollouts_do_not_make_the_best_of_k_worse() -> None:
    # By hand: of 0, 1, 1 two are drawn; all three pairs have a 1. Of 0, 0, 1 two of three pairs have it.
    assert expected_best([1.0, 0.0, 1.0], 2) == pytest.approx(1.0)
    assert expected_best([0.0, 1.0, 0.0], 2) == pytest.approx(2 / 3)
    assert expected_best([0.2, 0.6, 0.4], 2) == pytest.approx((0.4 + 2 * 0.6) / 3)
    assert expected_best([0.2, 0.6], 1) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="the best of 3 cannot be told from 2 rewards"):
        expected_best([0.0, 1.0], 3)


def test_the_best_of_k_is_over_problems_with_k_scored_rollouts(engine: LocalEngine) -> None:
    whole, broken, params = LettersTask(), LettersTask(broken_every=5), SamplingParams(8)
    problems = whole.problems("train")
    expected = evaluate_prompt(engine, whole, problems, whole.seed_prompt, 2, params, 1)
    result = evaluate_prompt(engine, broken, problems, whole.seed_prompt, 2, params, 1)
    rewards = np.array([rollout.reward for rollout in expected.rollouts]).reshape(-1, 2)
    complete = [index for index in range(len(problems)) if (2 * index + 1) % 5 and (2 * index + 2) % 5]
    assert (result.best_problems, expected.best_problems) == (len(complete), len(problems)) == (8, 12)
    assert result.best == pytest.approx(rewards[complete].max(1).mean())
    never = evaluate_prompt(engine, LettersTask(broken_every=2), problems, whole.seed_prompt, 2, params, 1)
    assert (never.best_problems, math.isnan(never.best)) == (0, True)


def test_nothing_to_report_is_an_error(engine: LocalEngine) -> None:
    task = LettersTask(broken_every=1)
    with pytest.raises(InfrastructureError, match="the sandbox timed out"):
        evaluate_prompt(engine, task, task.problems("train"), task.seed_prompt, 1, SamplingParams(4), 1)


def given(rewards: np.ndarray, prompt: str = "go") -> EvaluationResult:
    """A result whose rollouts have given rewards: (problems, completions)."""
    rollouts = tuple(
        Rollout(
            f"p{problem}", "h", (Turn((1,), Completion((2,), (-1.0,), "stop"), ""),), float(reward), "", None, 0, "rl"
        )
        for problem, row in enumerate(rewards)
        for reward in row
    )
    mean = float(rewards.mean())
    return EvaluationResult(
        Prompt.of(prompt), len(rewards), rewards.shape[1], mean, (mean, mean), 1.0, (1.0, 1.0), 0, 0, 1.0, rollouts
    )


def test_complementary_prompts_are_worth_more_than_the_best_of_them() -> None:
    left = np.repeat([1.0, 0.0], 10)[:, None] * np.ones((1, 4))
    found = complementary_mean([given(left), given(1 - left)])
    assert found is not None
    assert found[0] == 1.0
    assert complementary_mean([given(left)]) is None
    assert complementary_mean([given(left[:, :1]), given(left[:, :1])]) is None


def test_each_kind_counts_under_the_prompt_that_was_chosen_for_it() -> None:
    first, second = given(np.array([[1, 1], [0, 0], [0, 0]]), "a"), given(np.array([[0, 0], [1, 0], [1, 1]]), "b")
    kinds = ("north", "south", "east")
    problems = [Problem(f"p{index}", (), kind=kind) for index, kind in enumerate(kinds)]
    chosen = {"north": Prompt.of("a").hash, "south": Prompt.of("b").hash}
    mean, (low, high) = by_kind_mean([first, second], chosen, problems)
    # east has no prompt of its own and takes the first: 1, 1/2, 0.
    assert mean == 0.5
    assert low <= mean <= high
    assert by_kind_mean([second, first], chosen, problems)[0] == pytest.approx(2.5 / 3)


def test_choosing_a_prompt_for_a_problem_does_not_reward_luck() -> None:
    rng = np.random.default_rng(0)
    coins = [given(rng.integers(0, 2, (800, 4)).astype(float)) for _ in range(4)]
    found = complementary_mean(coins)
    assert found is not None
    # Counted on the completions that chose, it would be near 0.94.
    assert found[0] == pytest.approx(0.5, abs=0.05)
    assert found[1][0] < 0.5 < found[1][1]


def test_the_base_has_no_distance_to_itself(engine: LocalEngine) -> None:
    task = LettersTask()
    (measured,) = kl_to_base(engine, task, task.problems("validation"), [task.seed_prompt], SamplingParams(6), 0)
    assert measured.mean == measured.per_completion == 0.0
    assert measured.tokens > 0


def test_the_drift_of_a_completion_is_the_sum_over_its_tokens(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, sums = LettersTask(), []

    def kl(sequences: Sequence[TokenSequence]) -> list[list[float]]:
        rows = [[0.25 + at for at in range(len(each.completion_tokens))] for each in sequences]
        sums.extend(map(sum, rows))
        return rows

    monkeypatch.setattr(engine, "kl_to_base", kl)
    problems = task.problems("validation")
    (measured,) = kl_to_base(engine, task, problems, [task.seed_prompt], SamplingParams(6), 0)
    assert measured.completions == len(sums) == len(problems)
    assert measured.per_completion == pytest.approx(np.mean(sums))
    assert measured.mean == pytest.approx(np.sum(sums) / measured.tokens) and measured.per_completion > measured.mean


def texts(result: EvaluationResult) -> list[str]:
    return [rollout.turns[-1].text for rollout in result.rollouts]


def test_prompts_that_are_measured_together_have_what_each_has_alone(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(small_config(tiny_model_dir, tmp_path / "run", method="rl", steps=2))
    other, calls, sample = Prompt.of("Write one letter."), [0], LocalEngine.sample

    def counted(*arguments: Any) -> Any:
        calls[0] += 1
        return sample(*arguments)

    monkeypatch.setattr(LocalEngine, "sample", counted)
    together = evaluate(result.run, prompt=["seed", other, "seed", "best"], kl=True)
    # Of mean@k and of the KL one each: every prompt's first wave is every other's.
    assert calls == [2]
    assert [row.label for row in together.rows] == ["seed", "given", "seed", "best"]
    assert together.complementary is None
    alone = [evaluate(result.run, prompt=prompt, kl=True).rows[0] for prompt in ("seed", other)]
    for row, expected in zip(together.rows, (alone[0], alone[1], alone[0], alone[0]), strict=True):
        assert texts(row.result) == texts(expected.result) and row.result.mean == expected.result.mean
        assert row.kl is not None and expected.kl is not None
        # Sums of products of other shapes are rounded otherwise.
        assert row.kl.mean == pytest.approx(expected.kl.mean, rel=1e-4) and row.kl.tokens == expected.kl.tokens
    assert texts(alone[0].result) != texts(alone[1].result)
    with pytest.raises(ConfigError, match="prompt: the sequence is empty"):
        evaluate(result.run, prompt=[])


def test_problems_that_are_asked_for_and_not_there_are_told(caplog: pytest.LogCaptureFixture) -> None:
    task = LettersTask(validation=3)
    assert len(_problems(task, "validation", 10_000)) == 3
    assert "problems: 10000 were asked for, and the validation split of 'letters' has 3" in caplog.text
    caplog.clear()
    assert len(_problems(task, "validation", 2)) == 2 and not caplog.text


def test_an_evaluation_says_what_it_does_and_how_far_it_is(tiny_model_dir: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, dict[str, object]]] = []
    config = small_config(tiny_model_dir, tmp_path / "run")
    evaluate(tiny_model_dir, config=config, problems=3, k=2, kl=True, tell=lambda *event: heard.append(event))
    phases = [payload["name"] for kind, payload in heard if kind == "phase"]
    assert phases == ["loading", "evaluating under seed", "measuring the KL under seed"]
    ends = [payload for kind, payload in heard if kind == "progress" and payload["done"] == payload["total"]]
    assert {"done": 6, "total": 6, "unit": "completions"} in ends
