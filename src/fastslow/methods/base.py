"""What a method is: its own loop over the session's verbs, and its own facts. Nobody else asks for a run's method."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.fast.settings import GepaConfig
from fastslow.slow.bare import describe_bare
from fastslow.slow.losses import (
    describe_aggregation,
    describe_loss,
    scaled_against_its_definition,
    unused_clip_of_a_known_loss,
)
from fastslow.slow.mismatch import describe_correction
from fastslow.tasks.base import Task
from fastslow.types import Problem, Prompt, Rollout

Group = list[Rollout]
Minibatch = list[Problem]
FROZEN = "frozen"


class Session(Protocol):
    """The verbs that a method's loop is made of. Sampling, reuse, counting, checkpoints and metrics are behind them."""

    @property
    def finished(self) -> bool:
        """Whether the last step is done, the budget of rollouts is spent, or Ctrl-C was pressed."""
        ...

    @property
    def searching(self) -> bool:
        """Whether this step is one of the method's `search_steps`, in which the weights stay."""
        ...

    @property
    def seed_prompt(self) -> Prompt:
        """The task's own prompt."""
        ...

    def next_minibatches(self) -> list[Minibatch]:
        """The T minibatches of the current cycle, fetched ahead."""
        ...

    def remaining(self, lookahead: Sequence[Minibatch]) -> Iterator[Minibatch]:
        """The cycle's minibatches that are still to be trained on; ends early when the run is finished."""
        ...

    def search(self, lookahead: Sequence[Minibatch]) -> tuple[Prompt, ...]:
        """Move the fast weights: one cycle of prompt evolution under the current policy. The K prompts."""
        ...

    def keep_population(self) -> tuple[Prompt, ...]:
        """Begin a cycle without a search: the population as it is."""
        ...

    def teacher(self) -> Prompt:
        """Begin a cycle of distillation: the prompt that was given, or the best that the search found."""
        ...

    def roll_out(self, minibatch: Sequence[Problem], population: Sequence[Prompt]) -> list[Group]:
        """One group of G rollouts a problem, G/K under each prompt or G/M under each that the problem is dealt
        (`loop.prompts_per_problem`); from the store where it is fresh enough.
        """
        ...

    def reinforce(self, groups: Sequence[Group]) -> None:
        """Move the slow weights by one step of the policy loss."""
        ...

    def distil(self, groups: Sequence[Group], teacher: Prompt) -> None:
        """Move the slow weights by one step towards the base weights under the teacher's prompt."""
        ...

    def close_step(self) -> None:
        """Evaluate and save where it is due, write the metrics line, and go on to the next step."""
        ...


class Method(ABC):
    """One way to train."""

    title: str
    """As it stands in tables and charts."""
    colour = 7
    """Its place in the palette of charts (`experiments/plots.py`), so that a method has one colour everywhere."""
    moves_weights = True
    """Whether the slow weights train; the KL to the base is 0 where they do not."""
    answers_under_seed_prompt = False
    """Whether the weights are measured and deployed under the task's seed prompt instead of the population's first."""
    needs_distributions = False
    """Whether an update compares whole distributions, which takes a teacher's pass, and no server can do."""
    cycles_while_training = True
    """Whether training steps come in cycles of T, each with a population of its own."""
    reuses_rollouts = False
    """Whether rollouts of the search serve training and the other way round."""
    measured_prompt = "best prompt"
    """What validation answers under, in words."""

    @abstractmethod
    def train(self, session: Session) -> None:
        """The loop, from wherever the session stands to its end."""

    def population_size(self, config: Config) -> int:
        """K."""
        return config.loop.population_size

    def answering_prompts(self, config: Config) -> int:
        """Prompts that share a problem's group: K, or M where fewer are dealt to each."""
        population = self.population_size(config)
        return min(config.loop.prompts_per_problem or population, population)

    def searches(self, config: Config) -> bool:
        """Whether prompts are evolved at all."""
        return config.fast.optimiser != FROZEN

    def search_steps(self, config: Config) -> int:
        """How many steps, from the first, are cycles of the prompt search that leave the weights as they are."""
        return 0

    def check(self, config: Config, *, recorded: bool = False) -> None:
        """Raises ValueError where a config cannot be meant for this method; called when a config is parsed.

        `recorded`: the config of a run that exists, which need not learn anything.
        """
        loop = config.loop
        complaint = unused_clip_of_a_known_loss(config.slow) or scaled_against_its_definition(
            config.slow, divide_by_std=loop.divide_by_std, batch_normalisation=loop.batch_normalisation
        )
        if complaint:
            raise ValueError(complaint)
        if config.fast.scores == "rollouts" and self.searches(config):
            self._check_scores(config)
        if not self.moves_weights:
            return
        if not recorded and not self.needs_distributions:
            self._check_groups(config)
        self._check_dealing(config)

    def _check_dealing(self, config: Config) -> None:
        """Raises ValueError where a problem's group cannot be shared evenly among its prompts."""
        loop, population, group = config.loop, self.population_size(config), config.loop.group_size
        each = loop.prompts_per_problem
        if each is not None and (each > loop.population_size or group % each):
            raise ValueError(
                f"loop.prompts_per_problem: M = {each} must be at most loop.population_size, K = "
                f"{loop.population_size}, and divide loop.group_size, G = {group}: every problem gets G/M rollouts "
                "under each of its prompts. Take one of "
                f"{[m for m in range(1, min(group, loop.population_size) + 1) if group % m == 0]}, or leave it out"
            )
        if group % self.answering_prompts(config):
            raise ValueError(
                f"loop.population_size: K = {population} does not divide loop.group_size, G = {group}: every prompt "
                f"gets G/K rollouts a problem. Take one of {[k for k in range(1, group + 1) if group % k == 0]}"
            )

    def _check_scores(self, config: Config) -> None:
        """Raises ValueError where RL's rollouts cannot score prompts."""
        fast, loop = config.fast, config.loop
        if not self.reuses_rollouts:
            raise ValueError(
                f"fast.scores: 'rollouts' lets RL's rollouts score prompts, and method {config.method!r} makes none "
                "while it searches: take anchors, or method: fst"
            )
        if not loop.reuse_max_age:
            raise ValueError(
                "loop.reuse_max_age: 0 keeps no rollout that fast.scores: rollouts could score prompts by: set it to "
                f"loop.steps_per_cycle, {loop.steps_per_cycle}"
            )
        if self.answering_prompts(config) < self.population_size(config):
            raise ValueError(
                f"loop.prompts_per_problem: {loop.prompts_per_problem} leaves no problem that all prompts have "
                "answered, and fast.scores: rollouts compares prompts on such problems: leave it out, or take "
                "fast.scores: anchors"
            )
        if fast.max_backoff:
            raise ValueError(
                f"fast.max_backoff: {fast.max_backoff} pauses searches, and with fast.scores: rollouts they sample "
                "nothing that a pause would save: set it to 0"
            )
        if isinstance(fast, GepaConfig) and fast.trials >= self.population_size(config):
            raise ValueError(
                f"fast.trials: {fast.trials} leaves no place for a prompt that is known among loop.population_size = "
                f"{self.population_size(config)}: lower the one or raise the other"
            )
        if isinstance(fast, GepaConfig) and fast.held_out:
            raise ValueError(
                f"fast.held_out: {fast.held_out:g} is not for fast.scores: rollouts, which score children on problems "
                "that reflection has not seen: set it to 0"
            )
        if isinstance(fast, GepaConfig) and fast.ties != "different":
            raise ValueError(
                f"fast.ties: {fast.ties} is not for fast.scores: rollouts, where no child is compared with its parent "
                "when it is made: leave it out"
            )

    def _check_groups(self, config: Config) -> None:
        """Raises ValueError for groups of one rollout: its advantage is always 0, so that the weights never move."""
        prompts, group = self.answering_prompts(config), config.loop.group_size
        if group == 1:
            raise ValueError(
                "loop.group_size: 1 gives groups of one rollout, whose advantage is always 0: method "
                f"{config.method!r} would never move the weights. Take 2 or more, or method: prompt, which only "
                "searches for prompts"
            )
        if config.loop.baseline == "prompt" and self.searches(config) and group == prompts:
            key, letter = (
                ("population_size", "K") if config.loop.prompts_per_problem is None else ("prompts_per_problem", "M")
            )
            raise ValueError(
                f"loop.baseline: 'prompt' compares the G/{letter} rollouts of a problem under one prompt, and "
                f"loop.group_size, G = {group}, over loop.{key}, {letter} = {prompts}, leaves one under each, "
                f"whose advantage is always 0. Raise loop.group_size to {2 * prompts} or more, lower loop.{key}, "
                "or take baseline: problem"
            )

    def prepare(self, config: Config, task: Task) -> Config:
        """The config as resolved with the task at hand. Raises ConfigError for a task that the method cannot take."""
        steps, cycle = task.stage(0).steps, config.loop.steps_per_cycle
        if steps is not None and steps % cycle:
            raise ConfigError(
                f"task.options.steps: {steps} steps a task are no whole number of cycles: take a multiple of "
                f"loop.steps_per_cycle, {cycle}"
            )
        return config

    def given_prompts(self, config: Config) -> Mapping[str, Prompt]:
        """Prompts that a config gives besides the task's own, by the name of their key."""
        return {}

    # -- what `--dry-run` says -----------------------------------------------------------------------------------------

    def when_it_searches(self, config: Config) -> str:
        """How often prompts are evolved, in words."""
        return f"every {config.loop.steps_per_cycle} steps"

    def why_prompts_stay(self, config: Config) -> str:
        """Why no prompt is evolved, in words."""
        return "the seed prompt stays"

    def of_an_update(self, config: Config) -> list[str]:
        """What one update does, in words; without the optimiser, which is the same for all methods."""
        return reinforcement(config, self.population_size(config), self.answering_prompts(config))


def reinforcement(config: Config, population: int, answering: int) -> list[str]:
    """What one RL step does, in words."""
    loop, slow = config.loop, config.slow
    divided = "divided by the group's deviation" if loop.divide_by_std else "not divided by a deviation"
    prompts = (
        f"{population} prompts"
        if answering == population
        else f"{answering} of the {population} prompts, dealt in turn"
    )
    normalised = ", then normalised over the batch" if loop.batch_normalisation else ""
    lines = [
        f"a step: {rollouts_a_step(config)}, {loop.group_size // answering} under each of {prompts}; one update",
        f"advantage: reward minus the mean of its {loop.baseline}'s group, {divided}{normalised}",
    ]
    if config.sampling.temperature != 1.0:
        lines.append(
            f"rollouts at temperature {config.sampling.temperature:g}: ratio, entropy and KL penalty are those of that "
            "distribution; the measured KL to the base is that of temperature 1"
        )
    return [*lines, describe_loss(slow), describe_aggregation(slow), *describe_correction(slow), *describe_bare(slow)]


def rollouts_a_step(config: Config) -> str:
    """How many rollouts one step takes, in words."""
    loop = config.loop
    total = loop.problems_per_step * loop.group_size
    return f"{loop.problems_per_step} problems x {loop.group_size} rollouts = {total} rollouts"
