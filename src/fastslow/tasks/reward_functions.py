"""TRL-style reward functions as they are: `func(prompts=, completions=, **columns) -> list[float | None]`.

For a completion there may also be (reward, feedback) or a `fastslow.Score`, whose reward is a number as any other: the
prompt search learns from words, and a bare number has none.

As in TRL 1.16: a column is passed as a list under its own name, completions are chat messages where the prompt is a
chat, functions may be async, None means "does not apply", and the rewards are summed with weights. Different here,
because a reward must lie in [0, 1]: the sum is mapped there from `reward_range`, and one that lies outside raises.
Prompts are the records' own, without the evolved system prompt; `completion_ids` and `trainer_state` are not passed.
"""

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from typing import Any

from fastslow import given
from fastslow.errors import ConfigError, TaskError, let_stop
from fastslow.tasks.base import ScoringFailure, as_number, failure_of
from fastslow.tasks.formats import shorten
from fastslow.threads import together
from fastslow.types import Score

RewardFunction = Callable[..., Any]
Verdict = tuple[float, str] | ScoringFailure | None
"""What a function says of a completion: a reward and words, "" where it has none; None: it does not apply."""
OWN_ARGUMENTS = ("prompts", "completions")
MAX_FAILURES_IN_A_ROW = 3


class RewardFunctions:
    """The weighted sum of some reward functions, mapped into [0, 1]."""

    def __init__(
        self,
        functions: Mapping[str, RewardFunction],
        weights: Sequence[float] | None = None,
        reward_range: Sequence[float] = (0.0, 1.0),
    ) -> None:
        weights = [1.0] * len(functions) if weights is None else list(weights)
        if len(weights) != len(functions):
            raise ConfigError(
                f"task.options.reward_weights: has {len(weights)} weights for {len(functions)} reward_functions"
            )
        for weight in weights:
            if not math.isfinite(weight):
                raise ConfigError(f"task.options.reward_weights: {weight} is not a finite number")
        if len(reward_range) != 2 or not reward_range[0] < reward_range[1] or not all(map(math.isfinite, reward_range)):
            raise ConfigError(
                f"task.options.reward_range: {list(reward_range)} must be [low, high] with low < high, both finite"
            )
        self.parts = [
            (name, function, weight) for (name, function), weight in zip(functions.items(), weights, strict=True)
        ]
        self.low, self.high = map(float, reward_range)

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raises ConfigError where a function asks for a column that the records do not have."""
        known = {*columns, *OWN_ARGUMENTS}
        for name, function, _ in self.parts:
            for parameter in inspect.signature(function).parameters.values():
                named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
                if named and parameter.default is parameter.empty and parameter.name not in known:
                    raise ConfigError(
                        f"task.options.reward_functions: {name!r} asks for {parameter.name!r}, the records have "
                        f"{', '.join(sorted(columns))}"
                    )

    def score(
        self, prompts: Sequence[object], completions: Sequence[object], columns: Mapping[str, Sequence[object]]
    ) -> list[Score | ScoringFailure]:
        """One score a row. A row that breaks a function is a failure. Raises TaskError for rewards that cannot be."""
        arguments: dict[str, Sequence[Any]] = {**columns, "prompts": prompts, "completions": completions}
        size = len(completions)
        verdicts = [_call(name, function, arguments, size) for name, function, _ in self.parts]
        return [self._combine([column[row] for column in verdicts]) for row in range(size)]

    def _combine(self, verdicts: Sequence[Verdict]) -> Score | ScoringFailure:
        """The sum, and as feedback the words first, then a line of name and number for each function."""
        total, words, lines = 0.0, [], []
        for (name, _, weight), verdict in zip(self.parts, verdicts, strict=True):
            if isinstance(verdict, ScoringFailure):
                return verdict
            if verdict is not None:
                reward, said = verdict
                total += weight * reward
                words += [said] if said.strip() else []
                lines.append(f"{own_name(name)}: {reward:g}")
        if not lines:
            return ScoringFailure("every reward function returned None for this completion")
        reward = (total - self.low) / (self.high - self.low)
        if not -1e-9 <= reward <= 1.0 + 1e-9:
            raise TaskError(
                f"task.options.reward_range: the reward functions gave {total:g} ({', '.join(lines)}), outside "
                f"[{self.low:g}, {self.high:g}]: set reward_range to the least and the greatest sum they can give"
            )
        return Score(min(1.0, max(0.0, reward)), "\n".join([*words, *lines]))


def _call(name: str, function: RewardFunction, arguments: Mapping[str, Sequence[object]], size: int) -> list[Verdict]:
    """One function's verdicts. Where the batch breaks it, rows go in one at a time, so that one bad row costs one row.

    After three failures in a row it is taken for down, and what is left fails with the same reason.
    """
    try:
        return list(_rewards(name, function, arguments, size))
    except TaskError:
        raise
    except BaseException as error:
        let_stop(error)
        if size == 1:
            return [failure_of(error)]
    results: list[Verdict] = []
    down = 0
    for row in range(size):
        if down == MAX_FAILURES_IN_A_ROW:
            return [*results, *[results[-1]] * (size - row)]
        results += _call(name, function, {key: [values[row]] for key, values in arguments.items()}, 1)
        down = down + 1 if isinstance(results[-1], ScoringFailure) else 0
    return results


def _rewards(
    name: str, function: RewardFunction, arguments: Mapping[str, Sequence[object]], size: int
) -> list[tuple[float, str] | None]:
    returned = function(**_accepted(function, arguments))
    if inspect.iscoroutine(returned):
        returned = _wait_for(returned)
    values = _as_list(returned)
    if values is None or len(values) != size:
        what = shorten(repr(returned)) if values is None else f"{len(values)} rewards"
        raise TaskError(f"task.options.reward_functions: {name!r} returned {what} for {size} completions")
    return [_verdict(name, value) for value in values]


def _as_list(returned: Any) -> list[Any] | None:
    """Rewards in the order of the completions; None for a text, a dict or a set, which are no list of rewards."""
    if isinstance(returned, str | bytes | bytearray | Mapping | Set):
        return None
    try:
        return list(returned)
    except TypeError:
        return None


def _verdict(name: str, value: object) -> tuple[float, str] | None:
    if value is None:
        return None
    if isinstance(value, Score):
        value = (value.reward, value.feedback)
    if not (isinstance(value, tuple) and len(value) == 2):
        return _reward(name, value), ""
    reward, said = value
    if reward is None:
        return None
    if said is not None and not isinstance(said, str):
        raise TaskError(
            f"task.options.reward_functions: {name!r} returned the feedback {shorten(repr(said))}: a "
            "text or None is needed"
        )
    return _reward(name, reward), said or ""


def own_name(name: str) -> str:
    """The function's own name, of an import path or of a placeholder."""
    return name.removeprefix(given.OPEN).removesuffix(given.CLOSE).rpartition(":")[2]


def _reward(name: str, value: object) -> float:
    try:
        reward = as_number(value)
    except (TypeError, ValueError):
        reward = math.nan
    if not math.isfinite(reward):
        raise TaskError(
            f"task.options.reward_functions: {name!r} returned the reward {value!r}: a number, (number, text), a "
            "fastslow.Score or None is needed"
        )
    return reward


def _accepted(function: RewardFunction, arguments: Mapping[str, Sequence[object]]) -> dict[str, list[Any]]:
    parameters = inspect.signature(function).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {key: list(values) for key, values in arguments.items() if takes_all or key in parameters}


def _wait_for(coroutine: Coroutine[object, object, object]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # A notebook has a loop of its own in this thread, and asyncio.run refuses to nest.
    # A pool would wait for what hangs.
    return together([lambda: asyncio.run(coroutine)], 1)[0]
