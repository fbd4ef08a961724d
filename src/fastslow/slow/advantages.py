"""From the rewards of a step's groups to the datums of one update.

Deviations from the paper: a rollout whose advantage is exactly zero is left out of the update, and its KL term with it
(its policy-gradient term is zero anyway). The paper's weights stay: the mean over problems counts every problem.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastslow.config import Config
from fastslow.slow.engine import Datum
from fastslow.slow.settings import Aggregation
from fastslow.types import Rollout

EPSILON = 1e-6

Contexts = Callable[[Rollout], Sequence[tuple[int, ...] | None]]
"""The context of each turn of a rollout; None for a turn that is left out."""


def as_sampled(rollout: Rollout) -> Sequence[tuple[int, ...]]:
    """The contexts that a rollout's turns were sampled after."""
    return [turn.context_tokens for turn in rollout.turns]


@dataclass(frozen=True)
class AdvantageSettings:
    """`baseline`: one mean and deviation a problem (the paper's) or one a (problem, prompt). `aggregation`: how tokens
    are weighed, see `_token_weights`; `max_tokens`, of a completion, is what `constant` divides by.
    """

    baseline: str = "problem"
    divide_by_std: bool = True
    batch_normalisation: bool = True
    aggregation: Aggregation = "problem"
    max_tokens: int = 0


def advantage_settings(config: Config) -> AdvantageSettings:
    """Those of a run."""
    loop, slow = config.loop, config.slow
    return AdvantageSettings(
        loop.baseline, loop.divide_by_std, loop.batch_normalisation, slow.aggregation, config.sampling.max_tokens
    )


def group_advantages(rewards_G: Sequence[float], divide_by_std: bool = True) -> list[float]:
    """`(r - mean) / (std + eps)` over one group, population std; all zero where the rewards are all equal.

    Source: arXiv 2605.12484 section 3.2. Deviations: none.
    """
    if not rewards_G or max(rewards_G) == min(rewards_G):
        return [0.0] * len(rewards_G)
    mean = sum(rewards_G) / len(rewards_G)
    centred = [reward - mean for reward in rewards_G]
    if not divide_by_std:
        return centred
    std = math.sqrt(sum(value * value for value in centred) / len(centred))
    return [value / (std + EPSILON) for value in centred]


def batch_normalise(advantages: Sequence[float]) -> list[float]:
    """Divide by the root mean square over the batch. The groups are centred, so this is their standard deviation.

    Source: arXiv 2510.13786 (ScaleRL). A batch without signal stays all zero.
    """
    mean_square = sum(value * value for value in advantages) / max(len(advantages), 1)
    if mean_square == 0.0:
        return list(advantages)
    return [value / (math.sqrt(mean_square) + EPSILON) for value in advantages]


def build_datums(
    groups: Sequence[Sequence[Rollout]],
    settings: AdvantageSettings,
    policy_version: int | None = None,
    contexts: Contexts = as_sampled,
) -> list[Datum]:
    """The datums of one update from the groups of one step, a group being all rollouts of one problem.

    One datum a turn: the rollout's advantage holds for every token that it sampled. Masked rollouts are left out of
    every mean. `policy_version` is that of the weights which are updated: their own rollouts are fresh. None: all are.
    `contexts`: what the update sees before each turn.
    """
    valid = [[rollout for rollout in group if rollout.reward is not None] for group in groups]
    valid = [group for group in valid if group]
    advantages = [advantage for group in valid for advantage in _advantages_of(group, settings)]
    if settings.batch_normalisation:
        advantages = batch_normalise(advantages)
    remaining = iter(advantages)
    datums = []
    for group, weights in zip(valid, _token_weights(valid, settings), strict=True):
        for rollout, weight in zip(group, weights, strict=True):
            advantage = next(remaining)
            if advantage != 0.0:
                fresh = policy_version is None or rollout.policy_version == policy_version
                datums += _turns_of(rollout, advantage, weight, fresh, contexts(rollout))
    return datums


def _turns_of(
    rollout: Rollout, advantage: float, token_weight: float, fresh: bool, contexts: Sequence[tuple[int, ...] | None]
) -> list[Datum]:
    return [
        Datum(context, turn.completion.tokens, turn.completion.logprobs, advantage, token_weight, fresh)
        for turn, context in zip(rollout.turns, contexts, strict=True)
        if context is not None
    ]


def _token_weights(groups: Sequence[Sequence[Rollout]], settings: AdvantageSettings) -> list[list[float]]:
    """The weight of each token of each rollout, group by group: 1 over

    - `problem`: tokens of its problem's rollouts * problems (arXiv 2605.12484 section 3.2, arXiv 2503.14476 eq. 8);
    - `token`: tokens of the step;
    - `sequence`: tokens of its rollout * rollouts of its problem * problems (arXiv 2402.03300 eq. 3);
    - `constant`: `max_tokens` * rollouts of its problem * problems (arXiv 2503.20783).
    """
    lengths = [[rollout.sampled_tokens for rollout in group] for group in groups]
    kind, problems = settings.aggregation, len(groups)
    if kind == "problem":
        return [[1.0 / (sum(group) * problems)] * len(group) for group in lengths]
    if kind == "token":
        return [[1.0 / sum(map(sum, lengths))] * len(group) for group in lengths]
    if kind == "sequence":
        return [[1.0 / (length * len(group) * problems) for length in group] for group in lengths]
    return [[1.0 / (settings.max_tokens * len(group) * problems)] * len(group) for group in lengths]


def _advantages_of(group: Sequence[Rollout], settings: AdvantageSettings) -> list[float]:
    keys = [rollout.prompt_hash if settings.baseline == "prompt" else "" for rollout in group]
    values = dict.fromkeys(range(len(group)), 0.0)
    for key in dict.fromkeys(keys):
        members = [index for index, other in enumerate(keys) if other == key]
        rewards = [group[index].reward or 0.0 for index in members]
        values.update(zip(members, group_advantages(rewards, settings.divide_by_std), strict=True))
    return list(values.values())
