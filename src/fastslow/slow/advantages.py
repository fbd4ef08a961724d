"""From the rewards of a step's groups to the datums of one update.

Deviations from the paper: a rollout whose advantage is exactly zero is left out of the update, and its KL term with it
(its policy-gradient term is zero anyway). The paper's weights stay: the mean over problems counts every problem.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.slow.engine import Datum
from fastslow.types import Rollout

EPSILON = 1e-6


@dataclass(frozen=True)
class AdvantageSettings:
    """`baseline`: one mean and deviation a problem (the paper's) or one a (problem, prompt)."""

    baseline: str = "problem"
    divide_by_std: bool = True
    batch_normalisation: bool = True


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
    groups: Sequence[Sequence[Rollout]], settings: AdvantageSettings, policy_version: int | None = None
) -> list[Datum]:
    """The datums of one update from the groups of one step, a group being all rollouts of one problem.

    One datum a turn: the rollout's advantage holds for every token that it sampled. Masked rollouts are left out of every mean.
    Each token weighs 1 / (tokens of its problem's rollouts * problems). `policy_version` is that of the weights which are
    updated: their own rollouts are fresh. None: all are.
    """
    valid = [[rollout for rollout in group if rollout.reward is not None] for group in groups]
    valid = [group for group in valid if group]
    advantages = [advantage for group in valid for advantage in _advantages_of(group, settings)]
    if settings.batch_normalisation:
        advantages = batch_normalise(advantages)
    remaining = iter(advantages)
    datums = []
    for group in valid:
        tokens = sum(rollout.sampled_tokens for rollout in group)
        for rollout in group:
            advantage = next(remaining)
            if advantage != 0.0:
                fresh = policy_version is None or rollout.policy_version == policy_version
                datums += _turns_of(rollout, advantage, 1.0 / (tokens * len(valid)), fresh)
    return datums


def _turns_of(rollout: Rollout, advantage: float, token_weight: float, fresh: bool) -> list[Datum]:
    return [
        Datum(turn.context_tokens, turn.completion.tokens, turn.completion.logprobs, advantage, token_weight, fresh)
        for turn in rollout.turns
    ]


def _advantages_of(group: Sequence[Rollout], settings: AdvantageSettings) -> list[float]:
    keys = [rollout.prompt_hash if settings.baseline == "prompt" else "" for rollout in group]
    values = dict.fromkeys(range(len(group)), 0.0)
    for key in dict.fromkeys(keys):
        members = [index for index, other in enumerate(keys) if other == key]
        rewards = [group[index].reward or 0.0 for index in members]
        values.update(zip(members, group_advantages(rewards, settings.divide_by_std), strict=True))
    return list(values.values())
