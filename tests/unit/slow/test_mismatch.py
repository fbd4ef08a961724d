"""Sampler against learner: the measures and the corrections, worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.slow.engine import Correction, Datum, LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.losses import LossInputs, LossOutput, cispo, importance_sampling, policy_loss
from fastslow.slow.mismatch import Mismatch, check_correction, correct, describe_correction, ways_out
from fastslow.slow.settings import ModelConfig, SlowConfig

from runs import small_config

TRUNCATE, MASK = Correction("truncate", 0.0, 2.0), Correction("mask", 0.5, 2.0)
# Ratios 5, 0.5 and 1.
LEARNER, SAMPLER = [0.5, 0.3, 0.2], [0.1, 0.6, 0.2]
ADVANTAGES = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)


def logs(probs: list[float]) -> torch.Tensor:
    return torch.tensor([math.log(p) for p in probs], dtype=torch.float64)


def inputs_of(learner: torch.Tensor, sampler: torch.Tensor, correction: Correction, lengths: list[int]) -> LossInputs:
    """Tokens of weight 1."""
    settings = LossSettings(tau=4.0, correction=correction)
    return LossInputs(learner, sampler, ADVANTAGES, torch.ones_like(ADVANTAGES), torch.tensor(lengths), settings)


def corrected(
    loss: Any, correction: Correction, lengths: list[int], fresh: list[bool], sampler: torch.Tensor | None = None
) -> tuple[list[float], list[float], int]:
    """The weighted loss of each token as the engine makes it, its gradient, and the completions that were left out."""
    learner = logs(LEARNER).requires_grad_()
    made = correct(
        inputs_of(learner, logs(SAMPLER) if sampler is None else sampler, correction, lengths), torch.tensor(fresh)
    )
    total = made.inputs.token_weights_N * made.factor_N * loss(made.inputs).loss
    total.sum().backward()
    assert learner.grad is not None and not made.factor_N.requires_grad
    return total.tolist(), learner.grad.tolist(), made.masked


# -- measures ----------------------------------------------------------------------------------------------------------


def test_k3_mean_and_maximum_by_hand() -> None:
    found = Mismatch()
    assert math.isnan(found.kl) and math.isnan(found.mean) and math.isnan(found.max) and found.tokens == 0
    found.add(torch.tensor([math.log(2.0), 0.0], dtype=torch.float64))
    found.add(torch.tensor([]))
    found.add(torch.tensor([-math.log(4.0)], dtype=torch.float64))
    # 2 - log 2 - 1, 0 and 1/4 + log 4 - 1
    assert found.kl == pytest.approx((1 - math.log(2) + 0 + math.log(4) - 0.75) / 3)
    assert (found.mean, found.max, found.tokens) == (pytest.approx(math.log(2)), pytest.approx(math.log(4)), 3)


def test_k3_of_a_rounding_error_is_half_its_square_and_not_lost_in_float32() -> None:
    found = Mismatch()
    found.add(torch.full((4,), 1e-5))
    assert found.kl == pytest.approx(5e-11, rel=1e-4)


def test_k3_estimates_the_divergence_of_the_sampler_from_the_learner() -> None:
    sampler, learner = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
    gaps = learner.log() - sampler.log()
    exact = float((sampler * -gaps).sum())
    drawn = [token for token, times in ((0, 5), (1, 3), (2, 2)) for _ in range(times)]  # as often as the sampler does
    found = Mismatch()
    found.add(gaps[drawn])
    assert found.kl == pytest.approx(exact)


def test_nan_is_not_taken_for_agreement() -> None:
    found = Mismatch()
    found.add(torch.tensor([math.nan, 0.1]))
    assert math.isnan(found.kl) and math.isnan(found.max)


# -- corrections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [[True], [False]])
def test_without_a_correction_nothing_changes(fresh: list[bool]) -> None:
    inputs = inputs_of(logs(LEARNER), logs(SAMPLER), Correction(), [3])
    made = correct(inputs, torch.tensor(fresh))
    assert made.inputs is inputs and made.factor_N.tolist() == [1.0, 1.0, 1.0] and made.masked == 0


def test_truncation_weighs_a_fresh_token_by_its_ratio_up_to_the_bound() -> None:
    loss, gradient, masked = corrected(importance_sampling, TRUNCATE, [2, 1], [True, True])
    # The loss sees a ratio of 1, so it is -A; factors min(5, 2), 0.5 and 1.
    assert loss == pytest.approx([-2 * 2.0, -0.5 * -1.0, -3.0])
    assert gradient == pytest.approx([-2 * 2.0, -0.5 * -1.0, -3.0])
    assert masked == 0


def test_truncated_importance_sampling_has_the_gradient_of_cispo_with_this_ceiling() -> None:
    """Why cispo refuses it: on fresh rollouts its clip is the truncation."""
    _, gradient, _ = corrected(importance_sampling, TRUNCATE, [3], [True])
    learner = logs(LEARNER).requires_grad_()
    inputs = inputs_of(learner, logs(SAMPLER), Correction(), [3])
    cispo(replace(inputs, settings=LossSettings(tau=2.0))).loss.sum().backward()
    assert learner.grad is not None and gradient == pytest.approx(learner.grad.tolist())


def test_a_reused_completion_keeps_its_ratio() -> None:
    loss, gradient, _ = corrected(importance_sampling, TRUNCATE, [2, 1], [False, True])
    assert loss == pytest.approx([-5 * 2.0, -0.5 * -1.0, -3.0])
    assert gradient == pytest.approx([-5 * 2.0, -0.5 * -1.0, -3.0])


def test_truncation_keeps_mismatch_out_of_the_clip_of_a_ppo_loss() -> None:
    """A fresh token with ratio 5 is clipped for its mismatch, where nothing is stale: it would teach nothing."""

    @policy_loss(uses=("clip_low", "clip_high"))
    def ppo(inputs: LossInputs) -> LossOutput:
        ratio = (inputs.learner_logprobs_N - inputs.sampler_logprobs_N).exp()
        clipped = ratio.clamp(0.8, 1.2)
        return LossOutput(-(ratio * inputs.advantages_N).minimum(clipped * inputs.advantages_N))

    _, plain, _ = corrected(ppo, Correction(), [3], [True])
    assert plain == pytest.approx([0.0, 0.0, -3.0])
    loss, gradient, _ = corrected(ppo, TRUNCATE, [3], [True])
    assert gradient == pytest.approx([-2 * 2.0, -0.5 * -1.0, -3.0]) and loss == pytest.approx(gradient)


def test_a_mask_leaves_out_completions_whose_ratio_is_out_of_bounds() -> None:
    # Products 5 * 0.5 = 2.5 and 1: the first is out.
    loss, gradient, masked = corrected(importance_sampling, MASK, [2, 1], [True, True])
    assert (loss, gradient, masked) == (pytest.approx([0.0, 0.0, -3.0]), pytest.approx([0.0, 0.0, -3.0]), 1)
    # Within bounds the loss is what it was: ratios 2.5 <= 3 and 1.
    loss, _, masked = corrected(importance_sampling, replace(MASK, high=3.0), [2, 1], [True, True])
    assert (loss, masked) == (pytest.approx([-10.0, 0.5, -3.0]), 0)
    # Alone, ratios 5, 0.5 and 1: above, inside and inside; below with a higher lower bound.
    assert corrected(cispo, replace(MASK, low=0.4), [1, 1, 1], [True] * 3)[2] == 1
    assert corrected(cispo, replace(MASK, low=0.6), [1, 1, 1], [True] * 3)[2] == 2
    assert corrected(cispo, replace(MASK, low=0.6), [1, 1, 1], [False, False, True])[2] == 0  # reused ones stay


def test_a_ratio_that_overflows_is_left_out_and_leaves_no_nan() -> None:
    sampler = logs(SAMPLER)
    sampler[0] = -2000.0
    loss, gradient, masked = corrected(importance_sampling, MASK, [2, 1], [True, True], sampler)
    assert (loss, gradient, masked) == (pytest.approx([0.0, 0.0, -3.0]), pytest.approx([0.0, 0.0, -3.0]), 1)


# -- in the local engine -----------------------------------------------------------------------------------------------


@pytest.fixture
def engine(tiny_model_dir: Path) -> LocalEngine:
    return LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"), SlowConfig(microbatch_tokens=24), threads=1)


def shifted(engine: LocalEngine, *shifts: float, fresh: bool = True) -> list[Datum]:
    """A rollout for each shift, whose log-probabilities were reported too high by it."""
    requests = [SampleRequest((10 + i, 11, 12), 1, seed=i) for i in range(len(shifts))]
    groups = engine.sample(requests, SamplingParams(6))
    return [
        Datum(r.context_tokens, c.tokens, tuple(v + shift for v in c.logprobs), 1.0 - 2 * (i % 2), 0.05, fresh)
        for i, (r, (c,), shift) in enumerate(zip(requests, groups, shifts, strict=True))
    ]


def test_the_update_measures_fresh_rollouts_over_all_micro_batches(engine: LocalEngine) -> None:
    datums = [*shifted(engine, 0.0, -0.5, 0.25), *shifted(engine, 3.0, fresh=False)]
    tokens = [len(datum.completion_tokens) for datum in datums]
    metrics = engine.train_step(datums, LossSettings(kl_coefficient=0.0), 1e-3)
    expected = tokens[1] * (math.expm1(0.5) - 0.5) + tokens[2] * (math.expm1(-0.25) + 0.25)
    assert metrics.mismatch_kl == pytest.approx(expected / sum(tokens[:3]), abs=1e-5)
    assert metrics.mismatch_max == pytest.approx(0.5, abs=1e-4)


def test_an_update_of_reused_rollouts_knows_no_mismatch(engine: LocalEngine) -> None:
    metrics = engine.train_step(shifted(engine, 0.0, 0.1, fresh=False), LossSettings(), 1e-3)
    assert math.isnan(metrics.mismatch_kl) and math.isnan(metrics.mismatch_max)


def test_a_masked_completion_is_as_if_it_were_not_there(tiny_model_dir: Path) -> None:
    """Its KL penalty included; the weights of the others stay."""
    engines = [LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"), threads=1) for _ in range(2)]
    loss = LossSettings(kl_coefficient=0.1, correction=MASK)
    for engine in engines:
        engine.train_step(
            shifted(engine, 0.0, 0.0), LossSettings(), 1e-2
        )  # away from the base, so that there is a penalty
    datums = shifted(engines[0], 0.0, -9.0, 0.0)
    with_it = engines[0].train_step(datums, loss, 1e-2)
    without = engines[1].train_step([datums[0], datums[2]], loss, 1e-2)
    assert (with_it.masked, without.masked) == (1, 0)
    assert with_it.loss == pytest.approx(without.loss, abs=1e-6)
    assert with_it.grad_norm == pytest.approx(without.grad_norm, rel=1e-4)


# -- options -----------------------------------------------------------------------------------------------------------


def slow(**options: Any) -> SlowConfig:
    return SlowConfig.model_validate(options)


@pytest.mark.parametrize(
    ("options", "reinforces", "message"),
    [
        ({"mismatch_bounds": (0.5, 2.0)}, True, r"slow.mismatch_bounds: \[0.5, 2.0\] is for a correction, and .* is "
            r"none"),
        ({"mismatch_correction": "mask"}, False, "'mask' corrects the policy loss, and method 'distill' has none"),
        ({"mismatch_correction": "mask", "mismatch_bounds": (0.0, 1.0)}, True, "0 <= lower < 1 < upper"),
        ({"mismatch_correction": "mask", "mismatch_bounds": (1.0, 2.0)}, True, "0 <= lower < 1 < upper"),
        ({"mismatch_correction": "mask", "mismatch_bounds": (-0.1, 2.0)}, True, "0 <= lower < 1 < upper"),
        (
            {"mismatch_correction": "truncate", "mismatch_bounds": (0.5, 2.0), "loss": "importance_sampling"}, True,
            "truncate cuts weights from above alone",
        ),
        (
            {"mismatch_correction": "truncate", "mismatch_bounds": (0.0, 2.5)}, True,
            r"twice what cispo does: its weight is min\(ratio, 1 \+ slow.clip_high\) = min\(ratio, 4\) already. .*to "
            r"1.5",
        ),
    ],
)  # fmt: skip
def test_a_correction_that_would_mean_nothing_is_refused(
    options: dict[str, Any], reinforces: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_correction(slow(**options), "distill", reinforces=reinforces)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mismatch_correction": "mask", "mismatch_bounds": (0.5, 3.0)}, "outside [0.5, 3] are left out"),
        ({"mismatch_correction": "truncate", "loss": "importance_sampling"}, "times min(learner / sampler, 2)"),
    ],
)
def test_corrections_that_mean_something_are_taken_and_described(options: dict[str, Any], said: str) -> None:
    check_correction(slow(**options), "rl", reinforces=True)
    (line,) = describe_correction(slow(**options))
    assert said in line


def test_no_correction_is_taken_everywhere_and_needs_no_words() -> None:
    assert describe_correction(slow()) == []
    check_correction(slow(), "distill", reinforces=False)
    with pytest.raises(ValueError, match="'none', 'truncate' or 'mask'"):
        slow(mismatch_correction="tis")


def test_a_correction_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    config = small_config(
        tmp_path / "no-model", tmp_path / "run", method="prompt", slow={"mismatch_correction": "mask"}
    )
    with pytest.raises(ConfigError, match=r"slow.mismatch_correction: 'mask' corrects the policy loss"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_the_ways_out_are_those_that_are_left(tmp_path: Path) -> None:
    def ways(**tree: Any) -> str:
        return ways_out(small_config(tmp_path, tmp_path / "run", **tree))

    assert ways() == "slow.mismatch_correction: mask"
    assert ways(slow={"loss": "importance_sampling"}).endswith("mask or truncate")
    half: dict[str, Any] = {"model": {"dtype": "bfloat16"}}
    assert ways(**half).startswith("model.dtype: float32, or slow.prefix_sharing: false, or slow.mismatch_correction")
    assert "prefix_sharing" not in ways(**half, slow={"prefix_sharing": False})
    assert ways(slow={"mismatch_correction": "mask"}) == "take another model"
    assert ways(slow={"sampler": {"kind": "a:B"}}).startswith("slow.sampler: {kind: forest}")
    assert "mend the engine a:B" in ways(engine="a:B")
    tinker = {"base_url": "http://127.0.0.1:9", "backend": "jax"}
    assert "engine: local" in ways(engine="tinker", tinker=tinker)
