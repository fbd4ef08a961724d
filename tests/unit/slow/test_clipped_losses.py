"""PPO, DAPO, Dr. GRPO and GSPO against values worked out by hand, and where two of them are one."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fastslow.config import Config, apply_override, parse_config
from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.plan import describe
from fastslow.slow.engine import NO_UPDATE, Datum, LossSettings, UpdateMetrics
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.losses import LOSSES, Loss, LossInputs, find_loss
from fastslow.slow.settings import LOSS_DEFAULTS, SlowConfig

from runs import small_config

MINIMAL = {"model": {"name": "m"}, "task": {"name": "t"}}
TOKEN_LOSSES = ("ppo", "dapo", "dr_grpo")
# Above the ceiling, below the floor and between, each with an advantage of either sign.
RATIOS = [1.5, 1.5, 0.5, 0.5, 1.1, 0.9]
ADVANTAGES = [2.0, -2.0, 3.0, -3.0, 1.0, -1.0]


def inputs_of(
    ratios: list[float], advantages: list[float], lengths: tuple[int, ...], low: float = 0.2, high: float = 0.2
) -> LossInputs:
    """Float64, the sampler's log-probabilities -1; the learner's take a gradient."""
    sampler = torch.full((len(ratios),), -1.0, dtype=torch.float64)
    learner = (sampler + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_()
    advantages_N = torch.tensor(advantages, dtype=torch.float64)
    settings = LossSettings(tau=1.0 + high, floor=1.0 - low)
    return LossInputs(learner, sampler, advantages_N, torch.ones_like(sampler), torch.tensor(lengths), settings)


def gradient(loss: Loss, inputs: LossInputs) -> list[float]:
    (found,) = torch.autograd.grad(loss(inputs).loss.sum(), inputs.learner_logprobs_N)
    return list(found.tolist())


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_the_clip_by_hand(name: str) -> None:
    inputs = inputs_of(RATIOS, ADVANTAGES, (4, 2))
    output = find_loss(name)(inputs)
    # -min(1.5 * 2, 1.2 * 2), -min(1.5 * -2, 1.2 * -2), -min(0.5 * 3, 0.8 * 3), -min(0.5 * -3, 0.8 * -3), ...
    assert output.loss.tolist() == pytest.approx([-2.4, 3.0, -1.5, 2.4, -1.1, 0.9])
    # -ratio * advantage, except where the clip makes the objective smaller
    assert gradient(find_loss(name), inputs) == pytest.approx([0.0, 3.0, -1.5, 0.0, -1.1, 0.9])
    assert output.metrics["clip_fraction"].tolist() == [True, False, False, True, False, False]


def test_the_ceiling_of_dapo_is_higher_than_its_floor_is_low() -> None:
    inputs = inputs_of([1.25, 1.3, 0.75], [1.0, 1.0, -1.0], (3,), low=0.2, high=0.28)
    assert find_loss("dapo")(inputs).loss.tolist() == pytest.approx([-1.25, -1.28, 0.8])
    assert gradient(find_loss("dapo"), inputs) == pytest.approx([-1.25, 0.0, 0.0])


def test_gspo_by_hand() -> None:
    # Ratios of completions: (1.5 * 0.96) ** (1 / 2) = 1.2; 0.5; (0.9 * 1.1 * x) ** (1 / 3) = 1.05
    third = 1.05**3 / (0.9 * 1.1)
    inputs = inputs_of([1.5, 0.96, 0.5, 0.9, 1.1, third], [2.0, 2.0, -3.0, 1.0, 1.0, 1.0], (2, 1, 3), low=0.1, high=0.1)
    output = find_loss("gspo").function(inputs)
    assert output.loss.tolist() == pytest.approx([-2.2, 2.7, -1.05])  # one value a completion
    assert output.metrics["clip_fraction"].tolist() == [True, True, False]
    # A completion's value holds for each of its tokens, and each has 1 / |y| of the gradient of |y| such values.
    assert gradient(find_loss("gspo"), inputs) == pytest.approx([0.0, 0.0, 0.0, -1.05, -1.05, -1.05])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("lengths", [(6,), (1, 2, 3)])
def test_on_fresh_rollouts_every_loss_has_the_gradient_of_importance_sampling(
    name: str, lengths: tuple[int, ...]
) -> None:
    per_completion = [2.0, -1.0, 0.5]
    advantages = [value for value, length in zip(per_completion, lengths, strict=False) for _ in range(length)]
    inputs = inputs_of([1.0] * 6, advantages, lengths, *clips(name))
    assert gradient(find_loss(name), inputs) == pytest.approx(gradient(find_loss("importance_sampling"), inputs))


@pytest.mark.parametrize("name", ["dapo", "dr_grpo", "gspo"])
def test_with_the_same_clips_and_completions_of_one_token_all_are_ppo(name: str) -> None:
    inputs = inputs_of(RATIOS, ADVANTAGES, (1,) * 6)
    one, ppo = find_loss(name)(inputs), find_loss("ppo")(inputs)
    assert torch.equal(one.loss, ppo.loss)
    assert torch.equal(one.metrics["clip_fraction"], ppo.metrics["clip_fraction"])
    assert gradient(find_loss(name), inputs) == gradient(find_loss("ppo"), inputs)


def test_without_a_clip_in_reach_ppo_is_importance_sampling() -> None:
    inputs = inputs_of(RATIOS, ADVANTAGES, (4, 2), low=1.0, high=9.0)
    assert torch.equal(find_loss("ppo")(inputs).loss, find_loss("importance_sampling")(inputs).loss)


# -- what a loss brings with it ----------------------------------------------------------------------------------------


def clips(name: str) -> tuple[float, float]:
    return LOSS_DEFAULTS[name].clip_low, LOSS_DEFAULTS[name].clip_high


def of(tree: dict[str, object]) -> Config:
    return parse_config({**MINIMAL, **tree})


def test_every_loss_of_the_package_says_what_holds_with_it() -> None:
    assert LOSS_DEFAULTS.keys() == LOSSES.keys()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cispo", (1.0, 3.0, "problem", True, True)), ("importance_sampling", (1.0, 3.0, "problem", True, True)),
        ("ppo", (0.2, 0.2, "sequence", True, True)), ("dapo", (0.2, 0.28, "problem", True, True)),
        ("dr_grpo", (0.2, 0.2, "constant", False, False)), ("gspo", (3e-4, 4e-4, "sequence", True, True)),
        ("mine:loss", (1.0, 3.0, "problem", True, True)),
    ],
)  # fmt: skip
def test_what_holds_where_the_config_is_silent_depends_on_the_loss(loss: str, expected: tuple[object, ...]) -> None:
    config = of({"slow": {"loss": loss}})
    slow, loop = config.slow, config.loop
    found = (slow.clip_low, slow.clip_high, slow.aggregation, loop.divide_by_std, loop.batch_normalisation)
    assert found == expected
    assert parse_config(config.model_dump(mode="json")) == config
    tree = of({}).model_dump(mode="json")
    apply_override(tree, f"slow.loss={loss}")  # of a config with every default written out
    assert parse_config(tree) == config


def test_what_the_config_says_holds() -> None:
    config = of({"slow": {"loss": "gspo", "clip_low": 0.1, "aggregation": "token"}, "loop": {"divide_by_std": False}})
    slow = config.slow
    assert (slow.clip_low, slow.clip_high, slow.aggregation, config.loop.divide_by_std) == (0.1, 4e-4, "token", False)
    tree = config.model_dump(mode="json")
    apply_override(tree, "slow.loss=ppo")
    again = parse_config(tree).slow
    assert (again.clip_low, again.clip_high, again.aggregation) == (0.1, 0.2, "token")
    assert SlowConfig(loss="ppo").tau == 1.2


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"slow": {"aggregation": "sequence"}}, "slow.aggregation: 'sequence' is not dr_grpo"),
        ({"loop": {"divide_by_std": True}}, "loop.divide_by_std: True is not dr_grpo"),
        ({"loop": {"batch_normalisation": True}}, "loop.batch_normalisation: True is not dr_grpo"),
    ],
)
def test_dr_grpo_divides_by_nothing(tree: dict[str, dict[str, object]], complaint: str) -> None:
    slow = {"loss": "dr_grpo", **tree.get("slow", {})}
    with pytest.raises(ConfigError, match=complaint + ", which divides by neither lengths nor deviations"):
        of({**tree, "slow": slow})
    assert of({**tree, "slow": {**slow, "loss": "ppo"}}).slow.loss == "ppo"


def test_a_dry_run_says_what_holds(tiny_model_dir: Path, tmp_path: Path) -> None:
    slow = {"loss": "dr_grpo", "entropy_coefficient": 0.01}
    text = describe(small_config(tiny_model_dir, tmp_path / "run", method="rl", slow=slow))
    for phrase in (
        "loss: dr_grpo, importance ratio clamped to [0.8, 1.2] (absolute)",
        "a step's loss: the sum over the tokens of a rollout by sampling.max_tokens, then the mean over rollouts and "
        "problems; entropy bonus 0.01",
        "not divided by a deviation\n",
    ):
        assert phrase in text


def test_a_run_hands_to_its_engine_what_its_config_says(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Sequence[Datum], LossSettings]] = []

    def train_step(
        self: LocalEngine, datums: Sequence[Datum], loss: LossSettings, learning_rate: float
    ) -> UpdateMetrics:
        seen.append((datums, loss))
        return NO_UPDATE

    monkeypatch.setattr(LocalEngine, "train_step", train_step)
    slow = {"loss": "dr_grpo", "entropy_coefficient": 0.01, "kl_coefficient": 0.0}
    config = small_config(tiny_model_dir, tmp_path / "run", method="rl", steps=1, slow=slow)
    train(config)
    ((datums, loss),) = seen
    assert loss == LossSettings("dr_grpo", 1.2, 0.0, config.sampling.temperature, 0.8, entropy_coefficient=0.01)
    problems, rollouts = config.loop.problems_per_step, config.loop.group_size
    assert {datum.token_weight for datum in datums} == {1 / (config.sampling.max_tokens * rollouts * problems)}
    with pytest.raises(
        ConfigError, match=r"slow.entropy_coefficient: 0.01 is for a policy loss, and method 'distill' has"
    ):
        train(
            small_config(
                tiny_model_dir, tmp_path / "other", method="distill", distill={"prompt": "two words"}, slow=slow
            )
        )


def test_log_ratios_are_means_for_gspo_so_that_length_does_not_matter() -> None:
    short, long = inputs_of([1.05], [1.0], (1,)), inputs_of([1.05] * 50, [1.0] * 50, (50,))
    values = [find_loss("gspo").function(inputs).loss.item() for inputs in (short, long)]
    assert values == pytest.approx([-1.05, -1.05])
    assert math.prod([1.05] * 50) > 11  # the plain ratio of the completion
