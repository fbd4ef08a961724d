"""Learning rates by hand, and what their length is."""

import math
from pathlib import Path

import pytest

from fastslow.errors import ConfigError, ResumeError
from fastslow.loop import train
from fastslow.plan import describe
from fastslow.slow.schedule import check_schedule, describe_schedule, learning_rate
from fastslow.slow.settings import SlowConfig

from runs import metrics_of, record_of, small_config


def rates(updates: int, **slow: object) -> list[float]:
    config = SlowConfig.model_validate({"learning_rate": 1.0, "warmup_steps": 2, **slow})
    return [learning_rate(config, update, updates) for update in range(updates)]


def test_warm_up_is_linear_from_zero_and_constant_is_what_it_was() -> None:
    assert rates(4) == [0.5, 1.0, 1.0, 1.0]
    assert rates(2, warmup_steps=0) == [1.0, 1.0]
    for update in range(12):  # to the last bit
        assert learning_rate(SlowConfig(), update, 100) == 1e-6 * min(1.0, (update + 1) / 10)


def test_linear_falls_in_equal_parts_and_would_be_0_after_the_last_update() -> None:
    assert rates(6, schedule="linear") == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])
    assert rates(3, schedule="linear", schedule_steps=6) == pytest.approx([0.5, 1.0, 0.8])


def test_cosine_by_hand() -> None:
    expected = [0.5, *(0.5 * (1 + math.cos(math.pi * part / 4)) for part in range(4))]
    assert rates(5, schedule="cosine") == pytest.approx(expected)
    assert min(rates(500, schedule="cosine")) > 0


def test_a_length_that_means_nothing_or_ends_too_early_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"slow.schedule_steps: 9 is the length of a schedule, and slow.schedule is con"
    ):
        check_schedule(SlowConfig(schedule_steps=9), 5)
    with pytest.raises(
        ConfigError, match=r"slow.schedule_steps: after 9 the learning rate is 0, .* set it to 10 or more"
    ):
        check_schedule(SlowConfig(schedule="linear", schedule_steps=9), 10)
    check_schedule(SlowConfig(schedule="linear", schedule_steps=10), 10)
    assert describe_schedule(SlowConfig(schedule="linear", warmup_steps=0), 4) == (
        "learning rate 1e-06 after 0 steps of warm-up, then linear over 4 training steps, 2.5e-07 in the last of them"
    )


def test_a_run_follows_its_schedule_and_a_resumed_one_goes_on_to_the_last_bit(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    slow = {"schedule": "cosine"}
    whole = small_config(
        tiny_model_dir, tmp_path / "whole", method="rl", steps=4, slow=slow, task={"name": "toy:LettersTask"}
    )
    assert "then cosine over 4 training steps" in describe(whole)
    train(whole)
    expected = [learning_rate(whole.slow, update, 4) for update in range(4)]
    assert [line["slow/learning_rate"] for line in metrics_of(tmp_path / "whole")[1:]] == expected
    longer = small_config(tiny_model_dir, tmp_path / "cut", method="rl", steps=2, slow={**slow, "schedule_steps": 4})
    train(longer)
    train(longer.model_copy(update={"steps": 4}), resume=tmp_path / "cut")
    assert metrics_of(tmp_path / "cut")[1:][-1]["slow/learning_rate"] == expected[-1]
    assert record_of(tmp_path / "cut")["weights"] == record_of(tmp_path / "whole")["weights"]


def test_a_run_whose_schedule_would_be_bent_is_not_resumed(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", method="rl", steps=2, slow={"schedule": "linear"})
    train(config)
    with pytest.raises(
        ResumeError, match=r"steps: 3 instead of 2 would bend the learning rate of slow.schedule: linear"
    ):
        train(config.model_copy(update={"steps": 3}), resume=tmp_path / "run")


def test_steps_that_only_search_are_no_part_of_the_schedule(tiny_model_dir: Path, tmp_path: Path) -> None:
    settings = {"method": "distill", "distill": {"cycles": 2}, "slow": {"schedule": "linear"}, "steps": 5}
    assert "then linear over 3 training steps" in describe(small_config(tiny_model_dir, tmp_path / "run", **settings))
