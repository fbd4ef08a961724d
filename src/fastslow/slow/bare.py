"""The gradient under the seed prompt: rollouts are sampled under evolved prompts,
and the weights learn to do without them.

With `mu(y | x, phi)` what a rollout was sampled with, `phi` its prompt, and `pi(y | x)` the learner under the task's
seed prompt, the update moves `log pi(y | x)`. Its ratio has one of two denominators (`slow.bare_behaviour`):

- `learner`: `pi_old(y | x)`, the learner before the update, under the seed prompt. The ratio of the one optimiser step
  is 1: the loss teaches what was rewarded, whatever prompt it came from. A token is left out where `pi_old(y | x) /
  mu(y | x, phi)` lies outside `slow.bare_bounds`: there the two prompts have little in common, and a token that the
  seed prompt hardly ever gives would be pushed down without end.
- `sampler`: `mu(y | x, phi)`. The ratio is the true off-policy one and the loss clips it. A token that only the evolved
  prompt gives then weighs next to nothing, which is what an unbiased gradient says of a policy that never samples it.

Source: arXiv 2603.21877 computes the gradient of hard problems on the bare input; the denominator, and the bounds 0.01
and 10, are those of the authors' code and scripts (github.com/zlkqz/P2O). Deviations: every problem is sampled under
the population, not hard ones alone; a reused rollout's `pi_old` is that of the update as well, so that staleness is no
part of the ratio. This module loads without torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.engine import Datum
from fastslow.slow.settings import SlowConfig


@dataclass(frozen=True)
class PromptGap:
    """How far the seed prompt is from the prompts that were sampled under, over the tokens of an update.

    `ratio_mean` and `ratio_max` are of `pi_old(y | x) / mu(y | x, phi)`, `kl` is the k3 estimate of KL(mu,
    pi_old) in nats a token (arXiv 2402.03300 eq. 4), `left_out` the share of tokens outside the bounds. NaN
    where there is no token.
    """

    ratio_mean: float = math.nan
    ratio_max: float = math.nan
    kl: float = math.nan
    left_out: float = math.nan


def is_bare(slow: SlowConfig) -> bool:
    """Whether the gradient is taken under the seed prompt."""
    return slow.gradient_context == "bare"


def bare_datums(
    datums: Sequence[Datum], learner_logprobs: Sequence[Sequence[float]], slow: SlowConfig
) -> tuple[list[Datum], PromptGap]:
    """The datums of the update, and how far the prompts are apart.

    `datums` have the seed prompt's contexts and the sampler's log-probabilities, `learner_logprobs` those of the
    learner before the update after these contexts, one row a datum. Tokens that are left out become context of what
    follows them, so that a completion may come in several pieces; the losses are of tokens, and the weights stay.
    Nothing is `fresh`: sampler and learner are not compared, since they had other contexts.
    """
    made: list[Datum] = []
    gaps: list[float] = []
    left_out = 0
    learns = slow.bare_behaviour == "learner"
    low, high = _log_bounds(slow) if learns else (-math.inf, math.inf)
    for datum, learner in zip(datums, learner_logprobs, strict=True):
        own = [new - old for new, old in zip(learner, datum.sampler_logprobs, strict=True)]
        kept = [low <= gap <= high for gap in own]
        behaviour = tuple(learner) if learns else datum.sampler_logprobs
        made += _pieces(replace(datum, sampler_logprobs=behaviour, fresh=False), kept)
        gaps += own
        left_out += kept.count(False)
    if not gaps:
        return made, PromptGap()
    ratios = [math.exp(gap) for gap in gaps]
    kl = sum(math.expm1(gap) - gap for gap in gaps) / len(gaps)
    return made, PromptGap(sum(ratios) / len(gaps), max(ratios), kl, left_out / len(gaps))


def _pieces(datum: Datum, kept: Sequence[bool]) -> list[Datum]:
    """A datum for each run of kept tokens; what stands before it is its context."""
    if all(kept):
        return [datum]
    pieces, start = [], 0
    while start < len(kept):
        end = start
        while end < len(kept) and kept[end] == kept[start]:
            end += 1
        if kept[start]:
            context = (*datum.context_tokens, *datum.completion_tokens[:start])
            tokens, logprobs = datum.completion_tokens[start:end], datum.sampler_logprobs[start:end]
            pieces.append(replace(datum, context_tokens=context, completion_tokens=tokens, sampler_logprobs=logprobs))
        start = end
    return pieces


def _log_bounds(slow: SlowConfig) -> tuple[float, float]:
    low, high = slow.bare_bounds
    return math.log(low) if low else -math.inf, math.log(high)


# -- the options -------------------------------------------------------------------------------------------------------


def check_bare(config: Config, *, reinforces: bool, searches: bool) -> None:
    """Raises ConfigError for a gradient context that would mean nothing, or that the engines cannot give.

    `reinforces`: the method has a policy loss; `searches`: it evolves prompts.
    """
    slow, default = config.slow, SlowConfig()
    low, high = slow.bare_bounds
    if not is_bare(slow):
        for key in ("bare_behaviour", "bare_bounds", "bare_member"):
            if getattr(slow, key) != getattr(default, key):
                raise ConfigError(
                    f"slow.{key}: {getattr(slow, key)!r} is for the gradient under the seed prompt, and "
                    "slow.gradient_context is 'prompt': set that to bare, or leave this out"
                )
        return
    if not reinforces or not searches:
        raise ConfigError(
            f"slow.gradient_context: 'bare' needs a policy loss and prompts that evolve, and method {config.method!r} "
            f"with fast.optimiser {config.fast.optimiser!r} has not both: leave it out, or take method: fst"
        )
    if slow.bare_member and config.loop.population_size == 1:
        raise ConfigError(
            "slow.bare_member: true gives the population's last place to the seed prompt, and loop.population_size is "
            "1: raise that, or set this to false"
        )
    if slow.bare_member and config.fast.scores == "rollouts":
        raise ConfigError(
            "slow.bare_member: true takes the population's last place, where fast.scores: rollouts tries children out: "
            "set one of them back"
        )
    if config.sampling.temperature != 1.0:
        raise ConfigError(
            f"sampling.temperature: {config.sampling.temperature:g} with slow.gradient_context: bare, whose ratio is "
            "measured at temperature 1: set it to 1.0"
        )
    if slow.mismatch_correction != "none":
        raise ConfigError(
            f"slow.mismatch_correction: {slow.mismatch_correction!r} compares sampler and learner after one context, "
            "and with slow.gradient_context: bare they have two: leave it out"
        )
    if not 0.0 <= low < 1.0 < high:
        raise ConfigError(
            f"slow.bare_bounds: {[low, high]} must be two numbers with 0 <= lower < 1 < upper: 1 is the ratio where "
            "the seed prompt gives a token as often as the evolved one"
        )
    if slow.bare_behaviour == "sampler" and slow.bare_bounds != default.bare_bounds:
        raise ConfigError(
            f"slow.bare_bounds: {[low, high]} is for slow.bare_behaviour: learner; the ratio to the sampler is clipped "
            "by the loss (slow.clip_high): leave it out"
        )


def describe_bare(slow: SlowConfig) -> list[str]:
    """What the gradient's context is, in a line; none where it is the one that was sampled after."""
    if not is_bare(slow):
        return []
    low, high = slow.bare_bounds
    how = {
        "learner": "the ratio's denominator is the learner before the update; tokens whose probability under the seed "
        f"prompt is not {low:g} to {high:g} times the sampled one are left out",
        "sampler": "the ratio is that to the sampler under the evolved prompt",
    }[slow.bare_behaviour]
    return [f"gradient under the seed prompt: {how}"]
