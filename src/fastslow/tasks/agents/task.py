"""Any agent as a task: your function calls the policy through an OpenAI-compatible endpoint, and says how it went."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from fastslow.errors import ConfigError, TaskError
from fastslow.extension import load_object
from fastslow.tasks.agents.chat_api import MODEL, Answer, Choice, said_of, same_messages, split_calls
from fastslow.tasks.agents.endpoint import Endpoint
from fastslow.tasks.agents.session import AgentSession, Ended
from fastslow.tasks.base import EpisodeTask, ScoringFailure, Split, Task, check_score
from fastslow.tasks.registry import build_task
from fastslow.tasks.scorers import as_score
from fastslow.tasks.settings import TaskConfig
from fastslow.types import Message, Problem, Prompt, Score, Tool

GIVEN = ("base_url", "api_key", "model", "problem", "prompt", "messages", "seed")
"""What an agent's function gets, as far as it has parameters of these names."""
FIELD = "task.options.agent"
MOST_CALLS = 100
"""Calls that are answered with texts alone: an agent that makes more has no end."""

Agent = Callable[..., Any]


class AgentTask(EpisodeTask):
    """An agent of yours, unchanged: a function that calls the policy as any OpenAI client does."""

    name = "agent"

    def __init__(
        self,
        agent: str | Callable[..., Any],
        problems: dict[str, object] | Task,
        agent_options: dict[str, object] | None = None,
        ignore_parameters: list[str] | None = None,
        at_once: int = 256,
        calls_at_once: int = 16,
        max_request_bytes: int = 4_000_000,
        name: str = "agent",
    ) -> None:
        for option, value in (
            ("at_once", at_once),
            ("calls_at_once", calls_at_once),
            ("max_request_bytes", max_request_bytes),
        ):
            if value < 1:
                raise ConfigError(f"task.options.{option}: {value} is not a positive number")
        self.name = name
        self.agent: Agent = load_object(agent, FIELD) if isinstance(agent, str) else agent
        self.agent_options = dict(agent_options or {})
        self.ignored = tuple(ignore_parameters or ())
        self.at_once, self.calls_at_once, self.max_request_bytes = at_once, calls_at_once, max_request_bytes
        self.wanted = _wanted(self.agent, self.agent_options)
        self.source = problems if isinstance(problems, Task) else _source(problems)
        self._limited = not isinstance(problems, Task) and "timeout_s" in problems

    @property
    def seed_prompt(self) -> Prompt:
        """That of the task that the problems are of."""
        return self.source.seed_prompt

    def problems(self, split: Split) -> Sequence[Problem]:
        """Those of the task that `problems` names."""
        return self.source.problems(split)

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        """What the agent is given as `messages`: the problem under the prompt."""
        return self.source.messages(problem, prompt)

    def kind_of(self, messages: Sequence[Message]) -> str | None:
        """As the task of the problems tells it."""
        return self.source.kind_of(messages)

    def score(self, problem: Problem, completion: str) -> Score:
        """The score of an episode in which the policy says this one thing, whatever it is asked."""
        episode = self.episode(problem, self.seed_prompt)
        try:
            said, calls = episode.start(), 0
            while said and calls < MOST_CALLS:
                said, calls = episode.step(completion), calls + 1
            return episode.score()
        finally:
            episode.close()

    def episode(self, problem: Problem, prompt: Prompt) -> "AgentEpisode":
        """A new run of the agent."""
        return AgentEpisode(self, problem, prompt)

    def limit_scoring(self, timeout_s: float | None) -> None:
        """Of the scorer that judges what the agent returns, unless the problems' own task has a limit."""
        super().limit_scoring(timeout_s)
        if not self._limited:
            self.source.limit_scoring(timeout_s)

    def verdict(self, problem: Problem, value: object) -> Score | ScoringFailure:
        """The score that what the agent returned stands for: a text is judged by the task that the problems are of.

        Raises: TaskError for anything but a text, a reward in [0, 1], a Score, or (reward, feedback).
        """
        if isinstance(value, str):
            return self.source.verdicts([problem], [value])[0]
        return check_score(as_score(value, str(getattr(self.agent, "__name__", self.agent)), FIELD), problem)


class AgentEpisode:
    """One run of the agent.

    Training plays it through `rollouts/agents.py`, token by token. Its own `start` and `step` are for who has texts
    alone: a test of the agent, and a teacher's contexts.
    """

    tools: Sequence[Tool] = ()

    def __init__(self, task: AgentTask, problem: Problem, prompt: Prompt) -> None:
        self.task, self.problem, self.prompt = task, problem, prompt
        self.tool_calls = 0
        self.tool_errors: list[str] = []
        self._changed = threading.Condition()
        self._endpoint: Endpoint | None = None
        self._session: AgentSession | None = None
        self._known: list[Message] = []

    @property
    def opening(self) -> tuple[Message, ...]:
        """The problem under the prompt; an agent may say something else."""
        return self.task.messages(self.problem, self.prompt)

    def session(self, changed: threading.Condition) -> AgentSession:
        """A session for it, which has not begun."""
        return AgentSession(changed, self.task.calls_at_once, self.task.ignored)

    def function(self, base_url: str, api_key: str, seed: int) -> Callable[[], Score | ScoringFailure | TaskError]:
        """The agent as a function without arguments; its verdict is given in the agent's own thread."""
        given: dict[str, Any] = {
            "base_url": base_url,
            "api_key": api_key,
            "model": MODEL,
            "problem": self.problem,
            "prompt": self.prompt,
            "messages": [dict(message) for message in self.opening],
            "seed": seed,
        }
        arguments = {name: given[name] for name in self.task.wanted}

        def played() -> Score | ScoringFailure | TaskError:
            value = self.task.agent(**arguments, **self.task.agent_options)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
            try:
                return self.task.verdict(self.problem, value)
            except TaskError as error:
                return error

        return played

    # -- as an episode of texts ----------------------------------------------------------------------------------------

    def start(self) -> Sequence[Message]:
        """The messages of the agent's first call."""
        self._endpoint = Endpoint(self.task.max_request_bytes).__enter__()
        self._session = self.session(self._changed)
        self._endpoint.add(self._session)
        self._session.launch(self.function(self._endpoint.base_url, self._session.key, 0))
        return self._next()

    def step(self, text: str) -> Sequence[Message]:
        """The next call: what is new in it, or all of it where it does not go on from the last one; nothing:
        it has ended.

        A call for several completions gets the same text several times.
        """
        if self._session is None or self._session.ended is not None:
            return ()
        with self._changed:
            pending, *others = self._session.take()
        beside, calls, _ = split_calls(text) if pending.request.tools else (text, (), [])
        choice = Choice(beside, calls, "tool_calls" if calls else "stop", ())
        answer = Answer("chatcmpl-text", (choice,) * pending.request.n, 0)
        self._known = [*pending.request.messages, said_of(answer, 0)]
        with self._changed:
            self._session.waiting = [*others, *self._session.waiting]
            pending.reply(answer)
        return self._next()

    def score(self) -> Score:
        """What the agent returned. Raises RuntimeError where it broke."""
        ended = None if self._session is None else self._session.ended
        if ended is None:
            return Score(0.0, "The agent had not finished.")
        if ended.failure is not None:
            raise RuntimeError(f"the agent failed: {ended.failure}")
        return _score(ended)

    def close(self) -> None:
        """Answer no further call."""
        if self._endpoint is not None:
            self._endpoint.__exit__(None, None, None)
            self._endpoint = None

    def _next(self) -> Sequence[Message]:
        session = self._session
        assert session is not None
        with self._changed:
            while not session.ready:
                self._changed.wait()
            if session.ended is not None:
                if session.ended.failure is not None:
                    raise RuntimeError(f"the agent failed: {session.ended.failure}")
                return ()
            said, self.tools = session.waiting[0].request.messages, session.waiting[0].request.tools
        known = len(self._known)
        return said[known:] if same_messages(said[:known], self._known) else said


def no_scorer(completion: str, record: Mapping[str, Any]) -> Score:
    """The scorer of records that have none: their agent is to return a reward."""
    raise TaskError(
        "the agent returned a text, and task.options.problems has no scorer for it: give it one, or return a reward"
    )


def _score(ended: Ended) -> Score:
    """Raises TaskError for what is no score, RuntimeError where the scorer broke."""
    if isinstance(ended.value, TaskError):
        raise ended.value
    if isinstance(ended.value, ScoringFailure):
        raise RuntimeError(ended.value.reason)
    score: Score = ended.value
    return score


def _wanted(agent: Agent, options: Mapping[str, object]) -> tuple[str, ...]:
    """Which of what is given the agent has parameters for. Raises ConfigError where it cannot be called."""
    if not callable(agent):
        raise ConfigError(f"{FIELD}: {agent!r} cannot be called: name a function")
    parameters = inspect.signature(agent).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option in GIVEN or (option not in parameters and not takes_any):
            raise ConfigError(
                f"task.options.agent_options.{option}: is no option of the agent's own: its parameters are "
                f"{', '.join(parameters)}"
            )
    for name, parameter in parameters.items():
        named = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        unknown = name not in GIVEN and name not in options
        if named and (
            parameter.kind is parameter.POSITIONAL_ONLY or (unknown and parameter.default is parameter.empty)
        ):
            raise ConfigError(
                f"{FIELD}: nothing gives the agent its parameter {name!r}. It gets by name: {', '.join(GIVEN)}, and "
                "what stands in task.options.agent_options"
            )
    return tuple(name for name in GIVEN if takes_any or name in parameters)


def _source(spec: Mapping[str, object]) -> Task:
    """The task that the problems are of. Raises ConfigError, or TaskError for bad data."""
    options = spec.get("options", {})
    if (
        spec.get("name") == "records"
        and isinstance(options, dict)
        and not {"scorer", "reward_functions"} & set(options)
    ):
        spec = {**spec, "options": {**options, "scorer": f"{__name__}:no_scorer"}}
    try:
        return build_task(TaskConfig.model_validate(spec))
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, ("task.options.problems", *detail["loc"])))
        raise ConfigError(
            f"{where}: {detail['msg']}, got {detail['input']!r}: write it as a task, {{name: ..., options: {{...}}}}"
        ) from None
