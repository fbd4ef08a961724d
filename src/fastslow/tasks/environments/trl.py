"""Classes written for TRL's `environment_factory`, unchanged: `reset`, public methods as tools,
an optional `get_reward`.

As in TRL 1.16 (`GRPOTrainer`): every public method but the two is a tool, `reset` gets the row's columns and its text
is appended to the last user message, a tool's result is its `str`, an exception is `{"error": ...}`, the
environment's reward and the reward functions' are summed, instances are made once and reset often, tools and
`get_reward` may be async.

Different here, because episodes are repeated bit for bit, and what breaks must not score 0:
- `random` in the environment's own module is seeded for each problem; `reset` also gets `seed` where it takes it.
- A call that cannot be read is answered in words. In TRL it ends the episode as an answer.
- Exceptions that are not the model's doing (`ToolEpisode.answered` lists those that are) mask the rollout.
- Rewards are mapped into [0, 1] from `reward_range`. Images are refused.
"""

import asyncio
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError
from fastslow.extension import load_object
from fastslow.tasks.base import EpisodeTask, ScoringFailure, Split
from fastslow.tasks.components import SKILL, texts_of
from fastslow.tasks.environments.dice import rolling
from fastslow.tasks.environments.pool import Pool, factories_of, members
from fastslow.tasks.environments.rows import read_rows, seeded
from fastslow.tasks.reward_functions import RewardFunctions
from fastslow.tasks.tool_calls import Call, read_calls
from fastslow.tasks.tools import ToolEpisode, schema_of
from fastslow.types import Message, Problem, Prompt, Score, Tool

OPTION = "task.options.environment"
RESERVED = ("reset", "get_reward")
OWN = "own_reward"


class EnvironmentTask(EpisodeTask):
    """An environment class written for TRL's environment_factory, or several."""

    name = "environment"

    def __init__(
        self,
        environment: str | Callable[..., Any] | dict[str, Any],
        data: str | dict[str, str] | None = None,
        splits: dict[str, str | int] | None = None,
        cut_from: str = "train",
        subset: str | None = None,
        revision: str | None = None,
        reward_functions: list[str] | None = None,
        reward_weights: list[float] | None = None,
        reward_range: list[float] | None = None,
        max_tool_rounds: int | None = None,
        train: int = 1000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
    ) -> None:
        if max_tool_rounds is not None and max_tool_rounds < 1:
            raise ConfigError(f"task.options.max_tool_rounds: {max_tool_rounds}: at least 1, or null for no limit")
        factories = factories_of(environment, OPTION)
        self.pools = {name: Pool(factory, OPTION) for name, factory in factories.items()}
        self.max_tool_rounds = max_tool_rounds
        self.rewards = self._rewards(reward_functions or [], reward_weights, reward_range)
        for pool in self.pools.values():
            _check(pool.made)
        self.tools = {
            name: [schema_of(getattr(pool.sample, tool)) for tool in tool_names(pool.made)]
            for name, pool in self.pools.items()
        }
        sizes: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        names = list(self.pools)
        self._splits = (
            seeded(self.name, sizes, seed, names)
            if data is None
            else read_rows(self.name, data, splits, cut_from, subset, revision, names=names, seed=seed)
        )

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def episode(self, problem: Problem, prompt: Prompt) -> "EnvironmentEpisode":
        """A new episode. It takes an instance of the environment when it starts."""
        return EnvironmentEpisode(self, problem, prompt)

    @property
    def optional_components(self) -> Mapping[str, str]:
        """Tools' descriptions, and the texts in the attribute `skills` of an environment that includes them."""
        found = dict(super().optional_components)
        for pool in self.pools.values():
            found |= {f"{SKILL}{name}": text for name, text in skills_of(pool.sample).items()}
        return found

    def _rewards(
        self, paths: Sequence[str], weights: Sequence[float] | None, reward_range: Sequence[float] | None
    ) -> RewardFunctions:
        """The environments' own reward, with weight 1 as in TRL, and the reward functions."""
        functions: dict[str, Callable[..., Any]] = {}
        for path in paths:
            functions[path] = load_object(path, "task.options.reward_functions")
        given = [1.0] * len(paths) if weights is None else list(weights)
        if any("get_reward" in members(pool.made) for pool in self.pools.values()):
            functions, given = {"get_reward": _own_reward, **functions}, [1.0, *given]
        if not functions:
            raise ConfigError(
                f"{OPTION}: nothing gives a reward: write a method `get_reward`, or name task.options.reward_functions"
            )
        return RewardFunctions(functions, given, (0.0, 1.0) if reward_range is None else reward_range)


class EnvironmentEpisode(ToolEpisode):
    """One episode in one instance of an environment."""

    def __init__(self, task: EnvironmentTask, problem: Problem, prompt: Prompt) -> None:
        self.task, self.problem, self.prompt = task, problem, prompt
        name = problem.data["environment"]
        self.pool = task.pools[name]
        super().__init__([])
        self.tools: Sequence[Tool] = task.tools[name]
        self.dice = random.Random(problem.data["seed"])
        self.instance: Any = None
        self.busy = False
        """Whether the environment is asked something. It stays where that hangs or raises."""
        self.rounds = 0
        self.opening: tuple[Message, ...] = ()
        self.said: list[dict[str, Any]] = []
        """The conversation after the opening, as TRL's reward functions get it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._verdict: Score | None = None

    def start(self) -> Sequence[Message]:
        """Reset an instance. Its observation, where it gives one, stands at the end of the last message."""
        messages = self.task.messages(self.problem, self.prompt)
        self.busy = True
        self.instance = self.instance or self.pool.take()
        # What an earlier episode left behind must not be told of this one.
        vars(self.instance).pop("feedback", None)
        skills = skills_of(self.pool.sample)
        if skills:
            self.instance.skills = {**skills, **texts_of(self.prompt, SKILL)}
        self.functions = {name: getattr(self.instance, name) for name in tool_names(self.pool.made)}
        observation = self._call(self.instance.reset, **self._reset_arguments())
        if observation is not None:
            last = messages[-1]
            messages = (*messages[:-1], {**last, "content": last["content"] + _text(observation, "reset")})
        self.opening, self.busy = messages, False
        return messages

    def step(self, text: str) -> Sequence[Message]:
        """The results of the turn's calls; nothing where it has none, or no round is left."""
        self._verdict, self.busy = None, True
        self.said.append({"role": "assistant", "content": text})
        calls = [call for call in read_calls(text) if isinstance(call, Call)]
        if calls:
            functions = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
            self.said[-1]["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        self.rounds += 1
        if self.task.max_tool_rounds is not None and self.rounds > self.task.max_tool_rounds:
            self.answer, results = text, list[Message]()
        else:
            results = list(super().step(text))
        self.said += [dict(message) for message in results]
        self.busy = False
        return results

    def score(self) -> Score:
        """The sum of the rewards, and the environment's `feedback`. The environment is asked once for each state."""
        if self._verdict is None:
            self.busy = True
            own = self._call(self.instance.get_reward) if "get_reward" in members(self.pool.made) else None
            row = {name: [value] for name, value in self.problem.data["row"].items() if name != "prompt"}
            columns = {**row, "environments": [self.instance], OWN: [own]}
            (score,) = self.task.rewards.score([[dict(m) for m in self.opening]], [self.said], columns)
            if isinstance(score, ScoringFailure):
                raise InfrastructureError(score.reason)
            self._verdict = Score(score.reward, self._words(score.feedback))
            self.busy = False
        return self._verdict

    def close(self) -> None:
        """Give the instance back, unless it hangs or broke: then nobody gets it any more."""
        if self.instance is not None and not self.busy:
            self.pool.give(self.instance)
            if self._loop is not None:
                self._loop.close()
        self.instance = None

    # -- inside --------------------------------------------------------------------------------------------------------

    def _words(self, rewards: str) -> str:
        """The environment's `feedback`, then the rewards; its own only where it has no words for it."""
        told = getattr(self.instance, "feedback", None)
        if not isinstance(told, str) or not told.strip():
            return rewards
        others = [line for line in rewards.splitlines() if not line.startswith("get_reward: ")]
        return "\n".join([told, *others])

    def _called(self, call: Call) -> str:
        function = self.functions.get(call.name)
        if function is None:
            return self._refused(f"Tool {call.name} not found.")
        try:
            return _text(self._call(function, **call.arguments), call.name)
        except self.answered as error:
            return self._refused(str(error))

    def _refused(self, problem: str) -> str:
        """An error as the model reads it in TRL; reflection reads its bare words."""
        self.tool_errors.append(problem)
        return str({"error": problem})

    def _call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        with rolling(self.dice):
            value = function(**arguments)
            if inspect.isawaitable(value):
                self._loop = self._loop or asyncio.new_event_loop()
                value = self._loop.run_until_complete(value)
        return value

    def _reset_arguments(self) -> dict[str, Any]:
        """The row's columns, as in TRL; and, where taken, the prompt and a seed for those who make up their task."""
        row = dict(self.problem.data["row"])
        if len(self.task.pools) > 1:
            row.pop("environment", None)
        parameters = inspect.signature(self.instance.reset).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        extra = {"prompt": [dict(message) for message in self.problem.messages], "seed": self.problem.data["seed"]}
        return {**{name: value for name, value in extra.items() if takes_all or name in parameters}, **row}


def tool_names(made: type) -> list[str]:
    """The public methods of an environment's class that are tools."""
    return [name for name in members(made) if name not in RESERVED and not name.startswith("_")]


def skills_of(instance: Any) -> dict[str, str]:
    """The texts in an environment's attribute `skills`, a dict; nothing where it has none."""
    skills = getattr(instance, "skills", None)
    return {str(name): str(text) for name, text in skills.items()} if isinstance(skills, dict) else {}


def _check(made: type) -> None:
    if not callable(getattr(made, "reset", None)):
        raise ConfigError(f"{OPTION}: {made.__name__!r} has no method `reset`, which starts an episode")


def _own_reward(own_reward: Sequence[Any]) -> Sequence[Any]:
    """The reward that the episode has asked its environment for."""
    return own_reward


def _text(value: Any, what: str) -> str:
    """What a tool or `reset` gave, as the model reads it. Raises InfrastructureError for what is no text."""
    if (
        not isinstance(value, list)
        or not all(isinstance(block, dict) and "type" in block for block in value)
        or not value
    ):
        return str(value)
    if any(block["type"] != "text" for block in value):
        raise InfrastructureError(
            f"{what} gave {[block['type'] for block in value]}: only texts can be shown to the model"
        )
    return "".join(str(block.get("text", "")) for block in value)
