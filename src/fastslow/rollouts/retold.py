"""The same episode after another prompt: the contexts that a teacher has of what the student sampled."""

from collections.abc import Mapping, Sequence

from fastslow.errors import InfrastructureError
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.rollouts.waves import chat_of
from fastslow.slow.engine import PolicyEngine
from fastslow.tasks.base import Task
from fastslow.tasks.episode import OneTurn
from fastslow.threads import side_by_side
from fastslow.types import Message, Problem, Prompt, Rollout, Tool


class Retold:
    """Contexts of rollouts under one prompt, whichever prompt they were sampled under."""

    def __init__(
        self,
        engine: PolicyEngine,
        task: Task,
        problems: Mapping[str, Problem],
        prompt: Prompt,
        episodes: EpisodesConfig,
    ) -> None:
        self.engine, self.task, self.problems, self.prompt = engine, task, problems, prompt
        self.episodes, self.chat = episodes, chat_of(engine)
        self._openings: dict[str, tuple[Sequence[Message], Sequence[Tool], tuple[int, ...]]] = {}

    def contexts(self, rollout: Rollout) -> list[tuple[int, ...]]:
        """The context of each of a rollout's turns: the same but for the opening. Raises InfrastructureError where the
        environment does not start.
        """
        if not rollout.turns:
            return []
        opening, tools, context = self._opening(rollout.problem_id)
        made, conversation, last = [context], list(opening), rollout.turns[0]
        for turn in rollout.turns[1:]:
            conversation += [{"role": "assistant", "content": last.text}, *turn.messages]
            if turn.continues(last):
                made.append((*made[-1], *last.completion.tokens, *turn.context_tokens[len(last.tokens) :]))
            else:
                made.append(self.chat.encode(conversation, tools))
            last = turn
        return made

    def _opening(self, problem_id: str) -> tuple[Sequence[Message], Sequence[Tool], tuple[int, ...]]:
        if problem_id not in self._openings:
            episode = self.task.episode(self.problems[problem_id], self.prompt)
            if isinstance(episode, OneTurn):
                messages = episode.start()
                self._openings[problem_id] = (messages, (), self.engine.encode(messages))
            else:
                (started,) = side_by_side([episode.start], self.episodes.step_timeout_s, 1)
                side_by_side([episode.close], self.episodes.step_timeout_s, 1)
                if started.failure is not None:
                    raise InfrastructureError(
                        f"the environment of problem {problem_id!r} did not start for the teacher: {started.failure}"
                    )
                tools = episode.tools
                self._openings[problem_id] = (started.value, tools, self.chat.encode(started.value, tools))
        return self._openings[problem_id]
