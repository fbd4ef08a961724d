"""The values that the two time scales exchange. One record per thing; all of them are immutable."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Message = Mapping[str, str]
Tool = Mapping[str, object]
"""A tool as chat templates take it: {"type": "function", "function": {"name", "description", "parameters"}}."""
FinishReason = Literal["stop", "length"]
RolloutSource = Literal["gepa", "rl"]
EndReason = Literal["done", "turn_tokens", "max_turns", "max_tokens", "context", "failed", "timed_out"]
"""Why an episode ended: the environment said so; a turn was cut off at `sampling.max_tokens`; no turn, no token of the
episode or no position of the model was left; the environment raised, or did not answer in time.
"""
CUT_OFF: tuple[EndReason, ...] = ("turn_tokens", "max_turns", "max_tokens", "context")
"""The limits: what ends at one is cut off and scores 0."""

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
        # Half of a surrogate pair cannot be encoded otherwise.
        text = json.dumps(self.components, ensure_ascii=False).encode(errors="surrogatepass")
        return hashlib.sha256(text).hexdigest()[:12]


@dataclass(frozen=True)
class Problem:
    """One question. `id` is stable across runs and splits;
    `data` is for the task's scorer and never shown to the model.

    `kind` is a category that the task knows of (a subject, a data set), "" where there is one kind only: the prompt
    search looks at one kind at a time, and the population keeps a prompt for each.
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
    """What came out of the policy. `logprobs` are the sampler's own, one a token,
    the end-of-sequence token included.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.logprobs):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.logprobs)} log-probabilities")


@dataclass(frozen=True)
class Turn:
    """One completion of an episode and what it was sampled after.

    `text` is what the policy wrote, without the tokens that end it. `messages` are what was said before it: the
    difference to the turn that it goes on from. Of the first turn they are what the episode opened with, where that is
    not the problem's own question.

    `follows` is the index of that turn, where an agent keeps several conversations; None: it is the turn before. -1:
    there is none, the turn begins a conversation of its own, and `messages` are all of it.
    """

    context_tokens: tuple[int, ...]
    completion: Completion
    text: str
    messages: tuple[Message, ...] = ()
    follows: int | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The context and the completion: what the next turn's context begins with, unless it forks."""
        return (*self.context_tokens, *self.completion.tokens)

    def continues(self, earlier: "Turn | None") -> bool:
        """Whether its context begins with every token of the turn before."""
        return earlier is not None and self.context_tokens[: len(earlier.tokens)] == earlier.tokens


@dataclass(frozen=True)
class Trace:
    """How an episode of several turns went. `end` is why it ended; `said` the environment's last words,
    after the last turn.

    `tool_errors` are what tools answered to calls that failed. `environment_s` is the time that the environment took,
    in seconds: it is measured, so that two traces are equal whatever it is.
    """

    end: EndReason
    said: tuple[Message, ...] = ()
    tool_calls: int = 0
    tool_errors: tuple[str, ...] = ()
    environment_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Rollout:
    """One episode of one problem under one prompt, with everything that both sides need to learn from it.

    It has one turn where the task has: then there is no `trace`. A rollout whose environment failed before anything was
    sampled has none. `reward` is None exactly when `failure` says what broke outside the model:
    such a rollout is masked out of every mean.
    """

    problem_id: str
    prompt_hash: str
    turns: tuple[Turn, ...]
    reward: float | None
    feedback: str
    failure: str | None
    policy_version: int
    source: RolloutSource
    trace: Trace | None = None

    def __post_init__(self) -> None:
        if (self.reward is None) != (self.failure is not None):
            raise ValueError("a rollout has either a reward or a failure")

    @property
    def text(self) -> str:
        """What the policy wrote last."""
        return self.turns[-1].text if self.turns else ""

    @property
    def sampled_tokens(self) -> int:
        """Completion tokens of all turns."""
        return sum(len(turn.completion.tokens) for turn in self.turns)

    @property
    def end(self) -> EndReason:
        """Why it ended."""
        if self.trace is not None:
            return self.trace.end
        return "turn_tokens" if self.finish_reason == "length" else "done"

    @property
    def finish_reason(self) -> FinishReason:
        """`length` where the last completion was cut off."""
        return self.turns[-1].completion.finish_reason if self.turns else "stop"

    @property
    def cut_off(self) -> bool:
        """Whether it ended at a limit."""
        return self.end in CUT_OFF

    @property
    def forked(self) -> tuple[bool, ...]:
        """Which turns do not begin with the turn that they go on from: the chat template renders what was said in
        another way, or an agent begins another conversation. The first turn never forks.
        """
        return tuple(index > 0 and not turn.continues(self.before(index)) for index, turn in enumerate(self.turns))

    @property
    def forks(self) -> int:
        """How many turns forked."""
        return sum(self.forked)

    def before(self, index: int) -> Turn | None:
        """The turn that a turn goes on from; None where there is none."""
        follows = self.turns[index].follows
        before = index - 1 if follows is None else follows
        return self.turns[before] if before >= 0 else None

    def to_json(self) -> dict[str, Any]:
        """As a line of a rollouts file. The one turn of a rollout without a trace lies in the line itself."""
        record = {name: value for name, value in vars(self).items() if name not in ("turns", "trace")}
        if self.trace is None and len(self.turns) == 1 and not self.turns[0].messages:
            turn = asdict(self.turns[0])
            del turn["messages"], turn["follows"]
            head = {name: record.pop(name) for name in ("problem_id", "prompt_hash")}
            return {**head, **turn, **record}
        trace = None if self.trace is None else asdict(self.trace)
        befores = (None, *self.turns[:-1])
        turns = [_turn_to_json(turn, before) for before, turn in zip(befores, self.turns, strict=False)]
        return {**record, "turns": turns, "trace": trace}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Rollout":
        """A rollout from such a line, of any version."""
        fields = dict(record)
        if "turns" not in fields:
            one = {name: fields.pop(name) for name in ("context_tokens", "completion", "text")}
            return cls(**fields, turns=(_turn_from_json(one, None),))
        turns: list[Turn] = []
        for line in fields["turns"]:
            turns.append(_turn_from_json(line, turns[-1] if turns else None))
        trace = fields["trace"]
        if trace is not None:
            errors, said = tuple(trace["tool_errors"]), tuple(trace["said"])
            trace = Trace(**{**trace, "said": said, "tool_errors": errors})
        return cls(**{**fields, "turns": tuple(turns), "trace": trace})


def _turn_to_json(turn: Turn, before: Turn | None) -> dict[str, Any]:
    """A turn that goes on from the one before has only the tokens that are new in its context."""
    record = {**asdict(turn), "continues": turn.continues(before)}
    if turn.follows is None:
        del record["follows"]
    if before is not None and record["continues"]:
        record["context_tokens"] = turn.context_tokens[len(before.tokens) :]
    return record


def _turn_from_json(record: Mapping[str, Any], before: Turn | None) -> Turn:
    completion = record["completion"]
    context = tuple(record["context_tokens"])
    if before is not None and record.get("continues"):
        context = (*before.tokens, *context)
    return Turn(
        context,
        Completion(tuple(completion["tokens"]), tuple(completion["logprobs"]), completion["finish_reason"]),
        record["text"],
        tuple(record.get("messages", ())),
        record.get("follows"),
    )
