"""What is sent to a server: by hand, and as an equality of gradients with the local engine's loss."""

import math
from dataclasses import replace

import pytest
import torch

from fastslow.errors import ConfigError
from fastslow.slow.engine import Datum, LossSettings, TokenSequence
from fastslow.slow.losses import LOSSES, LossInputs, cispo, kl_penalty
from fastslow.slow.tinker.datums import (
    DIALECTS,
    kl_estimates,
    loss_config,
    scoring_datum,
    server_datums,
    server_loss,
    update_metrics,
)

LOSS = LossSettings(kl_coefficient=0.1)
DATUMS = [
    Datum((5, 6), (7, 8), (-1.0, -2.0), 1.5, 0.25),
    Datum((5, 6, 9), (7, 8, 1), (-0.5, -1.0, -3.0), -1.0, 0.125),
]
BASE = [[-1.2, -1.5], [-0.5, -2.0, -2.5]]


def test_a_datum_is_shifted_by_one_and_silent_on_its_context() -> None:
    first, second = server_datums(DATUMS, LossSettings(kl_coefficient=0.0), None, "tokens")
    assert (first.input_tokens, first.target_tokens) == ((5, 6, 7), (6, 7, 8))
    assert first.logprobs == (0.0, -1.0, -2.0)
    assert first.advantages == (0.0, 0.375, 0.375)
    assert second.target_tokens == (6, 9, 7, 8, 1)
    assert second.advantages == (0.0, 0.0, -0.125, -0.125, -0.125)
    assert scoring_datum(TokenSequence((5, 6), (7,))).target_tokens == (6, 7)


def test_a_mean_over_sequences_is_undone() -> None:
    tokens = server_datums(DATUMS, LOSS, BASE, "tokens")
    sequences = server_datums(DATUMS, LOSS, BASE, "sequences")
    for a, b in zip(tokens, sequences, strict=True):
        reduced = [value / len(b.target_tokens) / len(DATUMS) for value in b.advantages]
        assert reduced == pytest.approx(list(a.advantages))


def cispo_of(learner: torch.Tensor, sampler: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    return cispo(
        LossInputs(learner, sampler, advantages, torch.ones_like(advantages), torch.tensor([2, 3]), LossSettings())
    ).loss


def test_the_servers_token_sum_has_the_gradient_of_our_loss_with_its_penalty() -> None:
    sent = server_datums(DATUMS, LOSS, BASE, "tokens")
    learner = torch.tensor([-1.0, -2.0, -0.5, -1.0, -3.0], requires_grad=True)
    sampler = learner.detach().clone()
    weights = torch.tensor([0.25, 0.25, 0.125, 0.125, 0.125])
    advantages = torch.tensor([1.5, 1.5, -1.0, -1.0, -1.0])
    base = torch.tensor([value for row in BASE for value in row])
    ours = weights * (cispo_of(learner, sampler, advantages) + 0.1 * kl_penalty(learner, base))
    (expected,) = torch.autograd.grad(ours.sum(), learner)
    completion = [
        value for d, s in zip(DATUMS, sent, strict=True) for value in s.advantages[-len(d.completion_tokens) :]
    ]
    (got,) = torch.autograd.grad(cispo_of(learner, sampler, torch.tensor(completion)).sum(), learner)
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(("backend", "sent"), [("hosted", True), ("jax", True), ("fsdp", False), ("megatron", False)])
def test_thresholds_go_with_every_request_that_may_carry_them(backend: str, sent: bool) -> None:
    expected = {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0} if sent else None
    assert loss_config(DIALECTS[backend], LossSettings()) == expected
    assert loss_config(DIALECTS[backend], LossSettings("importance_sampling")) is None


@pytest.mark.parametrize("name", ["ppo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("backend", DIALECTS)
def test_every_server_takes_the_thresholds_of_ppo_with_a_request(backend: str, name: str) -> None:
    assert loss_config(DIALECTS[backend], LossSettings(name, tau=1.28, floor=0.8)) == {
        "clip_low_threshold": 0.8,
        "clip_high_threshold": 1.28,
    }


@pytest.mark.parametrize("name", ["my_loss", "gspo"])
def test_a_loss_that_servers_do_not_have_is_refused_by_name(name: str) -> None:
    taken = "cispo, importance_sampling, ppo, dapo, dr_grpo, or engine"
    with pytest.raises(ConfigError, match=f"slow.loss: '{name}' is not a loss of the Tinker API: take one of {taken}"):
        server_loss(name)


def test_no_loss_is_booked_as_another() -> None:
    assert {name: server_loss(name) for name in LOSSES if name != "gspo"} == {
        "cispo": "cispo",
        "importance_sampling": "importance_sampling",
        "ppo": "ppo",
        "dapo": "ppo",
        "dr_grpo": "ppo",
    }
    learner = [list(datum.sampler_logprobs) for datum in DATUMS]
    with pytest.raises(ConfigError, match=r"slow.loss: 'my_loss'"):
        update_metrics(DATUMS, learner, None, LossSettings("my_loss", kl_coefficient=0.0), 0.5)
    plain = update_metrics(DATUMS, learner, None, LossSettings("importance_sampling", kl_coefficient=0.0), 0.5)
    assert plain.loss == pytest.approx(-(2 * 0.25 * 1.5 + 3 * 0.125 * -1.0))


def test_the_kl_estimate_is_unbiased_and_never_negative() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    estimates = kl_estimates(p.log().tolist(), q.log().tolist())
    assert min(estimates) >= 0.0
    exact = float((p * (p / q).log()).sum())
    assert sum(float(w) * e for w, e in zip(p, estimates, strict=True)) == pytest.approx(exact, abs=1e-6)


def test_metrics_by_hand() -> None:
    learner = [[-1.0, -2.0 + math.log(8.0)], [-0.5, -1.0, -3.0]]
    metrics = update_metrics(DATUMS, learner, None, LOSS, 0.5)
    expected = -0.25 * 1.5 * (1.0 * -1.0 + 4.0 * (-2.0 + math.log(8.0))) - 0.125 * (-0.5 - 1.0 - 3.0) * -1.0
    assert metrics.loss == pytest.approx(expected)
    assert (metrics.ratio_max, metrics.clip_fraction, metrics.kl_penalty) == (pytest.approx(8.0), 0.2, 0.0)
    assert metrics.ratio_mean == pytest.approx((1 + 8 + 1 + 1 + 1) / 5)
    assert (metrics.tokens, metrics.computed_tokens, metrics.grad_norm) == (5, 10, 0.5)
    assert math.isnan(metrics.entropy)


@pytest.mark.parametrize(("fresh", "tokens", "more"), [(False, 2, 0.0), (True, 5, math.e - 2.0)])
def test_the_mismatch_of_fresh_datums_by_hand(fresh: bool, tokens: int, more: float) -> None:
    """The learner before the update against what the server's sampler reported: d = 0, log 8 and, reused, 0, 0, 1."""
    learner = [[-1.0, -2.0 + math.log(8.0)], [-0.5, -1.0, -2.0]]
    metrics = update_metrics([DATUMS[0], replace(DATUMS[1], fresh=fresh)], learner, None, LOSS, 0.5)
    assert metrics.mismatch_kl == pytest.approx((8.0 - math.log(8.0) - 1.0 + more) / tokens)
    assert metrics.mismatch_max == pytest.approx(math.log(8.0))
    assert metrics.masked == 0


def test_metrics_of_plain_importance_sampling_by_hand() -> None:
    learner = [[-1.0, -2.0 + math.log(8.0)], [-0.5, -1.0, -3.0]]
    metrics = update_metrics(DATUMS, learner, None, LossSettings("importance_sampling"), 0.5)
    assert metrics.loss == pytest.approx(-0.25 * 1.5 * (1.0 + 8.0) + 0.125 * 3.0)


def test_metrics_with_a_penalty_by_hand() -> None:
    metrics = update_metrics(DATUMS, [list(d.sampler_logprobs) for d in DATUMS], BASE, LOSS, 0.5)
    # exp(d) - d - 1 for d = -0.2, 0.5 and 0, -1, 0.5
    first, second = [math.exp(-0.2) - 0.8, math.exp(0.5) - 1.5], [0.0, math.exp(-1.0), math.exp(0.5) - 1.5]
    assert metrics.kl_penalty == pytest.approx((sum(first) + sum(second)) / 5)
    policy = -0.25 * 1.5 * (-1.0 - 2.0) - 0.125 * -1.0 * (-0.5 - 1.0 - 3.0)
    assert metrics.loss == pytest.approx(policy + 0.1 * (0.25 * sum(first) + 0.125 * sum(second)))
    assert metrics.computed_tokens == 20
