"""Text environments with `init` and `step`, as SkyRL-gym's `BaseTextEnv`, unchanged; any class with the two will do.

As in SkyRL-gym 0.4 and its generator: the class is made with `env_config` and `extras` (the row's columns) where it
takes them, `init(prompt)` gives the first messages, `step(text)` gives {observations, reward, done, metadata}, the
rewards of all turns are summed.

Different here, because contexts are exact, episodes repeat, and rewards lie in [0, 1]:
- `postprocessed_action` is not put in the place of what was sampled.
- Where a turn gets no observation and the episode goes on, the policy reads `GO_ON`.
- `random` in the environment's own module is seeded for each problem; `extras` has `seed` where the row does not.
- The sum is mapped into [0, 1] from `reward_range`.
"""

import inspect
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError, TaskError
from fastslow.extension import load_object
from fastslow.tasks.base import EpisodeTask, Split, as_number, with_system_prompt
from fastslow.tasks.environments.dice import rolling, seed_class, seed_module
from fastslow.tasks.environments.rows import read_rows, seeded
from fastslow.types import Message, Problem, Prompt, Score, Tool

OPTION = "task.options.environment"
GO_ON = "The environment has no answer to that. Go on."
METHODS = ("init", "step")


class Settings(dict[str, Any]):
    """Options that are read as items and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        return Settings(value) if isinstance(value, dict) else value


class TextEnvironmentTask(EpisodeTask):
    """A text environment with `init` and `step`, as in SkyRL-gym."""

    name = "text_environment"

    def __init__(
        self,
        environment: str | Callable[..., Any],
        env_config: dict[str, Any] | None = None,
        data: str | dict[str, str] | None = None,
        splits: dict[str, str | int] | None = None,
        cut_from: str = "train",
        subset: str | None = None,
        revision: str | None = None,
        reward_range: list[float] | None = None,
        train: int = 1000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
    ) -> None:
        factory = load_object(environment, OPTION) if isinstance(environment, str) else environment
        if not callable(factory):
            raise ConfigError(f"{OPTION}: {environment!r} is {factory!r}: name a class, or a function that makes one")
        if isinstance(factory, type):
            missing = [method for method in METHODS if not callable(getattr(factory, method, None))]
            if missing:
                raise ConfigError(f"{OPTION}: {factory.__name__!r} has no method `{missing[0]}`")
            seed_class(factory)
        else:
            seed_module(getattr(factory, "__module__", ""))
        self.factory: Callable[..., Any] = factory
        self.env_config = Settings(env_config or {})
        self.low, self.high = checked_range([0.0, 1.0] if reward_range is None else reward_range)
        sizes: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self._splits = (
            seeded(self.name, sizes, seed, [""])
            if data is None
            else read_rows(self.name, data, splits, cut_from, subset, revision, names=[""], seed=seed)
        )

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def episode(self, problem: Problem, prompt: Prompt) -> "TextEpisode":
        """A new episode. It makes its environment when it starts."""
        return TextEpisode(self, problem, prompt)

    def make(self, problem: Problem) -> Any:
        """The environment of a problem."""
        parameters = inspect.signature(self.factory).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        row = {name: value for name, value in problem.data["row"].items() if name != "prompt"}
        given = {"env_config": self.env_config, "extras": {"seed": problem.data["seed"], **row}}
        return self.factory(**{name: value for name, value in given.items() if takes_all or name in parameters})


class TextEpisode:
    """One episode in an environment of its own."""

    tools: Sequence[Tool] = ()

    def __init__(self, task: TextEnvironmentTask, problem: Problem, prompt: Prompt) -> None:
        self.task, self.problem, self.prompt = task, problem, prompt
        self.dice = random.Random(problem.data["seed"])
        self.environment: Any = None
        self.total = 0.0
        self.metadata: Mapping[str, Any] = {}

    def start(self) -> Sequence[Message]:
        """What `init` makes of the question, under the prompt."""
        with rolling(self.dice):
            self.environment = self.task.make(self.problem)
            opened = self.environment.init([dict(message) for message in self.problem.messages])
        messages = opened[0] if isinstance(opened, tuple) else opened
        return with_system_prompt(messages, self.prompt.system)

    def step(self, text: str) -> Sequence[Message]:
        """The turn's observations; nothing where the environment is done."""
        with rolling(self.dice):
            output = self.environment.step(text)
        try:
            self.total += as_number(output["reward"])
            done, observations = bool(output["done"]), list(output.get("observations") or [])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InfrastructureError(
                f"`step` gave {type(output).__name__} without {error}: a dict of observations, reward "
                "and done is needed"
            ) from error
        self.metadata = output.get("metadata") or {}
        if done:
            return ()
        return observations or [{"role": "user", "content": GO_ON}]

    def score(self) -> Score:
        """The sum of turns' rewards; feedback from the environment's attribute, or the last metadata, `feedback`."""
        told = getattr(self.environment, "feedback", None) or self.metadata.get("feedback")
        reward = (self.total - self.task.low) / (self.task.high - self.task.low)
        if not -1e-9 <= reward <= 1.0 + 1e-9:
            raise TaskError(
                f"task.options.reward_range: the rewards of an episode sum up to {self.total:g}, outside "
                f"[{self.task.low:g}, {self.task.high:g}]: set it to the least and the greatest sum that there can be"
            )
        words = told if isinstance(told, str) and told.strip() else f"reward: {self.total:g}"
        return Score(min(1.0, max(0.0, reward)), words)

    def close(self) -> None:
        """Close the environment, where it can be closed."""
        close = getattr(self.environment, "close", None)
        if callable(close):
            with rolling(self.dice):
                close()


def checked_range(reward_range: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest reward. Raises ConfigError where they are not two finite numbers in this order."""
    if len(reward_range) != 2 or not reward_range[0] < reward_range[1] or not all(map(math.isfinite, reward_range)):
        raise ConfigError(
            f"task.options.reward_range: {list(reward_range)} must be [low, high] with low < high, both finite"
        )
    return float(reward_range[0]), float(reward_range[1])
