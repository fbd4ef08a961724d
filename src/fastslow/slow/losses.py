"""Policy losses. A new loss is one function from `LossInputs` to `LossOutput`, anywhere,
named as `package.module:function`.

Tokens are flat arrays of shape (N,): those of all S completions of a micro-batch, one after the other; a completion
is never split. Aggregation is the engine's: `sum(token_weight * loss)`. This module loads without torch, so that a
config is checked quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fastslow.errors import ConfigError
from fastslow.extension import resolve
from fastslow.slow.engine import LossSettings
from fastslow.slow.settings import SlowConfig, loss_defaults
from fastslow.text import shown

if TYPE_CHECKING:
    import torch

HERE, CLIPPED = "fastslow.slow.losses", "fastslow.slow.clipped_losses"
LOSSES: Mapping[str, str] = {
    "cispo": f"{HERE}:cispo",
    "importance_sampling": f"{HERE}:importance_sampling",
    "ppo": f"{CLIPPED}:ppo",
    "dapo": f"{CLIPPED}:dapo",
    "dr_grpo": f"{CLIPPED}:dr_grpo",
    "gspo": f"{CLIPPED}:gspo",
}
AGGREGATIONS = {
    "problem": "the mean over the tokens of a problem's rollouts, then over problems",
    "token": "the mean over all tokens of the step",
    "sequence": "the mean over the tokens of a rollout, then over a problem's rollouts, then over problems",
    "constant": "the sum over the tokens of a rollout by sampling.max_tokens, then the mean over rollouts and problems",
}


@dataclass(frozen=True)
class LossInputs:
    """What a loss sees of S completions with N tokens in all.

    Shapes: `lengths_S` (S,), int64, tokens of each completion; all others (N,).
    Only `learner_logprobs_N` has a gradient.
    Raises: ValueError on a shape mismatch.
    """

    learner_logprobs_N: torch.Tensor
    sampler_logprobs_N: torch.Tensor
    advantages_N: torch.Tensor
    token_weights_N: torch.Tensor
    lengths_S: torch.Tensor
    settings: LossSettings

    def __post_init__(self) -> None:
        for other in (self.sampler_logprobs_N, self.advantages_N, self.token_weights_N):
            _same_shape(self.learner_logprobs_N, other)
        if self.learner_logprobs_N.dim() != 1 or int(self.lengths_S.sum()) != len(self.learner_logprobs_N):
            raise ValueError(
                f"shapes differ: completions of {self.lengths_S.tolist()} tokens, and log-probabilities "
                f"{tuple(self.learner_logprobs_N.shape)}"
            )

    @cached_property
    def sequence_N(self) -> torch.Tensor:
        """The number, from 0, of the completion that each token belongs to; shape (N,), int64."""
        numbers_S = self.lengths_S.new_tensor(range(len(self.lengths_S)))
        # Without its size given, a GPU would have to be waited for.
        return numbers_S.repeat_interleave(self.lengths_S, output_size=len(self.learner_logprobs_N))

    def sequence_sums(self, values_N: torch.Tensor) -> torch.Tensor:
        """Sums over the tokens of each completion; (N,) to (S,)."""
        return values_N.new_zeros(len(self.lengths_S)).index_add(0, self.sequence_N, values_N)

    def sequence_means(self, values_N: torch.Tensor) -> torch.Tensor:
        """Means over the tokens of each completion; (N,) to (S,)."""
        return self.sequence_sums(values_N) / self.lengths_S

    def to_tokens(self, values_S: torch.Tensor) -> torch.Tensor:
        """Each completion's value for each of its tokens; (S,) to (N,)."""
        return values_S[self.sequence_N]


@dataclass(frozen=True)
class LossOutput:
    """A loss to minimise, of each token, shape (N,), or of each completion, (S,), which then holds for all its tokens.

    `metrics` are values of each token or completion; a step's line has the mean of each as `slow/loss/NAME`, and that
    of `clip_fraction` as `slow/clip_fraction`.
    """

    loss: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """A loss and what it declares.

    `uses`: which of `clip_low` and `clip_high` it reads; a config that sets another one is refused. `server`: what the
    Tinker API calls the same loss; None: no server has it.
    """

    function: Callable[[LossInputs], LossOutput]
    uses: tuple[str, ...] = ()
    server: str | None = None

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """The loss of each token, (N,), and its metrics. Raises TypeError or ValueError where one gives neither."""
        output = self.function(inputs)
        if not isinstance(output, LossOutput):
            raise TypeError(f"slow.loss: the function returned {type(output).__name__}: a loss returns a LossOutput")
        tokens, sequences = inputs.learner_logprobs_N.shape, inputs.lengths_S.shape
        for name, values in {"its loss": output.loss, **output.metrics}.items():
            if values.shape not in (tokens, sequences):
                raise ValueError(
                    f"slow.loss: {name} has shape {tuple(values.shape)}: one value a token, {tuple(tokens)}, or a "
                    f"completion, {tuple(sequences)}, is wanted"
                )
        if output.loss.shape == tokens:
            return output
        return LossOutput(inputs.to_tokens(output.loss), output.metrics)


def policy_loss(
    *, uses: tuple[str, ...] = (), server: str | None = None
) -> Callable[[Callable[[LossInputs], LossOutput]], Loss]:
    """Makes a function a loss that declares which settings it uses, and what a server calls it: see `Loss`."""
    return lambda function: Loss(function, uses, server)


def importance_ratio(learner_logprobs_N: torch.Tensor, sampler_logprobs_N: torch.Tensor) -> torch.Tensor:
    """pi_theta / pi_behaviour of each token, shape (N,), without gradient."""
    _same_shape(learner_logprobs_N, sampler_logprobs_N)
    return (learner_logprobs_N.detach() - sampler_logprobs_N).exp()


@policy_loss(uses=("clip_high",), server="cispo")
def cispo(inputs: LossInputs) -> LossOutput:
    """CISPO, to minimise: `-stop_grad(min(ratio, tau)) * A * log pi_theta`.

    Shapes: returns (N,) in nats. The gradient flows through log pi_theta alone, also where the ratio is clipped.
    Source: arXiv 2605.12484 section 3.2; arXiv 2506.13585. Deviations: none.
    """
    ratio = importance_ratio(inputs.learner_logprobs_N, inputs.sampler_logprobs_N)
    weight = ratio.clamp(max=inputs.settings.tau)
    loss = -weight * inputs.advantages_N * inputs.learner_logprobs_N
    return LossOutput(loss, {"clip_fraction": ratio > inputs.settings.tau})


@policy_loss(server="importance_sampling")
def importance_sampling(inputs: LossInputs) -> LossOutput:
    """Plain importance-weighted policy gradient, `-ratio * A` with the gradient through the ratio. Nothing is clipped.

    Shapes: returns (N,). Its gradient equals CISPO's wherever the ratio stays below `tau`; its clip fraction is the
    share of tokens beyond it, which CISPO would clip.
    """
    ratio = (inputs.learner_logprobs_N - inputs.sampler_logprobs_N).exp()
    return LossOutput(-ratio * inputs.advantages_N, {"clip_fraction": ratio.detach() > inputs.settings.tau})


def kl_penalty(learner_logprobs_N: torch.Tensor, base_logprobs_N: torch.Tensor) -> torch.Tensor:
    """GRPO's low-variance estimate of KL(pi_theta || pi_base): `exp(d) - d - 1` with `d = log pi_base - log pi_theta`.

    Shapes: both (N,), returns (N,) in nats, never negative. Source: arXiv 2402.03300 eq. 4.
    """
    _same_shape(learner_logprobs_N, base_logprobs_N)
    difference = base_logprobs_N - learner_logprobs_N
    return difference.exp() - difference - 1.0


# -- by name -----------------------------------------------------------------------------------------------------------


def find_loss(name: str) -> Loss:
    """The loss of a name or an import path. Raises ConfigError where there is none."""
    found = resolve(name, LOSSES, "slow.loss")
    if isinstance(found, Loss):
        return found
    if not callable(found) or isinstance(found, type):
        raise ConfigError(f"slow.loss: {shown(name)} is {shown(found)}: name a function from LossInputs to LossOutput")
    return Loss(found)


def check_loss(slow: SlowConfig) -> None:
    """Raises ConfigError where no loss has this name, or where it does not use a clip that the config sets."""
    complaint = unused_clip(slow, find_loss(slow.loss))
    if complaint:
        raise ConfigError(complaint)


def unused_clip(slow: SlowConfig, loss: Loss) -> str | None:
    """Which clip of a config the loss would not use, and the way out; None where there is none such."""
    default = loss_defaults(slow.loss)
    # The floor of a clamp that lies below 0 does nothing.
    floor_does_nothing = "clip_high" in loss.uses and slow.clip_low > 1.0
    if slow.clip_low != default.clip_low and "clip_low" not in loss.uses and not floor_does_nothing:
        return (
            f"slow.clip_low: {slow.clip_low} sets a floor, which {slow.loss} does not have: set it to "
            f"{default.clip_low}"
        )
    if slow.clip_high != default.clip_high and "clip_high" not in loss.uses:
        return (
            f"slow.clip_high: {slow.clip_high} sets a ceiling, which {slow.loss} does not have: leave it at "
            f"{default.clip_high}, or take slow.loss: cispo"
        )
    return None


def scaled_against_its_definition(slow: SlowConfig, *, divide_by_std: bool, batch_normalisation: bool) -> str | None:
    """What a config divides by although the loss is defined without that, and the way out; None where all is well."""
    if not loss_defaults(slow.loss).unscaled:
        return None
    wanted = {
        "slow.aggregation": (slow.aggregation, "constant"),
        "loop.divide_by_std": (divide_by_std, False),
        "loop.batch_normalisation": (batch_normalisation, False),
    }
    for key, (given, needed) in wanted.items():
        if given != needed:
            return (
                f"{key}: {given!r} is not {slow.loss}, which divides by neither lengths nor deviations: set it to "
                f"{needed!r} or leave it out, or take slow.loss: ppo, which has the same clip"
            )
    return None


def unused_clip_of_a_known_loss(slow: SlowConfig) -> str | None:
    """`unused_clip` while a config is parsed: one's own losses are not imported yet, but checked before the run."""
    if ":" in slow.loss:
        return None
    known = find_loss(slow.loss) if slow.loss in LOSSES else Loss(cispo.function, uses=("clip_high",))
    return unused_clip(slow, known)


def describe_loss(slow: SlowConfig) -> str:
    """Which loss a config has, and what it clips, in words."""
    uses = find_loss(slow.loss).uses
    if "clip_high" not in uses:
        return f"loss: {slow.loss}"
    floor = 1.0 - slow.clip_low if "clip_low" in uses else 0.0
    return f"loss: {slow.loss}, importance ratio clamped to [{floor:g}, {slow.tau:g}] (absolute)"


def describe_aggregation(slow: SlowConfig) -> str:
    """What a step's loss is, and its entropy bonus, in words."""
    bonus = f"; entropy bonus {slow.entropy_coefficient:g}" if slow.entropy_coefficient else ""
    return f"a step's loss: {AGGREGATIONS[slow.aggregation]}{bonus}"


def _same_shape(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
