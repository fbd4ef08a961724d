"""Scorers and environments that hang, end their process, crash it or eat its memory, for tests of `task.isolate`."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from fastslow.tasks.base import EpisodeTask, Split, Task
from fastslow.types import Message, Problem, Prompt, Score, Tool


def misbehave(how: str) -> Any:
    """What a scorer or an environment may do."""
    if how == "hang":
        time.sleep(1e6)
    if how == "loop":
        while True:
            pass
    if how == "stubborn":  # catches everything that it can
        while True:
            try:
                time.sleep(1e6)
            except BaseException:
                raise SystemExit(0) from None
    if how == "lock":
        threading.Lock().acquire() and threading.Lock().acquire()
        held = threading.Lock()
        held.acquire()
        held.acquire()
    if how == "exit":
        os._exit(0)
    if how == "sys.exit":
        sys.exit(0)
    if how == "crash":
        ctypes.string_at(0)
    if how == "memory":
        return [bytearray(1 << 26) for _ in range(1 << 10)]
    if how == "raise":
        raise RuntimeError("no sandbox")
    return None


class OneByOne(Task):
    """Does what the completion says; reward 0.5, with the number of its process in the feedback."""

    name: ClassVar[str] = "hostile"

    def problems(self, split: Split) -> Sequence[Problem]:
        return [Problem(f"{split}-{n}", ({"role": "user", "content": f"{split} {n}"},)) for n in range(4)]

    def score(self, problem: Problem, completion: str) -> Score:
        misbehave(completion)
        wrong: dict[str, Any] = {"text": "0.5", "nan": float("nan"), "more": 1.0000001}
        return Score(wrong.get(completion, 0.5), str(os.getpid()))


class Batches(OneByOne):
    """The same, a batch at a time."""

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> Any:
        if "short" in completions and len(completions) > 1:
            return []
        return [self.score(problem, text) for problem, text in zip(problems, completions, strict=True)]


class Play:
    """Says the number of its process once, then does what the policy says."""

    tools: Sequence[Tool] = ({"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}},)

    def __init__(self, problem: Problem, prompt: Prompt) -> None:
        self.problem, self.prompt, self.said = problem, prompt, ""
        self.tool_calls, self.tool_errors = 0, []

    def start(self) -> Sequence[Message]:
        if "start" in self.problem.data:
            misbehave(self.problem.data["start"])
        return [{"role": "system", "content": self.prompt.system}, *self.problem.messages]

    def step(self, text: str) -> Any:
        misbehave(text)
        self.said += text
        self.tool_calls += 1
        self.tool_errors.append(f"no tool {text}")
        return {"nonsense": 5, "number": [1]}.get(text, [{"role": "user", "content": str(os.getpid())}])

    def score(self) -> Score:
        misbehave(self.said.rpartition("score:")[2])
        return Score(0.25, self.said)

    def close(self) -> None:
        misbehave(self.said.rpartition("close:")[2])


class Environment(EpisodeTask):
    """Episodes of `Play`."""

    name: ClassVar[str] = "hostile-environment"

    def problems(self, split: Split) -> Sequence[Problem]:
        return OneByOne().problems(split)

    def episode(self, problem: Problem, prompt: Prompt) -> Play:
        return Play(problem, prompt)


class EndsWhenMadeAgain(OneByOne):
    """Cannot be made in another process than the one that set the variable."""

    def __init__(self, how: str = "sys.exit") -> None:
        if os.environ.get("FASTSLOW_TEST_MADE_IN") not in (None, str(os.getpid())):
            misbehave(how)


class OtherProblems(OneByOne):
    """Has other problems in each process."""

    def problems(self, split: Split) -> Sequence[Problem]:
        return [Problem(f"{split}-{os.getpid()}", ({"role": "user", "content": split},))]
