"""An episode in which the policy calls Python functions as tools, in whatever form its model has for calls."""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from fastslow.errors import TaskError
from fastslow.tasks.tool_calls import Call, Malformed, read_calls
from fastslow.types import Message, Score, Tool

Function = Callable[..., Any]


class ToolError(Exception):
    """What a tool raises when a call cannot be answered because of what the model wrote; its text is the answer."""


class ToolEpisode(ABC):
    """The policy calls tools until a turn has no call: that is its answer. Give it `start` and `score`.

    A call that cannot be read, of a tool that there is not, or with arguments that do not fit is answered in
    words. So is what a tool raises of `answered`: it is taken for the model's doing. Whatever else a tool
    raises masks the rollout.
    """

    answered: ClassVar[tuple[type[Exception], ...]] = (ToolError, ValueError, TypeError, LookupError, ArithmeticError)

    def __init__(self, functions: Sequence[Function], descriptions: Mapping[str, str] | None = None) -> None:
        self.functions = {function.__name__: function for function in functions}
        self.tools: Sequence[Tool] = [
            schema_of(f, (descriptions or {}).get(name)) for name, f in self.functions.items()
        ]
        self.answer = ""
        self.tool_calls = 0
        self.tool_errors: list[str] = []

    @abstractmethod
    def start(self) -> Sequence[Message]:
        """The first context."""

    @abstractmethod
    def score(self) -> Score:
        """The verdict on `answer`, and on the calls before it."""

    def step(self, text: str) -> Sequence[Message]:
        """The results of the turn's calls; nothing where it has none."""
        calls = read_calls(text)
        if not calls:
            self.answer = text
        return [self._result(call) for call in calls]

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds."""

    def _result(self, call: Call | Malformed) -> Message:
        self.tool_calls += 1
        if isinstance(call, Malformed):
            return {"role": "tool", "content": self._failed(call.problem)}
        return {"role": "tool", "name": call.name, "content": self._called(call)}

    def _called(self, call: Call) -> str:
        if call.name not in self.functions:
            return self._failed(f"There is no tool {call.name!r}. The tools are: {', '.join(self.functions)}.")
        function = self.functions[call.name]
        try:
            inspect.signature(function).bind(**call.arguments)
        except TypeError as error:
            return self._failed(f"The arguments of {call.name} do not fit: {error}.")
        try:
            return as_text(function(**call.arguments))
        except self.answered as error:
            return self._failed(f"{call.name} failed: {error}.")

    def _failed(self, text: str) -> str:
        self.tool_errors.append(text)
        return text


def schema_of(function: Function, description: str | None = None) -> Tool:
    """A function as chat templates take a tool, from its type hints and its docstring in Google's form.

    `description` takes the place of the docstring's. Raises: TaskError where a hint or an argument's line is missing.
    """
    from transformers.utils import get_json_schema

    try:
        schema: dict[str, Any] = get_json_schema(function)
    except Exception as error:  # transformers has exceptions of its own for each way to be incomplete
        raise TaskError(
            f"tool {function.__name__!r}: {error}. It needs type hints, and a docstring with a line for each "
            "argument under Args:"
        ) from error
    if description is not None:
        schema["function"]["description"] = description
    return schema


def as_text(result: Any) -> str:
    """What a tool gave, as the model reads it: a text as it stands, anything else as JSON."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
