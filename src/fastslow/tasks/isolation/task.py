"""A task whose scorer and whose episodes run in processes of their own (`task.isolate: process`)."""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from fastslow.errors import ConfigError, ElsewhereError, InfrastructureError, TaskError
from fastslow.tasks.base import TIMEOUT, ScoringFailure, Split, Stage, Task, failure_of
from fastslow.tasks.episode import Episode, OneTurn
from fastslow.tasks.isolation.process import Origin, Worker
from fastslow.tasks.isolation.worker import digest
from fastslow.threads import TimeLimit
from fastslow.types import Message, Problem, Prompt, Score, Tool

GIB = 1 << 30


class IsolatedTask(Task):
    """A task of anybody's: its problems and prompts are had here, its scores and episodes elsewhere.

    `config` makes the same task again. Raises: ConfigError where it does not, or where there are no such processes.
    """

    def __init__(
        self, task: Task, config: Mapping[str, object], timeout_s: float | None, memory_gib: float | None
    ) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError("task.isolate: 'process' needs a system that can fork: set it to null")
        if tuple(task.parts) != (task,):
            raise ConfigError(f"task.isolate: 'process' is not for task {task.name!r}: set it in each task of a stream")
        self.name, self.task, self.timeout_s = task.name, task, timeout_s
        memory_bytes = None if memory_gib is None else int(memory_gib * GIB)
        self.origin = Origin(config, memory_bytes, digest(task))
        self._worker: Worker | None = None
        self._lock = threading.Lock()

    @property
    def seed_prompt(self) -> Prompt:
        """The task's."""
        return self.task.seed_prompt

    @property
    def optional_components(self) -> Mapping[str, str]:
        """The task's."""
        return self.task.optional_components

    @property
    def scores_alone(self) -> bool:
        """The task's."""
        return self.task.scores_alone

    def stage(self, step: int) -> Stage:
        """The task's."""
        stage = self.task.stage(step)
        return Stage(self, stage.first_step, stage.steps)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The task's."""
        return self.task.problems(split)

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        """The task's."""
        return self.task.messages(problem, prompt)

    def reference(self, problem: Problem) -> str | None:
        """The task's."""
        return self.task.reference(problem)

    def episode(self, problem: Problem, prompt: Prompt) -> Episode:
        """An episode in a process of its own, unless the task has one turn."""
        if type(self.task).episode is Task.episode:
            return OneTurn(self, problem, prompt)
        return IsolatedEpisode(self.origin, problem, prompt)

    def score(self, problem: Problem, completion: str) -> Score:
        """The task's, from its own process. Raises: LateError, ElsewhereError, TaskError."""
        reply = self._ask("score", problem.id, completion)
        if "failure" in reply:
            raise ElsewhereError(reply["failure"], reply["place"])
        return Score(reply["reward"], reply["feedback"])

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """The task's, from its own process. Raises: LateError, ElsewhereError, TaskError."""
        if self.scores_alone:
            return super().score_batch(problems, completions)
        replies = self._ask("score_batch", [problem.id for problem in problems], list(completions))
        return [
            ScoringFailure(reply["failure"]) if "failure" in reply else Score(reply["reward"], reply["feedback"])
            for reply in replies
        ]

    def limit_scoring(self, timeout_s: float | None) -> None:
        """As `Task.limit_scoring`; the process is ended after it."""
        self.timeout_s = timeout_s

    def verdicts(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """As `Task.verdicts`; the time limit is looked at here, where a process can be ended."""
        return self._verdicts_within(TimeLimit(None, TIMEOUT), problems, completions)

    def _score_one(self, problem: Problem, completion: str, limit: TimeLimit | None = None) -> Score | ScoringFailure:
        try:
            return self.score(problem, completion)
        except InfrastructureError as error:
            return failure_of(error)

    def _ask(self, name: str, *arguments: object) -> Any:
        with self._lock:  # agents end in threads of their own
            if self._worker is None or not self._worker.alive:
                self._worker = self.origin.fork()
            return self._worker.ask(name, *arguments, timeout_s=self.timeout_s, field=TIMEOUT)["value"]


class IsolatedEpisode:
    """An episode whose process begins with its `start` and ends with its `close`."""

    def __init__(self, origin: Origin, problem: Problem, prompt: Prompt) -> None:
        self.origin, self.problem, self.prompt = origin, problem, prompt
        self.tools: Sequence[Tool] = ()
        self.tool_calls = 0
        self.tool_errors: tuple[str, ...] = ()
        self._worker: Worker | None = None
        self._closed = False

    def start(self) -> Sequence[Message]:
        """The episode's."""
        worker = self._worker = self.origin.fork()
        if self._closed:  # it was given up meanwhile
            worker.kill()
        reply = self._ask("start", self.problem.id, self.prompt.as_dict())
        self.tools = reply["tools"]
        return reply["messages"]  # type: ignore[no-any-return]

    def step(self, text: str) -> Sequence[Message]:
        """The episode's."""
        return self._ask("step", text)  # type: ignore[no-any-return]

    def score(self) -> Score:
        """The episode's; a TaskError stands for what is no score, and is for whoever checks it."""
        try:
            reply = self._ask("score_episode", self.problem.id)
        except TaskError as error:
            return error  # type: ignore[return-value]
        return Score(reply["reward"], reply["feedback"])

    def close(self) -> None:
        """The episode's; its process ends whatever it does."""
        self._closed = True
        if self._worker is not None:
            self._worker.close()

    def _ask(self, name: str, *arguments: object) -> Any:
        if self._worker is None or not self._worker.alive:
            raise ElsewhereError("its process is gone")
        # Whoever plays the episode has a time limit, and closes what is late.
        reply = self._worker.ask(name, *arguments, timeout_s=None, field="")
        self.tool_calls, self.tool_errors = reply["calls"], tuple(reply["errors"])
        return reply["value"]
