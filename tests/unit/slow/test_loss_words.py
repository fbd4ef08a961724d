"""What a config says of its loss, word for word: which clips it may set, what it divides by, how it is described."""

import pytest
import torch

from fastslow.errors import ConfigError
from fastslow.slow.losses import (
    LOSSES,
    Loss,
    LossInputs,
    LossOutput,
    describe_aggregation,
    describe_loss,
    find_loss,
    policy_loss,
    scaled_against_its_definition,
    unused_clip,
    unused_clip_of_a_known_loss,
)
from fastslow.slow.settings import SlowConfig


def of(**slow: object) -> SlowConfig:
    return SlowConfig.model_validate(slow)


def raw(inputs: LossInputs) -> LossOutput:
    return LossOutput(torch.zeros_like(inputs.advantages_N))


def test_a_loss_has_what_it_declares() -> None:
    declared = policy_loss(uses=("clip_low",), server="ppo")(raw)
    assert (declared.function, declared.uses, declared.server) == (raw, ("clip_low",), "ppo")
    plain = policy_loss()(raw)
    assert (plain.uses, plain.server) == ((), None)


def test_a_plain_function_becomes_a_loss() -> None:
    assert find_loss(f"{__name__}:raw") == Loss(raw)


def test_a_floor_that_the_loss_does_not_have_is_told_with_its_default() -> None:
    said = "slow.clip_low: 0.5 sets a floor, which cispo does not have: set it to 1.0"
    floor = of().clip_low
    assert unused_clip(of(clip_low=0.5), find_loss("cispo")) == said.replace("1.0", str(floor))
    assert unused_clip(of(clip_low=0.5), Loss(raw, ("clip_low",))) is None


def test_a_floor_below_zero_does_nothing_and_one_at_zero_is_told() -> None:
    assert unused_clip(of(clip_low=1.5), find_loss("cispo")) is None
    assert unused_clip(of(clip_low=1.5), Loss(raw)) is not None
    said = unused_clip(of(loss="ppo", clip_low=1.0), Loss(raw, ("clip_high",)))
    assert said == "slow.clip_low: 1.0 sets a floor, which ppo does not have: set it to 0.2"


def test_the_defaults_are_those_of_the_loss_that_is_named() -> None:
    for_ppo = of(loss="ppo")
    assert unused_clip(for_ppo, Loss(raw)) is None
    assert unused_clip(of(loss="ppo", clip_high=0.3), Loss(raw)) == (
        "slow.clip_high: 0.3 sets a ceiling, which ppo does not have: leave it at 0.2, or take slow.loss: cispo"
    )


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_complains_of_its_own_defaults(name: str) -> None:
    assert unused_clip_of_a_known_loss(of(loss=name)) is None


def test_while_a_config_is_parsed_known_losses_are_judged_by_what_they_use() -> None:
    import_path = of().model_copy(update={"loss": "nowhere.at_all:mine", "clip_low": 0.1})
    assert unused_clip_of_a_known_loss(import_path) is None
    weighted = of().model_copy(update={"loss": "importance_sampling", "clip_high": 0.1})
    assert "sets a ceiling, which importance_sampling" in str(unused_clip_of_a_known_loss(weighted))
    ppo = of(loss="ppo").model_copy(update={"clip_low": 0.1})
    assert unused_clip_of_a_known_loss(ppo) is None
    unknown = of().model_copy(update={"loss": "unknown", "clip_high": 0.1})
    assert unused_clip_of_a_known_loss(unknown) is None
    assert "sets a floor, which unknown" in str(
        unused_clip_of_a_known_loss(of().model_copy(update={"loss": "unknown", "clip_low": 0.1}))
    )


@pytest.mark.parametrize(
    ("aggregation", "std", "batch", "key", "given", "needed"),
    [
        ("token", False, False, "slow.aggregation", "'token'", "'constant'"),
        ("constant", True, False, "loop.divide_by_std", "True", "False"),
        ("constant", False, True, "loop.batch_normalisation", "True", "False"),
    ],
)
def test_what_dr_grpo_must_not_divide_by(
    aggregation: str, std: bool, batch: bool, key: str, given: str, needed: str
) -> None:
    slow = of(loss="dr_grpo", aggregation=aggregation)
    assert scaled_against_its_definition(slow, divide_by_std=std, batch_normalisation=batch) == (
        f"{key}: {given} is not dr_grpo, which divides by neither lengths nor deviations: set it to {needed} or leave "
        "it out, or take slow.loss: ppo, which has the same clip"
    )
    ppo = of(loss="ppo", aggregation=aggregation)
    assert scaled_against_its_definition(ppo, divide_by_std=std, batch_normalisation=batch) is None


def test_dr_grpo_as_it_is_defined_is_taken() -> None:
    slow = of(loss="dr_grpo", aggregation="constant")
    assert scaled_against_its_definition(slow, divide_by_std=False, batch_normalisation=False) is None


@pytest.mark.parametrize(
    ("slow", "words"),
    [
        ({}, "loss: cispo, importance ratio clamped to [0, 4] (absolute)"),
        ({"clip_low": 1.5}, "loss: cispo, importance ratio clamped to [0, 4] (absolute)"),
        ({"loss": "ppo"}, "loss: ppo, importance ratio clamped to [0.8, 1.2] (absolute)"),
        ({"loss": "dapo", "clip_low": 0.1}, "loss: dapo, importance ratio clamped to [0.9, 1.28] (absolute)"),
        ({"loss": "importance_sampling"}, "loss: importance_sampling"),
    ],
)
def test_a_loss_in_words(slow: dict[str, object], words: str) -> None:
    assert describe_loss(of(**slow)) == words


def test_an_aggregation_in_words() -> None:
    plain = describe_aggregation(of(aggregation="token"))
    assert plain.startswith("a step's loss: ") and "entropy" not in plain
    assert describe_aggregation(of(aggregation="token", entropy_coefficient=0.01)) == f"{plain}; entropy bonus 0.01"


def test_a_loss_that_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="name a function from LossInputs to LossOutput"):
        find_loss(f"{__name__}:SlowConfig")
