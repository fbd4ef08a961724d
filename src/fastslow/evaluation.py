"""How good is a policy under a prompt, and how far has it moved from its base.

mean@k and best@k at temperature 0.6 and top-p 0.95 (arXiv 2605.12484, section 4), with a 95 % confidence interval from a
bootstrap over problems: the k completions of a problem are not independent. Masked rollouts are left out and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastslow.errors import InfrastructureError
from fastslow.rollouts import RolloutRequest, make_rollouts
from fastslow.seeding import derive_seed
from fastslow.slow.engine import PolicyEngine, SampleRequest, SamplingParams, TokenSequence
from fastslow.step_metrics import KL, KL_ESTIMATE
from fastslow.tasks.base import Task
from fastslow.types import Problem, Prompt, Rollout

BOOTSTRAP_DRAWS = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class EvaluationResult:
    """mean@k and best@k over problems, with 95 % intervals; `masked` rollouts are in neither."""

    prompt: Prompt
    problems: int
    k: int
    mean: float
    mean_interval: Interval
    best: float
    best_interval: Interval
    masked: int
    cut_off: int
    completion_tokens: float
    rollouts: tuple[Rollout, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class KlResult:
    """KL(current || base) in nats a token, mean over tokens, with a 95 % interval over problems.

    `exact`: at each token over the full vocabulary; otherwise estimated from the sampled tokens' log-probabilities.
    """

    mean: float
    interval: Interval
    tokens: int
    exact: bool = True

    @property
    def metric(self) -> str:
        """Its name in metrics.jsonl."""
        return KL if self.exact else KL_ESTIMATE


def evaluate_prompt(
    engine: PolicyEngine,
    task: Task,
    problems: Sequence[Problem],
    prompt: Prompt,
    k: int,
    params: SamplingParams,
    seed: int,
) -> EvaluationResult:
    """mean@k and best@k of the current weights under one prompt.

    Raises: InfrastructureError when every rollout was masked, since there is nothing to report then.
    """
    requests = [RolloutRequest(p, prompt, k, derive_seed(seed, "evaluate", p.id)) for p in problems]
    groups = make_rollouts(engine, task, requests, params, "rl")
    rewards = [[r.reward for r in group if r.reward is not None] for group in groups]
    scored = [group for group in rewards if group]
    rollouts = tuple(rollout for group in groups for rollout in group)
    if not scored:
        raise InfrastructureError(f"no rollout of the evaluation could be scored. The first: {rollouts[0].failure}")
    means = [sum(group) / len(group) for group in scored]
    bests = [max(group) for group in scored]
    return EvaluationResult(
        prompt=prompt,
        problems=len(scored),
        k=k,
        mean=float(np.mean(means)),
        mean_interval=bootstrap_interval(means, seed=seed),
        best=float(np.mean(bests)),
        best_interval=bootstrap_interval(bests, seed=seed),
        masked=len(rollouts) - sum(len(group) for group in scored),
        cut_off=sum(rollout.completion.finish_reason == "length" for rollout in rollouts),
        completion_tokens=float(np.mean([len(rollout.completion.tokens) for rollout in rollouts])),
        rollouts=rollouts,
    )


def complementary_mean(results: Sequence[EvaluationResult], seed: int) -> tuple[float, Interval] | None:
    """mean@k when each problem is answered under that prompt of a population which serves it best, and a 95 % interval.

    What complementary prompts are worth together. Half of a problem's completions choose its prompt, the other half are
    counted, both ways round: choosing and counting on the same ones would reward luck. None for one prompt, or k = 1.
    """
    by_prompt = [_rewards_by_problem(result) for result in results]
    means = []
    for problem in by_prompt[0]:
        rewards = [scored[problem] for scored in by_prompt if len(scored.get(problem, [])) > 1]
        if len(rewards) > 1:
            halves = [(r[: len(r) // 2], r[len(r) // 2 :]) for r in rewards]
            means.append(float(np.mean([_counted(halves, 0), _counted(halves, 1)])))
    return (float(np.mean(means)), bootstrap_interval(means, seed=seed)) if means else None


def by_kind_mean(
    results: Sequence[EvaluationResult], prompts: Mapping[str, str], problems: Sequence[Problem], seed: int
) -> tuple[float, Interval]:
    """mean@k with the problems of each kind under the prompt that was chosen for the kind, and a 95 % interval.

    `prompts` maps kinds to hashes of prompts among the results; a kind that it lacks has the first result's. The choice
    was made on training problems, so that this is what a user gets who knows a problem's kind.
    """
    rewards = {result.prompt.hash: _rewards_by_problem(result) for result in results}
    first = results[0].prompt.hash
    found = [rewards[prompts.get(problem.kind, first)].get(problem.id, []) for problem in problems]
    means = [float(np.mean(values)) for values in found if values]
    return float(np.mean(means)), bootstrap_interval(means, seed=seed)


def _counted(halves: Sequence[tuple[list[float], list[float]]], choosing: int) -> float:
    """The mean of one half under the prompt whose other half is best; of equals, the first prompt."""
    best = max(halves, key=lambda half: float(np.mean(half[choosing])))
    return float(np.mean(best[1 - choosing]))


def _rewards_by_problem(result: EvaluationResult) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for rollout in result.rollouts:
        if rollout.reward is not None:
            found.setdefault(rollout.problem_id, []).append(rollout.reward)
    return found


def kl_to_base(
    engine: PolicyEngine, task: Task, problems: Sequence[Problem], prompt: Prompt, params: SamplingParams, seed: int
) -> KlResult:
    """Token-level KL between the current and the base policy under the same context.

    One completion a problem is drawn from the current policy (give `params` at temperature 1); at each of its positions
    the divergence is taken over the full vocabulary, or estimated where the engine cannot do that.
    Source: arXiv 2605.12484 section 4.3.
    """
    contexts = [engine.encode(task.messages(problem, prompt)) for problem in problems]
    requests = [SampleRequest(c, 1, derive_seed(seed, "kl", p.id)) for c, p in zip(contexts, problems, strict=True)]
    completions = engine.sample(requests, params)
    sequences = [TokenSequence(c, group[0].tokens) for c, group in zip(contexts, completions, strict=True)]
    divergences = engine.kl_to_base(sequences)
    sums, counts = [sum(values) for values in divergences], [len(values) for values in divergences]
    interval = bootstrap_interval(sums, counts, seed=seed)
    return KlResult(sum(sums) / sum(counts), interval, sum(counts), engine.kl_is_exact)


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int, level: float = 0.95
) -> Interval:
    """Percentile interval of `sum(values) / sum(weights)` (a plain mean without weights), resampling entries."""
    numerators = np.asarray(values, dtype=float)
    denominators = np.ones_like(numerators) if weights is None else np.asarray(weights, dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(numerators), (BOOTSTRAP_DRAWS, len(numerators)))
    estimates = numerators[draws].sum(1) / denominators[draws].sum(1)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
