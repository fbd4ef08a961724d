"""The losses against values worked out by hand."""

import math

import pytest
import torch

from fastslow.errors import ConfigError
from fastslow.slow.engine import LossSettings
from fastslow.slow.losses import (
    LOSSES,
    Loss,
    LossInputs,
    LossOutput,
    check_loss,
    cispo,
    find_loss,
    importance_ratio,
    importance_sampling,
    kl_penalty,
    policy_loss,
)
from fastslow.slow.settings import SlowConfig

# Ratios 5, 0.5 and 1; with tau = 4 the first is clipped.
LEARNER = [0.5, 0.3, 0.2]
SAMPLER = [0.1, 0.6, 0.2]
ADVANTAGES = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)


def logs(probs: list[float], requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor([math.log(p) for p in probs], dtype=torch.float64, requires_grad=requires_grad)


def inputs_of(
    learner: torch.Tensor,
    sampler: torch.Tensor,
    advantages: torch.Tensor,
    tau: float = 4.0,
    lengths: tuple[int, ...] = (1, 1, 1),
) -> LossInputs:
    """Completions of these lengths, each token of weight 1."""
    return LossInputs(
        learner, sampler, advantages, torch.ones_like(advantages), torch.tensor(lengths), LossSettings(tau=tau)
    )


def test_importance_ratio_has_no_gradient() -> None:
    ratio = importance_ratio(logs(LEARNER, requires_grad=True), logs(SAMPLER))
    assert ratio.tolist() == pytest.approx([5.0, 0.5, 1.0])
    assert not ratio.requires_grad


def test_cispo_value_and_gradient_where_the_ratio_is_clipped_and_where_not() -> None:
    learner = logs(LEARNER, requires_grad=True)
    loss = cispo(inputs_of(learner, logs(SAMPLER), ADVANTAGES)).loss
    # -min(5, 4) * 2 * log 0.5 = 8 log 2; -0.5 * -1 * log 0.3
    assert loss.tolist() == pytest.approx([8 * math.log(2), 0.5 * math.log(0.3), 0.0])
    loss.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-8.0, 0.5, 0.0])


def test_importance_sampling_value_and_gradient_ignore_tau() -> None:
    learner = logs(LEARNER, requires_grad=True)
    loss = importance_sampling(inputs_of(learner, logs(SAMPLER), ADVANTAGES)).loss
    assert loss.tolist() == pytest.approx([-10.0, 0.5, 0.0])
    loss.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-10.0, 0.5, 0.0])


@pytest.mark.parametrize("loss", [find_loss(name) for name in LOSSES], ids=list(LOSSES))
def test_every_loss_has_the_policy_gradient_below_tau(loss: Loss) -> None:
    learner = logs(LEARNER, requires_grad=True)
    loss(inputs_of(learner, logs(SAMPLER), ADVANTAGES, tau=100.0)).loss.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-10.0, 0.5, 0.0])  # -ratio * advantage


def test_kl_penalty_value_and_gradient() -> None:
    learner = logs([0.4, 0.2, 0.2], requires_grad=True)
    penalty = kl_penalty(learner, logs([0.2, 0.4, 0.2]))
    # d = log 0.5: 0.5 + log 2 - 1; d = log 2: 2 - log 2 - 1; d = 0
    assert penalty.tolist() == pytest.approx([math.log(2) - 0.5, 1 - math.log(2), 0.0])
    penalty.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([0.5, -1.0, 0.0])  # 1 - exp(d)


@pytest.mark.parametrize("loss", [find_loss(name) for name in LOSSES], ids=list(LOSSES))
@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("shape", [(2,), (1,), (3, 1), ()])
def test_a_shape_mismatch_is_an_error_also_where_torch_would_broadcast(
    loss: Loss, wrong: int, shape: tuple[int, ...]
) -> None:
    tensors = [torch.zeros(3), torch.zeros(3), torch.zeros(3)]
    tensors[wrong] = torch.zeros(shape)
    with pytest.raises(ValueError, match="shapes differ"):
        loss(inputs_of(*tensors))


def test_kl_penalty_refuses_a_shape_mismatch() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 1\)"):
        kl_penalty(torch.zeros(3), torch.zeros(3, 1))


@pytest.mark.parametrize("loss", [find_loss(name) for name in LOSSES], ids=list(LOSSES))
def test_the_clip_fraction_comes_from_the_loss(loss: Loss) -> None:
    output = loss(inputs_of(logs(LEARNER), logs(SAMPLER), ADVANTAGES))
    assert {name: values.tolist() for name, values in output.metrics.items()} == {"clip_fraction": [True, False, False]}


def test_an_unknown_loss_names_the_known_ones() -> None:
    check_loss(SlowConfig())
    with pytest.raises(
        ConfigError,
        match=r"slow.loss: 'gppo' is unknown. Did you mean 'ppo'\? Known: cispo, importance_sampling, ppo, .*, and "
        r"package",
    ):
        check_loss(SlowConfig(loss="gppo"))
    with pytest.raises(ConfigError, match=r"slow.loss: 'math:pi' is 3.14.*: name a function"):
        find_loss("math:pi")


# -- losses over sequences ---------------------------------------------------------------------------------------------


def test_sums_and_means_of_completions_by_hand() -> None:
    zeros = torch.zeros(6)
    inputs = inputs_of(zeros, zeros, zeros, lengths=(1, 3, 2))
    values = torch.tensor([5.0, 1.0, 2.0, 3.0, 7.0, 9.0])
    assert inputs.sequence_N.tolist() == [0, 1, 1, 1, 2, 2]
    assert inputs.sequence_sums(values).tolist() == [5.0, 6.0, 16.0]
    assert inputs.sequence_means(values).tolist() == [5.0, 2.0, 8.0]
    assert inputs.to_tokens(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 2.0, 2.0, 3.0, 3.0]


def test_lengths_must_add_up_to_the_tokens() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: completions of \[1, 1\] tokens"):
        inputs_of(torch.zeros(3), torch.zeros(3), torch.zeros(3), lengths=(1, 1))


def test_the_loss_of_a_completion_holds_for_all_its_tokens() -> None:
    """A sequence-level ratio, as in GSPO (arXiv 2507.18071): the mean log-ratio of the completion, exponentiated."""

    @policy_loss(uses=("clip_high",))
    def sequence_ratio(inputs: LossInputs) -> LossOutput:
        ratio = inputs.sequence_means(inputs.learner_logprobs_N - inputs.sampler_logprobs_N).exp()
        loss = -ratio * inputs.sequence_means(inputs.advantages_N)
        return LossOutput(loss, {"clip_fraction": ratio.detach() > inputs.settings.tau, "ratio": ratio})

    learner = torch.tensor([math.log(8.0), math.log(2.0), 0.5], requires_grad=True)
    output = sequence_ratio(inputs_of(learner, torch.zeros(3), torch.tensor([1.0, 1.0, -2.0]), 3.0, (2, 1)))
    assert output.loss.tolist() == pytest.approx([-4.0, -4.0, 2 * math.exp(0.5)])
    assert output.metrics["clip_fraction"].tolist() == [True, False]
    output.loss.sum().backward()
    assert learner.grad is not None
    assert learner.grad.tolist() == pytest.approx([-4.0, -4.0, 2 * math.exp(0.5)])  # two tokens, half of each


def test_what_a_loss_returns_is_checked() -> None:
    inputs = inputs_of(torch.zeros(3), torch.zeros(3), torch.zeros(3), lengths=(2, 1))
    with pytest.raises(TypeError, match=r"slow.loss: the function returned Tensor: a loss returns a LossOutput"):
        Loss(lambda inputs: inputs.advantages_N)(inputs)  # type: ignore[arg-type,return-value]
    with pytest.raises(
        ValueError, match=r"slow.loss: its loss has shape \(\): one value a token, \(3,\), or a completion, "
    ):
        Loss(lambda inputs: LossOutput(inputs.advantages_N.mean()))(inputs)
    with pytest.raises(ValueError, match=r"slow.loss: spread has shape \(1,\)"):
        Loss(lambda inputs: LossOutput(inputs.advantages_N, {"spread": torch.zeros(1)}))(inputs)


@pytest.mark.parametrize(
    ("name", "key", "complaint"),
    [
        ("cispo", "clip_low", "floor"),
        ("importance_sampling", "clip_high", "ceiling"),
        ("math:floor", "clip_high", "ceiling"),
    ],
)
def test_a_clip_that_the_loss_does_not_declare_is_refused(name: str, key: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"slow.{key}: 0.2 sets a {complaint}, which {name} does not have"):
        check_loss(SlowConfig.model_validate({"loss": name, key: 0.2}))


def test_a_clip_that_the_loss_declares_or_that_clips_nothing_is_taken() -> None:
    check_loss(SlowConfig(clip_high=0.2))
    check_loss(SlowConfig(clip_low=2.0))  # below 0, where no ratio is
