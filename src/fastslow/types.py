"""The values that the two time scales exchange. One record per thing; all of them are immutable."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Message = Mapping[str, str]
FinishReason = Literal["stop", "length"]
RolloutSource = Literal["gepa", "rl"]

SYSTEM = "system"


@dataclass(frozen=True)
class Prompt:
    """One member of the population phi: a small set of named text components, `system` unless a task names more."""

    components: tuple[tuple[str, str], ...]

    @classmethod
    def from_dict(cls, components: Mapping[str, str]) -> "Prompt":
        """A prompt from component names to texts, in whatever order."""
        return cls(tuple(sorted(components.items())))

    @classmethod
    def of(cls, system: str) -> "Prompt":
        """A prompt with the one component `system`."""
        return cls(((SYSTEM, system),))

    def as_dict(self) -> dict[str, str]:
        """Component names to texts."""
        return dict(self.components)

    def replace(self, component: str, text: str) -> "Prompt":
        """A copy with one component changed. Raises KeyError for a component that the prompt does not have."""
        components = self.as_dict()
        if component not in components:
            raise KeyError(component)
        return Prompt.from_dict({**components, component: text})

    @property
    def system(self) -> str:
        """The component `system`; empty where there is none."""
        return self.as_dict().get(SYSTEM, "")

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the components: the prompt's identity everywhere."""
        return hashlib.sha256(json.dumps(self.components, ensure_ascii=False).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Problem:
    """One question. `id` is stable across runs and splits; `data` is for the task's scorer and never shown to the model.

    `kind` is a category that the task knows of (a subject, a data set), "" where there is one kind only: the prompt search
    looks at one kind at a time, and the population keeps a prompt for each.
    """

    id: str
    messages: tuple[Message, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Score:
    """A verdict on one completion: reward in [0, 1], and feedback in words, one finding a line."""

    reward: float
    feedback: str = ""


@dataclass(frozen=True)
class Completion:
    """What came out of the policy. `logprobs` are the sampler's own, one a token, the end-of-sequence token included."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.logprobs):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.logprobs)} log-probabilities")


@dataclass(frozen=True)
class Rollout:
    """One completion of one problem under one prompt, with everything that both sides need to learn from it.

    `reward` is None exactly when `failure` says what broke outside the model: such a rollout is masked out of every mean.
    """

    problem_id: str
    prompt_hash: str
    context_tokens: tuple[int, ...]
    completion: Completion
    text: str
    reward: float | None
    feedback: str
    failure: str | None
    policy_version: int
    source: RolloutSource

    def __post_init__(self) -> None:
        if (self.reward is None) != (self.failure is not None):
            raise ValueError("a rollout has either a reward or a failure")

    def to_json(self) -> dict[str, Any]:
        """As a line of a rollouts file."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Rollout":
        """A rollout from such a line."""
        completion = record["completion"]
        fields = dict(record)
        fields["context_tokens"] = tuple(record["context_tokens"])
        fields["completion"] = Completion(
            tuple(completion["tokens"]), tuple(completion["logprobs"]), completion["finish_reason"]
        )
        return cls(**fields)
