"""The same episode after another prompt: a teacher's contexts of what the student sampled, or the seed prompt's."""

from collections.abc import Mapping, Sequence

from fastslow.errors import InfrastructureError
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.rollouts.waves import chat_of
from fastslow.slow.engine import PolicyEngine
from fastslow.tasks.base import Task
from fastslow.tasks.episode import OneTurn
from fastslow.threads import side_by_side
from fastslow.types import Message, Problem, Prompt, Rollout, Tool, Turn


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
        """The context of each of a rollout's turns: the same but for the opening.

        Raises: InfrastructureError where the environment does not start, and for a turn of a conversation that does not
        begin with the opening: where the prompt stands in it is not known.
        """
        if not rollout.turns:
            return []
        opening, tools, context = self._opening(rollout.problem_id)
        made, conversations = [context], [[*opening, _said(rollout.turns[0])]]
        for index, turn in enumerate(rollout.turns[1:], start=1):
            before = index - 1 if turn.follows is None else turn.follows
            if before < 0:
                raise InfrastructureError(
                    f"problem {rollout.problem_id!r}: turn {index + 1} begins a conversation of its own, and what "
                    "another prompt would make of it is not known: method: distill and slow.gradient_context: bare "
                    "take agents that keep to one conversation"
                )
            last, conversation = rollout.turns[before], [*conversations[before], *turn.messages]
            if turn.continues(last):
                made.append((*made[before], *last.completion.tokens, *turn.context_tokens[len(last.tokens) :]))
            else:
                made.append(self.chat.encode(conversation, tools))
            conversations.append([*conversation, _said(turn)])
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
                        f"the environment of problem {problem_id!r} did not start under another prompt: "
                        f"{started.failure}"
                    )
                tools = episode.tools
                self._openings[problem_id] = (started.value, tools, self.chat.encode(started.value, tools))
        return self._openings[problem_id]


def _said(turn: Turn) -> Message:
    return {"role": "assistant", "content": turn.text}
