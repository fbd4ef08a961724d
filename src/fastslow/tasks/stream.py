"""A stream: several tasks one after the other in one uninterrupted run, as in the paper's continual experiment.

The policy and its optimiser state go on from task to task, and so does the population; nothing tells them that the task
has changed. Two deviations: a search that was sitting out (`fast.max_backoff`) is made at once, and a task that comes
back finds the population that it left with.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from fastslow.errors import TaskError
from fastslow.tasks.base import SPLITS, ScoringFailure, Split, Stage, Task
from fastslow.tasks.episode import Episode
from fastslow.types import Message, Problem, Prompt, Score

Judge = Callable[[list[Problem], list[str]], list[Score | ScoringFailure]]


class StreamTask(Task):
    """Tasks in turn, `steps` RL steps each, the last one for ever; `tasks` are {name, options} as in a config."""

    name = "stream"

    def __init__(self, tasks: list[dict[str, object]], steps: int) -> None:
        from fastslow.tasks.registry import build_task
        from fastslow.tasks.settings import TaskConfig

        if not tasks or steps < 1:
            raise TaskError(f"task.options: a stream needs tasks and steps >= 1, got {len(tasks)} tasks, steps {steps}")
        self.steps = steps
        try:
            self.tasks = tuple(build_task(TaskConfig.model_validate(spec)) for spec in tasks)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"]))
            raise TaskError(
                f"task.options.tasks: {where}: {detail['msg']}, got {detail['input']!r}: write each task as "
                "{name: ..., options: {...}}"
            ) from None
        self._parts = self._distinct(tasks)
        if len({task.seed_prompt for task in self.tasks}) > 1:
            raise TaskError(
                "task.options.tasks: the tasks of a stream must have one and the same seed prompt, which gives none of "
                "them away: set seed_prompt in each"
            )
        self._owner = {problem.id: task for task in self._parts for split in SPLITS for problem in task.problems(split)}
        self._unlimited = [task for task, spec in zip(self.tasks, tasks, strict=True) if "timeout_s" not in spec]

    @property
    def seed_prompt(self) -> Prompt:
        """The first task's."""
        return self.tasks[0].seed_prompt

    @property
    def parts(self) -> Sequence[Task]:
        """Its tasks, each once."""
        return self._parts

    def stage(self, step: int) -> Stage:
        """The task whose turn it is at a step; the last one stays."""
        index = min(step // self.steps, len(self.tasks) - 1)
        return Stage(self.tasks[index], index * self.steps, self.steps)

    def problems(self, split: Split) -> Sequence[Problem]:
        """Those of all tasks, one task after another."""
        return [problem for task in self._parts for problem in task.problems(split)]

    def score(self, problem: Problem, completion: str) -> Score:
        """What the problem's own task says."""
        return self._owner[problem.id].score(problem, completion)

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """Each task scores its own problems in one batch."""
        return self._by_task(problems, completions, lambda task: task.score_batch)

    def verdicts(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """Each task judges its own problems, within its own limits."""
        return self._by_task(problems, completions, lambda task: task.verdicts)

    def limit_scoring(self, timeout_s: float | None) -> None:
        """The limit of every task that has none of its own."""
        for task in self._unlimited:
            task.limit_scoring(timeout_s)

    def _by_task(
        self, problems: Sequence[Problem], completions: Sequence[str], judge: Callable[[Task], Judge]
    ) -> list[Score | ScoringFailure]:
        scores: dict[int, Score | ScoringFailure] = {}
        for task in self._parts:
            mine = [index for index, problem in enumerate(problems) if self._owner[problem.id] is task]
            judged = judge(task)([problems[index] for index in mine], [completions[index] for index in mine])
            scores.update(zip(mine, judged, strict=True))
        return [scores[index] for index in range(len(problems))]

    def reference(self, problem: Problem) -> str | None:
        """What the problem's own task says."""
        return self._owner[problem.id].reference(problem)

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        """Those of the problem's own task."""
        return self._owner[problem.id].messages(problem, prompt)

    def kind_of(self, messages: Sequence[Message]) -> str | None:
        """What the first of its tasks says that can tell."""
        return next((kind for task in self._parts if (kind := task.kind_of(messages)) is not None), None)

    def episode(self, problem: Problem, prompt: Prompt) -> Episode:
        """One of the problem's own task."""
        return self._owner[problem.id].episode(problem, prompt)

    def _distinct(self, specs: Sequence[object]) -> tuple[Task, ...]:
        """The tasks without their repetitions. Raises TaskError where two that differ have one name."""
        first: dict[str, tuple[Task, Any]] = {}
        for task, spec in zip(self.tasks, specs, strict=True):
            _, known = first.setdefault(task.name, (task, spec))
            if known != spec:
                raise TaskError(
                    f"task.options.tasks: {task.name!r} stands for two tasks that differ: {known} and {spec}"
                )
        self.tasks = tuple(first[task.name][0] for task in self.tasks)
        return tuple(task for task, _ in first.values())
