"""One step's line of `metrics.jsonl`, collected while the step runs. Every metric is explained in docs/run-directory.md."""

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastslow.fast.optimiser import Evolution
from fastslow.slow.engine import UpdateMetrics
from fastslow.types import Rollout

KL, KL_ESTIMATE = "kl/base", "kl/base_estimate"
"""The KL to the base policy: over the full vocabulary, or estimated where an engine cannot do that."""
TIMERS = ("evolve", "sample", "update", "evaluate")


def kl_of(line: Mapping[str, Any]) -> float | None:
    """The KL to the base of a line of metrics.jsonl, exact or estimated; None where it was not measured."""
    value = line.get(KL)
    found: float | None = value if value is not None else line.get(KL_ESTIMATE)
    return found


def kl_is_estimated(line: Mapping[str, Any]) -> bool:
    """Whether the KL of such a line is the estimate."""
    return line.get(KL) is None and line.get(KL_ESTIMATE) is not None


def kl_mark(line: Mapping[str, Any]) -> str:
    """What stands behind the KL of such a line where only the figure is shown."""
    return " (estimate)" if kl_is_estimated(line) else ""


def kl_name(lines: Iterable[Mapping[str, Any]]) -> str:
    """What a table calls the KL of such lines: whoever reads it must see that a figure is an estimate."""
    return "KL (estimate)" if any(kl_is_estimated(line) for line in lines) else "KL"


class StepRecord:
    """Counts and means of one step; `finish` gives the line."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.values: dict[str, Any] = {f"time/{name}_s": 0.0 for name in TIMERS}
        self.rollouts: list[Rollout] = []
        self.pairs = 0
        self.sampled = {"rl": 0, "gepa": 0, "reflection": 0}
        self.reused = {"rl": 0, "gepa": 0}
        self.completion_tokens = 0
        for name in (
            "fast/metric_calls",
            "fast/reflection_calls",
            "fast/reflection_failures",
            "fast/reflection_refused",
        ):
            self.values[name] = 0
        self.values |= {"fast/input_tokens": 0, "fast/output_tokens": 0, "fast/usd": 0.0, "fast/best_score": None}
        self.values |= {name: None for name in ("reward/mean", "reward/std", "reward/informative_groups")}
        self.values |= {
            f"slow/{name}": None
            for name in (
                "loss", "grad_norm", "ratio_mean", "ratio_max", "clip_fraction", "entropy", "kl_penalty",
                "learning_rate", "datums", "tokens", "computed_tokens", "skipped_updates",
            )
        }  # fmt: skip

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `time/<name>_s`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.values[f"time/{name}_s"] += time.perf_counter() - start

    def set(self, name: str, value: Any) -> None:
        self.values[name] = value

    def count_rl(self, sampled: Sequence[Sequence[Rollout]], reused: Sequence[Sequence[Rollout]]) -> None:
        self._count("rl", [r for group in sampled for r in group], sum(len(group) for group in reused))

    def count_gepa(self, sampled: Sequence[Sequence[Rollout]], known: Sequence[Sequence[Rollout]]) -> None:
        self.pairs += len(sampled)
        self._count("gepa", [r for group in sampled for r in group], sum(1 for served in known if served))

    def groups(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Rewards of the step's groups; masked rollouts are in no mean."""
        self.rollouts = [rollout for group in groups for rollout in group]
        rewards = [rollout.reward for rollout in self.rollouts if rollout.reward is not None]
        self.values["rollouts/failed"] = len(self.rollouts) - len(rewards)
        if not rewards:
            return
        mean = sum(rewards) / len(rewards)
        self.values["reward/mean"] = mean
        self.values["reward/std"] = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
        informative = [len({r.reward for r in group if r.reward is not None}) > 1 for group in groups]
        self.values["reward/informative_groups"] = sum(informative) / len(informative)
        cut = sum(rollout.completion.finish_reason == "length" for rollout in self.rollouts)
        self.values["rollouts/cut_off_fraction"] = cut / len(self.rollouts)
        tokens = sum(len(rollout.completion.tokens) for rollout in self.rollouts)
        self.values["rollouts/completion_tokens"] = tokens / len(self.rollouts)

    def evolution(self, evolution: Evolution) -> None:
        usage = evolution.usage
        self.sampled["reflection"] += usage.sampled
        self.completion_tokens += usage.sampled_tokens
        self.values |= {
            "fast/metric_calls": evolution.metric_calls,
            "fast/candidates": len(evolution.candidates),
            "fast/accepted": sum(candidate.accepted for candidate in evolution.candidates),
            "fast/reflection_calls": usage.calls,
            "fast/reflection_failures": usage.failures,
            "fast/reflection_refused": usage.refused,
            "fast/input_tokens": usage.input_tokens,
            "fast/output_tokens": usage.output_tokens,
            "fast/usd": usage.usd,
            "fast/best_score": evolution.info.get("best_mean"),
            "fast/masked": evolution.info.get("masked", 0),
            "fast/too_long": evolution.info.get("too_long", 0),
            "fast/error": evolution.error,
        }

    def update(self, metrics: UpdateMetrics, learning_rate: float, datums: int) -> None:
        self.values |= {
            "slow/loss": metrics.loss,
            "slow/grad_norm": metrics.grad_norm,
            "slow/ratio_mean": metrics.ratio_mean,
            "slow/ratio_max": metrics.ratio_max,
            "slow/clip_fraction": metrics.clip_fraction,
            "slow/entropy": metrics.entropy,
            "slow/kl_penalty": metrics.kl_penalty,
            "slow/learning_rate": learning_rate,
            "slow/datums": datums,
            "slow/tokens": metrics.tokens,
            "slow/computed_tokens": metrics.computed_tokens,
            "slow/skipped_updates": int(metrics.not_finite is not None),
        }

    def to_json(self) -> dict[str, Any]:
        """What a resumed run goes on with where the step had begun; its rollouts are written by then."""
        names = ("values", "pairs", "sampled", "reused", "completion_tokens")
        return {name: copy.deepcopy(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "StepRecord":
        record = cls()
        for name, value in fields.items():
            setattr(record, name, value)
        return record

    def finish(self, *, sampled_total: int, population_size: int, **fields: Any) -> dict[str, Any]:
        """The line. `rollouts/sampled` is what this step sampled: GEPA's evaluations, and what the policy wrote as reflection,
        included.
        """
        counts = {
            "rollouts/sampled": sum(self.sampled.values()),
            "rollouts/sampled_rl": self.sampled["rl"],
            "rollouts/sampled_gepa": self.sampled["gepa"],
            "rollouts/sampled_reflection": self.sampled["reflection"],
            "rollouts/reused": self.reused["rl"] + self.reused["gepa"],
            "rollouts/reused_rl": self.reused["rl"],
            "rollouts/reused_gepa": self.reused["gepa"],
            "rollouts/sampled_total": sampled_total,
            "rollouts/sampled_tokens": self.completion_tokens,
            "fast/population_size": population_size,
        }
        total = {"time/step_s": time.perf_counter() - self.started}
        return {**fields, **counts, **self.values, **total}

    def _count(self, source: str, sampled: Sequence[Rollout], reused: int) -> None:
        self.sampled[source] += len(sampled)
        self.reused[source] += reused
        self.completion_tokens += sum(len(rollout.completion.tokens) for rollout in sampled)
