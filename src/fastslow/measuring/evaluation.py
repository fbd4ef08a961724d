"""How good is a policy under a prompt, and how far has it moved from its base.

mean@k and best@k at temperature 0.6 and top-p 0.95 (arXiv 2605.12484, section 4), with 95 % intervals over problems
(`intervals.py`). Masked rollouts are left out and counted; a problem that has fewer than k scored ones is in mean@k but
not in best@k, since the best of fewer is less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb, nan

import numpy as np

from fastslow.errors import InfrastructureError
from fastslow.measuring.intervals import Interval, mean_interval, ratio_interval
from fastslow.rollouts.play import DEFAULTS, Played, RolloutRequest, make_rollouts, play
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.runs.metric import Metric
from fastslow.runs.metrics import KL, KL_ESTIMATE
from fastslow.seeding import derive_seed
from fastslow.slow.engine import PolicyEngine, SamplingParams, TokenSequence
from fastslow.tasks.base import Task
from fastslow.types import Problem, Prompt, Rollout


@dataclass(frozen=True)
class EvaluationResult:
    """mean@k and best@k over problems, with 95 % intervals; `masked` rollouts are in neither.

    `best` is over the `best_problems` that have k scored rollouts, and NaN where there are none.
    """

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
    best_problems: int = 0

    @property
    def scores(self) -> dict[str, list[float | None]]:
        """By problem, the rewards of its k completions in their order; None for one that could not be scored."""
        found: dict[str, list[float | None]] = {}
        for rollout in self.rollouts:
            found.setdefault(rollout.problem_id, []).append(rollout.reward)
        return found


@dataclass(frozen=True)
class KlResult:
    """KL(current || base) in nats a token, mean over tokens, with a 95 % interval over problems.

    `exact`: at each token over the full vocabulary; otherwise estimated from the sampled tokens' log-probabilities.
    `completions`: how many the `tokens` are of; episodes, where a task has several turns.
    """

    mean: float
    interval: Interval
    tokens: int
    exact: bool = True
    completions: int = 1

    @property
    def per_completion(self) -> float:
        """Nats a completion: the divergence of whole answers, which does not depend on how long an answer is."""
        return self.mean * self.tokens / self.completions

    @property
    def metric(self) -> Metric:
        """What it is in metrics.jsonl."""
        return KL if self.exact else KL_ESTIMATE


def evaluate_prompt(
    engine: PolicyEngine,
    task: Task,
    problems: Sequence[Problem],
    prompt: Prompt,
    k: int,
    params: SamplingParams,
    seed: int,
    episodes: EpisodesConfig = DEFAULTS,
) -> EvaluationResult:
    """As `evaluate_prompts`, of one prompt."""
    return evaluate_prompts(engine, task, problems, [prompt], k, params, seed, episodes)[0]


def evaluate_prompts(
    engine: PolicyEngine,
    task: Task,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    k: int,
    params: SamplingParams,
    seed: int,
    episodes: EpisodesConfig = DEFAULTS,
) -> list[EvaluationResult]:
    """mean@k and best@k of the current weights under each prompt, in order.

    They are sampled together: a step of decoding costs a few rows nearly what it costs many.
    Raises: InfrastructureError when every rollout of a prompt was masked, since there is nothing to report then.
    """
    requests = [
        RolloutRequest(p, prompt, k, derive_seed(seed, "evaluate", p.id)) for prompt in prompts for p in problems
    ]
    groups = make_rollouts(engine, task, requests, params, "rl", episodes=episodes)
    size = len(problems)
    return [_result(prompt, groups[n * size : (n + 1) * size], k) for n, prompt in enumerate(prompts)]


def _result(prompt: Prompt, groups: Sequence[Sequence[Rollout]], k: int) -> EvaluationResult:
    rewards = [[r.reward for r in group if r.reward is not None] for group in groups]
    scored = [group for group in rewards if group]
    rollouts = tuple(rollout for group in groups for rollout in group)
    if not scored:
        raise InfrastructureError(f"no rollout of the evaluation could be scored. The first: {rollouts[0].failure}")
    bests = [[expected_best(group, k)] for group in scored if len(group) >= k]
    return EvaluationResult(
        prompt=prompt,
        problems=len(scored),
        k=k,
        mean=_mean_of_means(scored),
        mean_interval=mean_interval(scored),
        best=_mean_of_means(bests) if bests else nan,
        best_interval=mean_interval(bests) if bests else (nan, nan),
        masked=len(rollouts) - sum(len(group) for group in scored),
        cut_off=sum(rollout.cut_off for rollout in rollouts),
        completion_tokens=float(np.mean([rollout.sampled_tokens for rollout in rollouts])),
        rollouts=rollouts,
        best_problems=len(bests),
    )


def expected_best(rewards: Sequence[float], k: int) -> float:
    """Mean over all ways to take k of a problem's m rewards of the best of them: unbiased for the best of k samples.

    With rewards r_1 <= ... <= r_m it is the sum over i >= k of C(i - 1, k - 1) / C(m, k) r_i;
    of rewards 0 and 1 it is pass@k.
    Source: arXiv 2107.03374, eq. 1, for 0 and 1; arXiv 2510.23393, appendix C.1. Raises: ValueError where m < k.
    """
    if not 0 < k <= len(rewards):
        raise ValueError(f"the best of {k} cannot be told from {len(rewards)} rewards")
    ways = comb(len(rewards), k)
    return sum(comb(below, k - 1) / ways * reward for below, reward in enumerate(sorted(rewards)))


def complementary_mean(results: Sequence[EvaluationResult]) -> tuple[float, Interval] | None:
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
            means.append([float(np.mean([_counted(halves, 0), _counted(halves, 1)]))])
    return (_mean_of_means(means), mean_interval(means)) if means else None


def by_kind_mean(
    results: Sequence[EvaluationResult], prompts: Mapping[str, str], problems: Sequence[Problem]
) -> tuple[float, Interval]:
    """mean@k with the problems of each kind under the prompt that was chosen for the kind, and a 95 % interval.

    `prompts` maps kinds to hashes of prompts among the results; a kind that it lacks has the first result's. The choice
    was made on training problems, so that this is what a user gets who knows a problem's kind.
    """
    rewards = {result.prompt.hash: _rewards_by_problem(result) for result in results}
    first = results[0].prompt.hash
    found = [rewards[prompts.get(problem.kind, first)].get(problem.id, []) for problem in problems]
    scored = [values for values in found if values]
    return _mean_of_means(scored), mean_interval(scored)


def _mean_of_means(groups: Sequence[Sequence[float]]) -> float:
    return float(np.mean([sum(group) / len(group) for group in groups]))


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
    engine: PolicyEngine,
    task: Task,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    params: SamplingParams,
    seed: int,
    episodes: EpisodesConfig = DEFAULTS,
) -> list[KlResult]:
    """Token-level KL between the current and the base policy under the same context, for each prompt.

    One episode a problem is drawn from the current policy (give `params` at temperature 1); at each position that it
    sampled the divergence is taken over the full vocabulary, or estimated where the engine cannot do that. What an
    environment that failed left of its episode counts as well: rewards are no part of this.
    Source: arXiv 2605.12484 section 4.3. Raises: InfrastructureError where nothing could be sampled under a prompt.
    """
    requests = [RolloutRequest(p, prompt, 1, derive_seed(seed, "kl", p.id)) for prompt in prompts for p in problems]
    played = [group[0] for group in play(engine, task, requests, params, episodes=episodes, scored=False)]
    turns = [[TokenSequence(t.context_tokens, t.completion.tokens) for t in one.turns] for one in played]
    divergences = iter(engine.kl_to_base([sequence for sequences in turns for sequence in sequences]))
    by_problem = [[value for _ in sequences for value in next(divergences)] for sequences in turns]
    size = len(problems)
    parts = [slice(n * size, (n + 1) * size) for n in range(len(prompts))]
    return [_kl_result(by_problem[part], played[part], seed, exact=engine.kl_is_exact) for part in parts]


def _kl_result(by_problem: Sequence[Sequence[float]], played: Sequence[Played], seed: int, *, exact: bool) -> KlResult:
    sums, counts = [sum(values) for values in by_problem if values], [len(values) for values in by_problem if values]
    if not counts:
        raise InfrastructureError(f"no episode of the KL's problems sampled anything. The first: {played[0].failure}")
    return KlResult(sum(sums) / sum(counts), ratio_interval(sums, counts, seed=seed), sum(counts), exact, len(counts))
