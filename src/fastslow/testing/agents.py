"""The contract of an agent, for its author to run: texts take the policy's place, and everything else is real.

from fastslow.testing.agents import check_agent

def test_my_agent():
    check_agent(AgentTask(my_agent, MyProblems()), plays=lambda problem: ["5", "7"])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastslow.tasks.agents.task import MOST_CALLS, AgentEpisode, AgentTask
from fastslow.tasks.base import check_score
from fastslow.testing.contract import require, run_checks
from fastslow.testing.episodes import EVOLVED, LOOKED_AT, Plays
from fastslow.threads import side_by_side
from fastslow.types import SYSTEM, Message, Problem, Prompt, Score

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class AgentCase:
    """A task of an agent, and the texts of a policy that plays a problem right."""

    task: AgentTask
    plays: Plays | None

    @property
    def some(self) -> list[Problem]:
        """The first problems."""
        return list(self.task.problems("train"))[:LOOKED_AT]

    def texts(self, problem: Problem) -> list[str]:
        """What the policy says: the right play, or anything."""
        return list(self.plays(problem)) if self.plays else ["7"]


def check_agent(task: AgentTask, *, plays: Plays | None = None) -> None:
    """Run every check. Raises AssertionError. `plays` gives the policy's texts that earn a reward of 1;
    after its last text the policy repeats it.
    """
    run_checks(f"the agent of task {task.name!r}", CHECKS, AgentCase(task, plays))


def calls_the_policy_and_returns_a_score(case: AgentCase) -> None:
    """The rule: whatever the policy says, the agent makes at least one call, ends, and returns a score."""
    for texts in (["7"], [""], ['<tool_call>{"name": "there is none"}</tool_call>'], case.texts(case.some[0])):
        calls, score = _played(case.task, case.some[0], case.task.seed_prompt, texts)
        require(bool(calls), "the agent must call the policy")
        check_score(score, case.some[0])


def shows_the_prompt_to_the_policy(case: AgentCase) -> None:
    """The rule: the prompt's text stands in the first call."""
    if SYSTEM not in case.task.seed_prompt.as_dict():
        return
    evolved = case.task.seed_prompt.replace(SYSTEM, EVOLVED)
    for problem in case.some:
        calls, _ = _played(case.task, problem, evolved, case.texts(problem))
        shown = "\n".join(message["content"] for message in calls[0])
        require(
            EVOLVED in shown, "the prompt must reach the policy: use `messages`, or put `prompt.system` into the call"
        )


def is_reproducible(case: AgentCase) -> None:
    """The rule: the same answers lead to the same calls and the same score."""
    for problem in case.some:
        one, other = (_played(case.task, problem, case.task.seed_prompt, case.texts(problem)) for _ in range(2))
        require(
            one == other, f"two episodes of {problem.id!r} differ though the policy said the same: resume rests on it"
        )


def keeps_episodes_apart(case: AgentCase) -> None:
    """The rule: two episodes at the same time do not hear each other."""
    problem = case.some[0]
    alone = _played(case.task, problem, case.task.seed_prompt, case.texts(problem))

    def played(texts: Sequence[str]) -> Any:
        return lambda: _play(case.task, problem, case.task.seed_prompt, texts)

    outcomes = side_by_side([played(case.texts(problem)), played(["rubbish"])], TIMEOUT_S, 2)
    require(
        outcomes[0].value == alone, f"an episode of {problem.id!r} went another way because another one ran beside it"
    )


def rewards_the_right_play_with_1(case: AgentCase) -> None:
    """The rule: who plays right gets a reward of 1."""
    for problem in case.some if case.plays else ():
        _, score = _played(case.task, problem, case.task.seed_prompt, case.texts(problem))
        require(score.reward == 1.0, f"the right play of {problem.id!r} must have reward 1.0, it has {score.reward}")


CHECKS = (
    calls_the_policy_and_returns_a_score,
    shows_the_prompt_to_the_policy,
    is_reproducible,
    keeps_episodes_apart,
    rewards_the_right_play_with_1,
)

Played = tuple[list[tuple[Message, ...]], Score]


def _played(task: AgentTask, problem: Problem, prompt: Prompt, texts: Sequence[str]) -> Played:
    """What was new in each call, and the score. Raises AssertionError where the agent breaks or does not end."""
    (outcome,) = side_by_side([lambda: _play(task, problem, prompt, texts)], TIMEOUT_S, 1)
    require(
        outcome.failure is None, f"the agent must bear what the policy says ({list(texts)!r:.80}): {outcome.failure}"
    )
    played: Played = outcome.value
    return played


def _play(task: AgentTask, problem: Problem, prompt: Prompt, texts: Sequence[str]) -> Played:
    episode = AgentEpisode(task, problem, prompt)
    try:
        said = episode.start()
        calls: list[tuple[Message, ...]] = []
        while said and len(calls) < MOST_CALLS:
            calls.append(tuple(said))
            said = episode.step(texts[min(len(calls), len(texts)) - 1])
        return calls, episode.score()
    finally:
        episode.close()
