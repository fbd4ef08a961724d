"""One step's line of `metrics.jsonl`, collected while the step runs. `runs/metrics.py` says what each value is."""

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastslow.fast.optimiser import Evolution
from fastslow.runs import metrics as m
from fastslow.runs.metric import Metric, Start
from fastslow.slow.bare import PromptGap
from fastslow.slow.engine import UpdateMetrics
from fastslow.types import EndReason, Rollout

BEGUN = [
    metric
    for metric in (*m.TIMERS, *m.of_group("fast"), *m.of_group("reward"), *m.of_group("slow"))
    if metric.start is not Start.MISSING
]
"""What every line has, whatever happened in its step, in the order of a line."""


class StepRecord:
    """Counts and means of one step; `finish` gives the line."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.values: dict[str, Any] = {metric.name: json.loads(metric.start.value) for metric in BEGUN}
        self.rollouts: list[Rollout] = []
        self.pairs = 0
        self.sampled = {"rl": 0, "gepa": 0, "reflection": 0}
        self.reused = {"rl": 0, "gepa": 0}
        self.completion_tokens = 0

    @contextmanager
    def timer(self, metric: Metric) -> Iterator[None]:
        """Add the time spent inside to one of `metrics.TIMERS`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.values[metric.name] += time.perf_counter() - start

    def measured(self, values: Mapping[str, float]) -> None:
        """What an evaluation gave, by names of metrics."""
        self.values |= values

    def count_rl(self, sampled: Sequence[Sequence[Rollout]], reused: Sequence[Sequence[Rollout]]) -> None:
        """Rollouts of RL's groups: those that were sampled, and those that came from the store."""
        self._count("rl", [r for group in sampled for r in group], sum(len(group) for group in reused))

    def count_gepa(self, sampled: Sequence[Sequence[Rollout]], known: Sequence[Sequence[Rollout]]) -> None:
        """Metric calls of the search: those that were sampled, and those that the store answered."""
        self.pairs += len(sampled)
        self._count("gepa", [r for group in sampled for r in group], sum(1 for served in known if served))

    def groups(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Rewards of the step's groups; masked rollouts are in no mean."""
        self.rollouts = [rollout for group in groups for rollout in group]
        rewards = [rollout.reward for rollout in self.rollouts if rollout.reward is not None]
        self._put({m.FAILED: len(self.rollouts) - len(rewards), **episode_metrics(self.rollouts)})
        if not rewards:
            return
        mean = sum(rewards) / len(rewards)
        informative = [len({r.reward for r in group if r.reward is not None}) > 1 for group in groups]
        cut = sum(rollout.cut_off for rollout in self.rollouts)
        tokens = sum(rollout.sampled_tokens for rollout in self.rollouts)
        self._put(
            {
                m.REWARD_MEAN: mean,
                m.REWARD_STD: math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards)),
                m.INFORMATIVE_GROUPS: sum(informative) / len(informative),
                m.CUT_OFF_FRACTION: cut / len(self.rollouts),
                m.COMPLETION_TOKENS: tokens / len(self.rollouts),
            }
        )

    def evolution(self, evolution: Evolution) -> None:
        """What a search cost and brought."""
        usage = evolution.usage
        self.sampled["reflection"] += usage.sampled
        self.completion_tokens += usage.sampled_tokens
        if "overfitted" in evolution.info:
            self._put({m.OVERFITTED: evolution.info["overfitted"]})
        self._put(
            {
                m.METRIC_CALLS: evolution.metric_calls,
                m.CANDIDATES: len(evolution.candidates),
                m.ACCEPTED: sum(candidate.accepted for candidate in evolution.candidates),
                m.REFLECTION_CALLS: usage.calls,
                m.REFLECTION_FAILURES: usage.failures,
                m.REFLECTION_REFUSED: usage.refused,
                m.INPUT_TOKENS: usage.input_tokens,
                m.OUTPUT_TOKENS: usage.output_tokens,
                m.USD: usage.usd,
                m.BEST_SCORE: evolution.info.get("best_mean"),
                m.MASKED_CALLS: evolution.info.get("masked", 0),
                m.TOO_LONG: evolution.info.get("too_long", 0),
                m.ERROR: evolution.error,
            }
        )
        if "merges" in evolution.info:
            self._put(dict(zip((m.MERGES_TRIED, m.MERGES_ACCEPTED), evolution.info["merges"], strict=True)))

    def count_work(self, computed_tokens: int, kept_tokens: int) -> None:
        """What sampling the episodes of a step took: tokens that were computed, and tokens that need not be."""
        self._put({m.EPISODE_COMPUTED: computed_tokens, m.EPISODE_KEPT: kept_tokens})

    def update(self, metrics: UpdateMetrics, learning_rate: float, datums: int) -> None:
        """What an update of the weights gave."""
        self._put(
            {
                m.LOSS: metrics.loss,
                m.GRAD_NORM: metrics.grad_norm,
                m.RATIO_MEAN: metrics.ratio_mean,
                m.RATIO_MAX: metrics.ratio_max,
                m.CLIP_FRACTION: metrics.clip_fraction,
                m.ENTROPY: metrics.entropy,
                m.KL_PENALTY: metrics.kl_penalty,
                m.MISMATCH_KL: metrics.mismatch_kl,
                m.MISMATCH_MAX: metrics.mismatch_max,
                m.MISMATCH_MASKED: metrics.masked,
                m.LEARNING_RATE: learning_rate,
                m.DATUMS: datums,
                m.TOKENS: metrics.tokens,
                m.COMPUTED_TOKENS: metrics.computed_tokens,
                m.SKIPPED_UPDATES: int(metrics.not_finite is not None),
            }
        )
        self.values |= {m.LOSS_METRIC.key(name=name): value for name, value in metrics.loss_metrics.items()}

    def bare(self, gap: PromptGap) -> None:
        """What an update under the seed prompt saw of the prompts that were sampled under."""
        self._put(
            {
                m.BARE_RATIO_MEAN: gap.ratio_mean,
                m.BARE_RATIO_MAX: gap.ratio_max,
                m.BARE_LEFT_OUT: gap.left_out,
                m.BARE_KL: gap.kl,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What a resumed run goes on with where the step had begun; its rollouts are written by then."""
        names = ("values", "pairs", "sampled", "reused", "completion_tokens")
        return {name: copy.deepcopy(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> "StepRecord":
        """A record as `to_json` left it."""
        record = cls()
        for name, value in fields.items():
            setattr(record, name, value)
        return record

    def finish(
        self,
        *,
        step: int,
        cycle: int,
        policy_version: int,
        usd_total: float | None,
        sampled_total: int,
        population_size: int,
    ) -> dict[str, Any]:
        """The line. `rollouts/sampled` is what this step sampled: GEPA's evaluations,
        and what the policy wrote as reflection, included.
        """
        counts = {
            m.STEP: step,
            m.CYCLE: cycle,
            m.POLICY_VERSION: policy_version,
            m.USD_TOTAL: usd_total,
            m.SAMPLED: sum(self.sampled.values()),
            m.SAMPLED_RL: self.sampled["rl"],
            m.SAMPLED_GEPA: self.sampled["gepa"],
            m.SAMPLED_REFLECTION: self.sampled["reflection"],
            m.REUSED: self.reused["rl"] + self.reused["gepa"],
            m.REUSED_RL: self.reused["rl"],
            m.REUSED_GEPA: self.reused["gepa"],
            m.SAMPLED_TOTAL: sampled_total,
            m.SAMPLED_TOKENS: self.completion_tokens,
            m.POPULATION_SIZE: population_size,
        }
        begun = {metric.name: value for metric, value in counts.items()}
        return {**begun, **self.values, m.STEP_S.name: time.perf_counter() - self.started}

    def _put(self, values: Mapping[Metric, object]) -> None:
        self.values |= {metric.name: value for metric, value in values.items()}

    def _count(self, source: str, sampled: Sequence[Rollout], reused: int) -> None:
        self.sampled[source] += len(sampled)
        self.reused[source] += reused
        self.completion_tokens += sum(rollout.sampled_tokens for rollout in sampled)


ENDS: Mapping[EndReason, Metric] = {
    "turn_tokens": m.CUT_OFF_TURN_TOKENS,
    "max_turns": m.CUT_OFF_MAX_TURNS,
    "max_tokens": m.CUT_OFF_MAX_TOKENS,
    "context": m.CUT_OFF_CONTEXT,
    "failed": m.ENVIRONMENT_FAILED,
    "timed_out": m.ENVIRONMENT_TIMED_OUT,
}
"""What counts the episodes that ended for a reason."""


def episode_metrics(rollouts: Sequence[Rollout]) -> dict[Metric, float]:
    """What is measured of episodes of several turns; nothing where there are none."""
    played = [(rollout, rollout.trace) for rollout in rollouts if rollout.trace is not None]
    if not played:
        return {}
    ends = [trace.end for _, trace in played]
    return {
        m.EPISODE_TURNS: sum(len(rollout.turns) for rollout, _ in played) / len(played),
        m.TOOL_CALLS: sum(trace.tool_calls for _, trace in played) / len(played),
        m.TOOL_ERRORS: sum(len(trace.tool_errors) for _, trace in played) / len(played),
        m.FORKS: sum(rollout.forks for rollout, _ in played),
        **{metric: ends.count(end) for end, metric in ENDS.items()},
        m.ENVIRONMENT_S: sum(trace.environment_s for _, trace in played),
    }
