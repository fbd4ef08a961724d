"""The batch that both sides of a benchmark get, the reward, and the line protocol of their processes.

Standard library alone, because it is imported from two environments. Axis suffixes: _R rollouts, problem after problem.
"""

import json
import random
import resource
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Message = dict[str, str]

CASES = {
    "a": "short prompts: one system prompt of one sentence",
    "b": "long prompts: K system prompts of 500 to 1000 tokens, each used by every problem",
}
SHORT_PROMPT = "You are a helpful assistant. Think first, then give the answer."
# The share of an English word that is one token of a byte-pair vocabulary of about 50,000, near enough.
TOKENS_PER_WORD = 1.2
SHORTEST, LONGEST = 520, 960

RULES = (
    "Read the {thing} twice before you write a single {part} of the answer.",
    "If the {thing} has more than {n} {part}s, work on {n} at a time and keep a running {part}.",
    "Never repeat the {thing}; write only what the {part} needs.",
    "When two {part}s of the {thing} disagree, trust the one that was given {n} lines earlier.",
    "Give the {part} as a plain number without units, unless the {thing} names {n} units.",
    "Check the {part} by going through the {thing} backwards, and correct at most {n} mistakes.",
    "A common mistake is to drop the last {part} of the {thing}: count {n} of them before you stop.",
    "Put the final {part} on a line of its own after at most {n} short steps about the {thing}.",
)
THINGS = ("question", "list", "table", "sentence", "program", "graph", "equation", "record")
PARTS = ("word", "row", "term", "edge", "step", "letter", "value", "sum")


@dataclass(frozen=True)
class Workload:
    """One RL step: `problems` x `group` rollouts of exactly `new_tokens` tokens under `prompts` system prompts (K)."""

    case: str
    problems: int = 8
    group: int = 8
    prompts: int = 1
    new_tokens: int = 64

    def messages_R(self) -> list[list[Message]]:
        """Messages of every rollout: each problem under each prompt, G/K times.
        Raises ValueError if K does not divide G.
        """
        if self.case not in CASES or self.group % self.prompts:
            raise ValueError(f"case {self.case!r} with G = {self.group} and K = {self.prompts}: K must divide G")
        systems = [self._system(index) for index in range(self.prompts)]
        return [
            [{"role": "system", "content": systems[slot]}, {"role": "user", "content": _question(problem)}]
            for problem in range(self.problems)
            for slot in sorted(slot % self.prompts for slot in range(self.group))
        ]

    def _system(self, index: int) -> str:
        if self.case == "a":
            return SHORT_PROMPT
        share = index / (self.prompts - 1) if self.prompts > 1 else 0.5
        words = (SHORTEST + share * (LONGEST - SHORTEST)) / TOKENS_PER_WORD
        rng = random.Random(index)
        lines = [f"Rule set {index + 1} for careful answers."]
        while sum(len(line.split()) for line in lines) < words:
            rule = rng.choice(RULES)
            lines.append(rule.format(thing=rng.choice(THINGS), part=rng.choice(PARTS), n=rng.randint(2, 99)))
        return "\n".join(lines)


def _question(index: int) -> str:
    rng = random.Random(1000 + index)
    return f"What is {rng.randint(10, 99)} + {rng.randint(10, 99)} - {rng.randint(10, 99)}? Explain."


def reward(completion_tokens: Sequence[int]) -> float:
    """A checksum of the tokens in [0, 1]: free, deterministic, and different within every group."""
    return (zlib.crc32(" ".join(map(str, completion_tokens)).encode()) % 10007) / 10006


@dataclass(frozen=True)
class Settings:
    """What a side's process is told. `microbatch` counts tokens for fastslow and rows for TRL."""

    workload: Workload
    model: str
    precision: str
    threads: int
    clock: str
    variant: str
    microbatch: int
    device: str = "cpu"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        fields = json.loads(text)
        return cls(**{**fields, "workload": Workload(**fields["workload"])})


@dataclass(frozen=True)
class StepTimes:
    """One RL step of one side. Sampling includes the rewards, training is the rest;
    `_cpu_s` is the process's CPU time.
    """

    sampling_s: float
    training_s: float
    sampling_cpu_s: float
    training_cpu_s: float
    completion_tokens: int


@dataclass(frozen=True)
class Instant:
    """A moment on the wall clock and on the process's CPU clock, in seconds."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Instant":
        return cls(time.perf_counter(), time.process_time())


def step_times(started: Instant, sampled: Instant, ended: Instant, completion_tokens: int) -> StepTimes:
    """The times of a step that sampled first and trained then."""
    return StepTimes(
        sampled.wall_s - started.wall_s,
        ended.wall_s - sampled.wall_s,
        sampled.cpu_s - started.cpu_s,
        ended.cpu_s - sampled.cpu_s,
        completion_tokens,
    )


MARK = "@benchmark "


def tell(**event: Any) -> None:
    """One event to the driver: a marked line of JSON, so that whatever a library prints is not taken for one."""
    print(MARK + json.dumps({**event, "peak_rss_bytes": peak_rss_bytes()}), flush=True)


def next_order() -> str:
    """The driver's next order: `step`, or nothing once it has hung up."""
    return sys.stdin.readline().strip()


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(step: Callable[[], Any]) -> None:
    """Do a step for every order, and report the dataclass that it returns."""
    while next_order() == "step":
        tell(event="step", **asdict(step()))
