"""The contract of a task's episodes, for its author to run; `check_task` runs it for tasks whose episodes have turns.

from fastslow.testing.episodes import check_episodes

def test_my_game():
    check_episodes(MyGame(), plays=lambda problem: ["5", "7"])
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastslow.tasks.base import SPLITS, Task, check_score
from fastslow.tasks.episode import Episode
from fastslow.testing.contract import require, run_checks
from fastslow.testing.scorers import RUBBISH
from fastslow.types import SYSTEM, Message, Problem, Score

ROLES = ("system", "user", "assistant", "tool")
EVOLVED = "Evolved: think first."
LOOKED_AT = 3
"""Problems of a split that are played."""

Plays = Callable[[Problem], Sequence[str]]


@dataclass(frozen=True)
class EpisodeCase:
    """A task, and the texts of a policy that plays a problem right."""

    task: Task
    plays: Plays | None

    @property
    def some(self) -> list[Problem]:
        """The first problems of each split."""
        return [problem for split in SPLITS for problem in list(self.task.problems(split))[:LOOKED_AT]]

    def episode(self, problem: Problem) -> Episode:
        """A new episode under the seed prompt."""
        return self.task.episode(problem, self.task.seed_prompt)


def check_episodes(task: Task, *, plays: Plays | None = None) -> None:
    """Run every check. Raises AssertionError. `plays` gives the texts of a policy's turns that earn a reward of 1."""
    run_checks(f"the episodes of task {task.name!r}", CHECKS, EpisodeCase(task, plays))


def starts_with_the_question(case: EpisodeCase) -> None:
    """The rule: the first context is messages, the same each time, with the prompt's text in them."""
    for problem in case.some:
        first, second = (_started(case.episode(problem)) for _ in range(2))
        require(first == second, f"`start` of {problem.id!r} must give the same messages each time: resume rests on it")
        _check_messages(first, f"`start` of {problem.id!r}")
        require(
            bool(first) and first[-1]["role"] != "assistant",
            f"`start` of {problem.id!r} must leave a turn to the policy",
        )
        if SYSTEM in case.task.seed_prompt.as_dict():
            evolved = case.task.seed_prompt.replace(SYSTEM, EVOLVED)
            shown = _started(case.task.episode(problem, evolved))
            words = "\n".join(message["content"] for message in shown)
            require(EVOLVED in words, "`start` must show the prompt's `system` text to the policy")


def answers_whatever_the_policy_says(case: EpisodeCase) -> None:
    """The rule: no text of the policy makes `step` raise; an episode has a score when it ends, with words below 1."""
    problem = case.some[0]
    for text in RUBBISH:
        episode = case.episode(problem)
        try:
            episode.start()
            said = episode.step(text)
            _check_messages(said, f"`step({text[:20]!r})`")
            _check_verdict(episode.score(), problem)
        finally:
            episode.close()


def scores_at_any_time(case: EpisodeCase) -> None:
    """The rule: an episode that is cut before its first turn has a score as well, and asking twice changes nothing."""
    for problem in case.some:
        episode = case.episode(problem)
        episode.start()
        first, second = episode.score(), episode.score()
        episode.close()
        require(first == second, f"`score` of {problem.id!r} must be the same when it is asked for twice")
        _check_verdict(first, problem)


def keeps_episodes_apart(case: EpisodeCase) -> None:
    """The rule: two episodes of one problem at the same time do not hear each other."""
    problem = case.some[0]
    texts = list(case.plays(problem)) if case.plays else ["7"]
    alone = _played(case.episode(problem), texts)
    beside, other = case.episode(problem), case.episode(problem)
    beside.start()
    other.start()
    said: list[list[dict[str, Any]]] = []
    for text in texts:
        said.append([dict(message) for message in beside.step(text)])
        other.step("rubbish")
        if not said[-1]:
            break
    score = beside.score()
    beside.close()
    other.close()
    require((said, score) == alone, f"an episode of {problem.id!r} went another way because another one ran beside it")


def rewards_the_right_play_with_1(case: EpisodeCase) -> None:
    """The rule: who plays right gets a reward of 1."""
    for problem in case.some if case.plays else ():
        _, score = _played(case.episode(problem), list(case.plays(problem)) if case.plays else [])
        require(score.reward == 1.0, f"the right play of {problem.id!r} must have reward 1.0, it has {score.reward}")


def has_tools_that_templates_take(case: EpisodeCase) -> None:
    """The rule: tools are JSON schemas with a name."""
    episode = case.episode(case.some[0])
    episode.start()
    for tool in episode.tools:
        json.dumps(tool)
        function = tool.get("function")
        named = isinstance(function, Mapping) and isinstance(function.get("name"), str)
        require(named, f'a tool is {{"type": "function", "function": {{"name": ...}}}}, this one is {tool!r}')
    episode.close()


CHECKS = (
    starts_with_the_question,
    answers_whatever_the_policy_says,
    scores_at_any_time,
    keeps_episodes_apart,
    rewards_the_right_play_with_1,
    has_tools_that_templates_take,
)


def _started(episode: Episode) -> list[dict[str, Any]]:
    try:
        return [dict(message) for message in episode.start()]
    finally:
        episode.close()


def _played(episode: Episode, texts: Sequence[str]) -> tuple[list[list[dict[str, Any]]], Score]:
    """What the environment said to each text, and the score."""
    try:
        episode.start()
        said: list[list[dict[str, Any]]] = []
        for text in texts:
            said.append([dict(message) for message in episode.step(text)])
            if not said[-1]:
                break
        return said, episode.score()
    finally:
        episode.close()


def _check_messages(messages: Sequence[Message], where: str) -> None:
    require(not isinstance(messages, str), f"{where} gives messages, not a text")
    for message in messages:
        known = message.get("role") in ROLES and isinstance(message.get("content"), str)
        require(
            known, f"{where}: a message has a role of {', '.join(ROLES)} and a text as its content, not {message!r}"
        )


def _check_verdict(score: Score, problem: Problem) -> None:
    check_score(score, problem)
    require(score.reward == 1.0 or bool(score.feedback.strip()), f"a reward below 1 of {problem.id!r} comes with words")
