"""What the parts of a session share: one run's config, task, engine, directory, and where it stands."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fastslow.config import Config
from fastslow.methods.base import Method
from fastslow.rollouts.retold import Retold
from fastslow.rollouts.store import RolloutStore
from fastslow.runs.directory import RunDirectory
from fastslow.runs.record import StepRecord
from fastslow.seeding import derive_seed
from fastslow.slow.context_room import ContextRoom
from fastslow.slow.engine import PolicyEngine
from fastslow.tasks.base import Stage, Task
from fastslow.text import printable
from fastslow.training.observer import Observer
from fastslow.training.state import LoopState
from fastslow.types import Problem, Prompt

logger = logging.getLogger(__name__)


@dataclass
class RunContext:
    """One run. `state` is what a checkpoint holds of the loop, `record` the line of metrics that is being collected,
    `doing` the phase that was told last.
    """

    config: Config
    method: Method
    task: Task
    engine: PolicyEngine
    run: RunDirectory
    observer: Observer
    room: ContextRoom
    state: LoopState
    store: RolloutStore
    record: StepRecord = field(default_factory=StepRecord)
    doing: str = "starting"

    @property
    def searching(self) -> bool:
        """Whether this step is a cycle of the search alone, and the weights stay."""
        return self.state.step < self.method.search_steps(self.config)

    @cached_property
    def training_problems(self) -> dict[str, Problem]:
        """The training split by problem id."""
        return {problem.id: problem for problem in self.task.problems("train")}

    def first_minibatch(self, step: int) -> int:
        """Which minibatch of the curriculum a step begins with: one step of a search alone looks at T of them."""
        alone = step < self.method.search_steps(self.config)
        return step * (self.config.loop.steps_per_cycle if alone else 1)

    def stage(self, step: int) -> Stage:
        """What is trained on at a step."""
        return self.task.stage(self.first_minibatch(step))

    def beginning(self, engine: str | None) -> dict[str, object]:
        """What the event `start` says; `engine`: what that says of itself. The run searches every `search_every` steps
        (0: never) up to the step `search_until`.
        """
        config, state = self.config, self.state
        alone = self.method.search_steps(config)
        return {
            "steps": config.steps,
            "max_rollouts": config.max_rollouts,
            "output": str(self.run.path),
            "step": state.step,
            "rollouts": state.sampled_total,
            "engine": engine,
            "search_every": 0 if not self.method.searches(config) else 1 if alone else config.loop.steps_per_cycle,
            "search_until": alone or config.steps,
            "evaluate_every": config.evaluation.every,
        }

    def seed(self, kind: str, number: int, problem: Problem, prompt: Prompt) -> int:
        """The seed of the rollouts of a problem under a prompt."""
        return derive_seed(self.config.seed, kind, self.state.cycle, number, problem.id, prompt.hash)

    def retold(self, prompt: Prompt) -> Retold:
        """What gives the contexts of training rollouts under another prompt than theirs."""
        return Retold(self.engine, self.task, self.training_problems, prompt, self.config.episodes)

    def phase(self, name: str) -> None:
        """Tell what the run does now."""
        self.doing = name
        self.observer.on_event("phase", {"name": name})

    def progress(self, done: int, total: int, unit: str, **more: float | None) -> None:
        """Tell how far what the run does now has come."""
        self.observer.on_event("progress", {"name": self.doing, "done": done, "total": total, "unit": unit, **more})

    def warn(self, message: str, *, loud: bool = False) -> None:
        """Tell what somebody should know; `loud`: what they must not miss."""
        self.observer.on_event("warning", {"message": message, "loud": loud})
        logger.warning("%s", printable(message))


def fitting(context: RunContext, population: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """A population from a file, in which those that are too long for the model have given their places to others."""
    searches = context.method.searches(context.config)
    refusals = {prompt: context.room.refusal(prompt) for prompt in population} if searches else {}
    if not any(refusals.values()):
        return tuple(population)
    context.warn(f"a prompt leaves the population: {next(filter(None, refusals.values()))}")
    kept = [prompt for prompt in population if refusals[prompt] is None] or [context.task.seed_prompt]
    return tuple(kept[index % len(kept)] for index in range(len(population)))
