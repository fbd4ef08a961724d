"""Advantages and token weights against values worked out by hand."""

import math
from dataclasses import replace

import pytest

from fastslow.config import parse_config
from fastslow.slow.advantages import (
    AdvantageSettings,
    advantage_settings,
    batch_normalise,
    build_datums,
    group_advantages,
)
from fastslow.slow.settings import Aggregation
from fastslow.types import Completion, Rollout, Turn

RAW = AdvantageSettings(divide_by_std=False, batch_normalisation=False)


def rollout(reward: float | None, tokens: int = 1, prompt: str = "a") -> Rollout:
    return Rollout(
        problem_id="p",
        prompt_hash=prompt,
        turns=(Turn((1, 2), Completion((5,) * tokens, (-1.0,) * tokens, "stop"), "x"),),
        reward=reward,
        feedback="",
        failure=None if reward is not None else "the scorer crashed",
        policy_version=0,
        source="rl",
    )


def test_group_advantages_use_the_population_deviation() -> None:
    # mean 1/4, population std sqrt(3)/4 (the sample std would be 1/2)
    assert group_advantages([1, 0, 0, 0]) == pytest.approx([math.sqrt(3)] + [-1 / math.sqrt(3)] * 3, rel=1e-5)


def test_group_advantages_without_division() -> None:
    assert group_advantages([1, 0, 0, 0], divide_by_std=False) == [0.75, -0.25, -0.25, -0.25]


@pytest.mark.parametrize("rewards", [[0.0] * 4, [0.1] * 3, [1.0], []])
def test_a_group_of_equal_rewards_carries_no_signal(rewards: list[float]) -> None:
    assert group_advantages(rewards) == [0.0] * len(rewards)


def test_nearly_equal_rewards_are_not_blown_up() -> None:
    # std 1e-9 is far below epsilon 1e-6: 1e-9 / (1e-9 + 1e-6)
    assert group_advantages([2e-9, 0.0]) == pytest.approx([9.99e-4, -9.99e-4], rel=1e-3)


def test_batch_normalisation_divides_by_the_root_mean_square() -> None:
    rms = math.sqrt(2.5)
    expected = [1 / rms, -1 / rms, 2 / rms, -2 / rms]
    assert batch_normalise([1.0, -1.0, 2.0, -2.0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("advantages", [[], [0.0, 0.0]])
def test_batch_normalisation_of_nothing_is_nothing(advantages: list[float]) -> None:
    assert batch_normalise(advantages) == advantages


def test_token_weights_are_a_token_mean_in_each_problem_and_a_mean_over_problems() -> None:
    groups = [[rollout(1.0, 2), rollout(0.0, 3)], [rollout(1.0, 1), rollout(0.0, 7)]]
    datums = build_datums(groups, RAW)
    assert [datum.token_weight for datum in datums] == pytest.approx([1 / 10, 1 / 10, 1 / 16, 1 / 16])
    assert [datum.advantage for datum in datums] == [0.5, -0.5, 0.5, -0.5]
    totals = [sum(d.token_weight * len(d.completion_tokens) for d in pair) for pair in (datums[:2], datums[2:])]
    assert totals == pytest.approx([0.5, 0.5])


def test_groups_without_signal_count_as_problems_but_give_no_datums() -> None:
    datums = build_datums([[rollout(1.0, 4), rollout(0.0, 4)], [rollout(0.0, 2), rollout(0.0, 2)]], RAW)
    assert len(datums) == 2
    assert [datum.token_weight for datum in datums] == pytest.approx([1 / 16, 1 / 16])


def test_a_zero_advantage_within_a_group_is_left_out_but_its_tokens_count() -> None:
    datums = build_datums([[rollout(1.0, 1), rollout(0.5, 2), rollout(0.0, 5)]], RAW)
    assert [(datum.advantage, datum.token_weight) for datum in datums] == [(0.5, 1 / 8), (-0.5, 1 / 8)]


def test_masked_rollouts_are_left_out_of_every_mean() -> None:
    groups = [[rollout(1.0, 2), rollout(0.0, 2), rollout(None, 90)], [rollout(None), rollout(None)]]
    datums = build_datums(groups, RAW)
    assert [(datum.advantage, datum.token_weight) for datum in datums] == [(0.5, 1 / 4), (-0.5, 1 / 4)]


def test_problem_and_prompt_baselines() -> None:
    group = [rollout(1.0, prompt="a"), rollout(0.0, prompt="a"), rollout(1.0, prompt="b"), rollout(1.0, prompt="b")]
    by_problem = build_datums([group], RAW)
    assert [datum.advantage for datum in by_problem] == [0.25, -0.75, 0.25, 0.25]
    by_prompt = build_datums([group], AdvantageSettings("prompt", divide_by_std=False, batch_normalisation=False))
    assert [datum.advantage for datum in by_prompt] == [0.5, -0.5]
    assert [datum.token_weight for datum in by_prompt] == [0.25, 0.25]


def test_prompt_baseline_keeps_interleaved_rollouts_apart() -> None:
    group = [rollout(1.0, 1, "a"), rollout(1.0, 2, "b"), rollout(0.0, 3, "a"), rollout(0.0, 4, "b")]
    datums = build_datums([group], AdvantageSettings("prompt", divide_by_std=False, batch_normalisation=False))
    assert [(len(d.completion_tokens), d.advantage) for d in datums] == [(1, 0.5), (2, 0.5), (3, -0.5), (4, -0.5)]


def test_batch_normalisation_spans_the_groups_of_a_step() -> None:
    groups = [[rollout(1.0), rollout(0.0)], [rollout(0.0), rollout(0.0)]]
    datums = build_datums(groups, AdvantageSettings())
    # advantages 1, -1, 0, 0 have root mean square sqrt(1/2)
    assert [datum.advantage for datum in datums] == pytest.approx([math.sqrt(2), -math.sqrt(2)], rel=1e-4)


def test_a_step_without_any_reward_gives_no_datums() -> None:
    assert build_datums([[rollout(None)], []], AdvantageSettings()) == []


@pytest.mark.parametrize(
    ("advantages", "expected"),
    [
        ([1.0, -1.0], [1 / (1 + 1e-6), -1 / (1 + 1e-6)]),  # root mean square 1
        ([3.0], [3 / (3 + 1e-6)]),  # a batch of one is divided by its own size
    ],
)
def test_batch_normalisation_adds_epsilon_to_the_root_mean_square(
    advantages: list[float], expected: list[float]
) -> None:
    assert batch_normalise(advantages) == expected


@pytest.mark.parametrize("baseline", ["problem", "prompt"])
def test_dividing_by_the_deviation_does_not_need_batch_normalisation(baseline: str) -> None:
    group = [rollout(1.0), rollout(0.0), rollout(0.0), rollout(0.0)]
    datums = build_datums([group], AdvantageSettings(baseline, divide_by_std=True, batch_normalisation=False))
    # mean 1/4, population std sqrt(3)/4
    expected = [math.sqrt(3)] + [-1 / math.sqrt(3)] * 3
    assert [datum.advantage for datum in datums] == pytest.approx(expected, rel=1e-5)


def test_a_datum_holds_what_the_sampler_saw_and_said() -> None:
    first, second = build_datums([[rollout(1.0, 2), rollout(0.0, 3)]], RAW)
    assert (first.context_tokens, first.completion_tokens, first.sampler_logprobs) == ((1, 2), (5, 5), (-1.0, -1.0))
    assert (second.context_tokens, second.completion_tokens) == ((1, 2), (5, 5, 5))


def test_rollouts_of_the_weights_that_are_updated_are_fresh() -> None:
    """Whoever sampled them, the search or the training; where no version is given, all are."""
    versions = {0: "rl", 2: "gepa", 3: "gepa"}
    group = [replace(rollout(float(v > 1)), policy_version=v, source=s) for v, s in versions.items()]  # type: ignore[arg-type]
    assert [datum.fresh for datum in build_datums([group], RAW, 3)] == [False, False, True]
    assert [datum.fresh for datum in build_datums([group], RAW)] == [True, True, True]


# Lengths 2 and 3, 1 and 4; the masked rollout counts nowhere.
GROUPS = [[rollout(1.0, 2), rollout(0.0, 3), rollout(None, 9)], [rollout(1.0, 1), rollout(0.0, 4)]]


@pytest.mark.parametrize(
    ("aggregation", "weights"),
    [
        ("problem", [1 / 10, 1 / 10, 1 / 10, 1 / 10]),
        ("token", [1 / 10, 1 / 10, 1 / 10, 1 / 10]),
        ("sequence", [1 / 8, 1 / 12, 1 / 4, 1 / 16]),
        ("constant", [1 / 32, 1 / 32, 1 / 32, 1 / 32]),
    ],
)
def test_token_weights_by_hand(aggregation: Aggregation, weights: list[float]) -> None:
    settings = AdvantageSettings(divide_by_std=False, batch_normalisation=False, aggregation=aggregation, max_tokens=8)
    assert [datum.token_weight for datum in build_datums(GROUPS, settings)] == pytest.approx(weights)


def test_tokens_of_the_step_weigh_the_same_where_those_of_a_problem_do_not() -> None:
    groups = [[rollout(1.0, 2), rollout(0.0, 2)], [rollout(1.0, 8), rollout(0.0, 8)]]
    weights = {
        kind: [datum.token_weight for datum in build_datums(groups, AdvantageSettings(aggregation=kind))]
        for kind in ("problem", "token")
    }
    assert weights == {"problem": [1 / 8, 1 / 8, 1 / 32, 1 / 32], "token": [1 / 20] * 4}


def test_the_settings_are_those_of_the_run() -> None:
    loop = {"baseline": "prompt", "divide_by_std": False, "batch_normalisation": True, "group_size": 16}
    config = parse_config(
        {
            "model": {"name": "m"},
            "task": {"name": "t"},
            "loop": loop,
            "slow": {"aggregation": "token"},
            "sampling": {"max_tokens": 77},
        }
    )
    assert advantage_settings(config) == AdvantageSettings("prompt", False, True, "token", 77)
    config = config.model_copy(
        update={"loop": config.loop.model_copy(update={"divide_by_std": True, "batch_normalisation": False})}
    )
    assert advantage_settings(config) == AdvantageSettings("prompt", True, False, "token", 77)
