"""The fast side's interface: what the loop asks of a prompt optimiser, and what an optimiser may ask of the policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fastslow.types import Problem, Prompt, Rollout


@dataclass(frozen=True)
class Evaluation:
    """The rollouts of one problem under one prompt, at least one; `reward` is None when all of them failed.

    Reuse gives some pairs several rollouts and leaves others with one. Their rewards have the same mean but not the
    same spread: a comparison that asks which is best on a problem must take equally many of each.
    """

    prompt: Prompt
    problem: Problem
    rollouts: tuple[Rollout, ...]

    @property
    def reward(self) -> float | None:
        """Mean over the rollouts that were scored; None where none was."""
        rewards = [rollout.reward for rollout in self.rollouts if rollout.reward is not None]
        return sum(rewards) / len(rewards) if rewards else None


MEMBER = "member of the population"
"""How the reason begins of a candidate that a search started from: the population of the cycle before, scored again."""

Evaluate = Callable[[Sequence[tuple[Prompt, Problem]]], list[Evaluation]]
"""Roll out a batch of (prompt, problem) pairs under the current policy, from the store where it is fresh enough.

Returns one evaluation a pair, in order. The store and the counting of sampled rollouts are behind it. A pair is one
metric call, whether it was sampled or served from the store.
"""


@dataclass(frozen=True)
class Usage:
    """What reflection cost. `usd` is None where the price is not known.

    `sampled` completions of `sampled_tokens` tokens are of the policy itself: they are sampled rollouts of the run, as
    the paper's axis counts them, and spend its budget.
    """

    calls: int = 0
    failures: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    sampled: int = 0
    sampled_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Usage(
            self.calls + other.calls,
            self.failures + other.failures,
            self.refused + other.refused,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            usd,
            self.sampled + other.sampled,
            self.sampled_tokens + other.sampled_tokens,
        )


@dataclass(frozen=True)
class Reflection:
    """One question to a reflection LM and what became of its answer, for `reflections.jsonl`.

    `request` is what it was asked and `diagnosis` what it said beside the new text, both without keys and clipped in
    their middle. `parent` and `child` are hashes of prompts; `child` is None where there is none. `reason`: why the
    answer was not taken, where it was not.
    """

    parent: str
    component: str
    request: str
    diagnosis: str
    usage: Usage
    outcome: Literal["proposed", "refused", "failed"] = "proposed"
    reason: str = ""
    child: str | None = None


@dataclass(frozen=True)
class Candidate:
    """One prompt that was ever proposed, for `prompts.jsonl`.

    `parent_hash` is None for seeds. `scores` maps problem ids to rewards on the anchor set (empty when it was not
    evaluated there). `reason` says in words why it was accepted or not. `feedback` is what led to it.
    """

    prompt: Prompt
    parent_hash: str | None
    accepted: bool
    reason: str
    scores: dict[str, float] = field(default_factory=dict)
    feedback: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evolution:
    """What one cycle of prompt optimisation brought. `error` says why the population was kept, where it was; `paid`
    whether a new prompt beats the best old one by more than the noise of its score; `by_kind` which member is best for
    which kind of problems, where there are several. `refusals` counts, by their words, why replies were not adopted;
    `proposed` how many were, None where that is not counted; `reflections` is what was asked of a language model.
    """

    population: tuple[Prompt, ...]
    candidates: tuple[Candidate, ...]
    metric_calls: int
    usage: Usage
    error: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    paid: bool = False
    by_kind: dict[str, Prompt] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    proposed: int | None = None
    reflections: tuple[Reflection, ...] = ()


class PromptOptimiser(Protocol):
    """Moves the fast weights."""

    def evolve(
        self,
        population: Sequence[Prompt],
        problems: Sequence[Problem],
        evaluate: Evaluate,
        *,
        size: int,
        seed: int,
        previous_scores: Mapping[str, float],
    ) -> Evolution:
        """Evolve a population of prompts on an anchor set.

        `population` is the whole previous one (the seed prompt alone before the first cycle), `problems` the anchor
        set, `size` the K of the population to return: exactly K prompts, best first, padded with the best where fewer
        distinct ones exist. `previous_scores` maps prompt hashes to mean rewards of the cycle before: a population that
        scored then and scores nothing now has gone stale. Never raises when reflection is down: it then returns the
        previous population and says so in `error`. Raises InfrastructureError when nothing at all could be scored.
        """
        ...
