"""The contract of a task, for its author to run.

from fastslow.testing.tasks import check_task

def test_my_task():
    check_task(MyTask(), again=MyTask(), right=lambda problem: problem.data["answer"])
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from fastslow.errors import TaskError
from fastslow.tasks.agents.task import AgentTask
from fastslow.tasks.base import SPLITS, ScoringFailure, Stage, Task, check_score, check_splits, has_turns
from fastslow.testing.agents import check_agent
from fastslow.testing.contract import require, run_checks
from fastslow.testing.episodes import check_episodes
from fastslow.testing.scorers import RUBBISH
from fastslow.types import SYSTEM, Problem, Prompt, Score

ROLES = ("system", "user", "assistant", "tool")
EVOLVED = "Evolved: write the answer alone."
LOOKED_AT = 16
"""Problems of a split that the dear checks look at."""


@dataclass(frozen=True)
class TaskCase:
    """A task, the same made once more, what is right for a problem, and whether its rewards come with words."""

    task: Task
    again: Task | None
    right: Callable[[Problem], str] | None
    feedback: bool

    @cached_property
    def problems(self) -> list[Problem]:
        """Every problem of every split."""
        return [problem for split in SPLITS for problem in self.task.problems(split)]

    @property
    def some(self) -> list[Problem]:
        """The first problems of each split."""
        return [problem for split in SPLITS for problem in list(self.task.problems(split))[:LOOKED_AT]]

    def completions(self, problem: Problem) -> list[str]:
        """Completions of every kind: rubbish, and the right one where it is known."""
        return [*RUBBISH, *([self.right(problem)] if self.right else [])]


def check_task(
    task: Task, *, again: Task | None = None, right: Callable[[Problem], str] | None = None, feedback: bool = True
) -> None:
    """Run every check. Raises AssertionError.

    `again` is the task made a second time from the same options; `right` gives a completion that is right for a
    problem; `feedback=False` is for a scorer that gives rewards without words, which prompt search then cannot learn
    from. Episodes of several turns are checked as well (`check_episodes`).
    """
    run_checks(f"task {getattr(task, 'name', task)!r}", CHECKS, TaskCase(task, again, right, feedback))
    if isinstance(task, AgentTask):
        check_agent(task)
    elif has_turns(task):
        check_episodes(task)


def is_a_task_with_a_name(case: TaskCase) -> None:
    """Metrics, stores and checkpoints name the task."""
    require(isinstance(case.task, Task), "a task is a subclass of fastslow.Task")
    require(isinstance(case.task.name, str) and bool(case.task.name), "`name` is a text, and not empty")


def splits_share_no_problem(case: TaskCase) -> None:
    """Neither an id nor a question stands in two places: validation would measure what was trained on."""
    check_splits(case.task)
    # Where an environment answers, two problems may ask the same and hide something different.
    hidden = has_turns(case.task)
    questions = [
        json.dumps([[dict(message) for message in problem.messages], problem.data if hidden else {}], default=str)
        for problem in case.problems
    ]
    repeated = next((question for question in questions if questions.count(question) > 1), None)
    require(repeated is None, f"every question stands once, over all splits; this one does not: {repeated}")


def problems_are_questions(case: TaskCase) -> None:
    """An id, a kind, and messages that a user speaks in and the policy has to answer."""
    for problem in case.problems:
        where = f"problem {problem.id!r}"
        require(isinstance(problem.id, str) and bool(problem.id), f"{where}: the id is a text, and not empty")
        require(isinstance(problem.kind, str), f"{where}: the kind is a text, it is {problem.kind!r}")
        roles = [message["role"] for message in problem.messages]
        require("user" in roles and set(roles) <= set(ROLES), f"{where}: has the roles {roles}: a user must speak")
        require(roles[-1] != "assistant", f"{where}: ends with the assistant's message, which the policy is to write")
        words = [message["content"] for message in problem.messages]
        require(all(isinstance(text, str) for text in words), f"{where}: every message's content is a text")


def gives_the_same_problems_again(case: TaskCase) -> None:
    """Resume and the seed rest on it."""
    made = [case.task, *([case.again] if case.again is not None else [])]
    for task in made:
        again = [(p.id, p.messages, p.kind) for split in SPLITS for p in task.problems(split)]
        before = [(p.id, p.messages, p.kind) for p in case.problems]
        require(again == before, "`problems` must give the same problems in the same order, each time and each process")


def scores_any_completion(case: TaskCase) -> None:
    """Rubbish is the model's doing: it has a score. What raises, or fails, is masked, and nothing is learnt from it."""
    problem = case.some[0]
    for text in case.completions(problem):
        (score,) = case.task.score_batch([problem], [text])
        require(isinstance(score, Score), f"the completion {text[:20]!r} must get a Score, it got {score!r}")
        if isinstance(score, Score):
            check_score(score, problem)


def names_what_is_wrong(case: TaskCase) -> None:
    """Reflection learns from nothing else."""
    for problem in case.some[:3] if case.feedback else ():
        for text, score in zip(RUBBISH, case.task.score_batch([problem] * len(RUBBISH), list(RUBBISH)), strict=True):
            spoken = not isinstance(score, Score) or score.reward == 1.0 or bool(score.feedback.strip())
            require(spoken, f"a reward below 1 comes with feedback in words; that of {text[:20]!r} is empty")


def scores_the_right_answer_with_1(case: TaskCase) -> None:
    """Checked where the author tells what is right."""
    for problem in case.some if case.right else ():
        answer = case.right(problem) if case.right else ""
        (score,) = case.task.score_batch([problem], [answer])
        reward = score.reward if isinstance(score, Score) else score
        require(reward == 1.0, f"the right answer to {problem.id!r} must have reward 1.0, it has {reward}")


def scores_a_batch_in_order(case: TaskCase) -> None:
    """Score i belongs to completion i, and is what the completion gets alone."""
    problems = [problem for problem in case.some[:4] for _ in case.completions(problem)]
    texts = [text for problem in case.some[:4] for text in case.completions(problem)]
    batch = case.task.score_batch(problems, texts)
    require(len(batch) == len(texts), f"`score_batch` returns one score a completion: {len(batch)} for {len(texts)}")
    # Feedback is kept without characters that no file holds, whichever way a score is asked for.
    alone = [
        check_score(case.task.score(problem, text), problem) for problem, text in zip(problems, texts, strict=True)
    ]
    for one, other, text in zip(batch, alone, texts, strict=True):
        require(one == other, f"`score_batch` and `score` must agree on {text[:20]!r}: {one}, {other}")


def says_the_same_twice(case: TaskCase) -> None:
    """Rewards are stored and reused, and a resumed run must get those of the uninterrupted one."""
    for problem in case.some[:4]:
        texts = case.completions(problem)
        first, second = (case.task.score_batch([problem] * len(texts), texts) for _ in range(2))
        require(first == second, f"the same completions of {problem.id!r} must get the same scores each time")


def leaves_problems_alone(case: TaskCase) -> None:
    """A problem is shown and scored many times in a run, so a change would move later rewards."""
    for problem in case.some[:4]:
        before = copy.deepcopy(problem)
        case.task.messages(problem, case.task.seed_prompt)
        case.task.score_batch([problem], ["rubbish"])
        require(problem == before, f"problem {before.id!r} was changed by `messages` or by scoring: it is used again")


def shows_the_prompt(case: TaskCase) -> None:
    """A prompt that the policy never sees cannot be evolved. Checked for prompts with a `system` component."""
    if SYSTEM not in case.task.seed_prompt.as_dict():
        return
    prompt = case.task.seed_prompt.replace(SYSTEM, EVOLVED)
    for problem in case.some:
        messages = case.task.messages(problem, prompt)
        words = "\n".join(message["content"] for message in messages)
        require(EVOLVED in words, "`messages` must show the prompt's `system` text to the policy")
        systems = [message for message in messages if message["role"] == "system"]
        require(len(systems) <= 1, "there is one system message at most: templates refuse, or drop, a second one")
        own = [message["content"] for message in problem.messages]
        require(all(text in words for text in own), f"`messages` must keep what problem {problem.id!r} says")


def has_one_seed_prompt(case: TaskCase) -> None:
    """Evolution starts from it and compares with it, so each access gives the same components."""
    seed = case.task.seed_prompt
    require(isinstance(seed, Prompt) and len(seed.components) > 0, f"`seed_prompt` is a fastslow.Prompt, not {seed!r}")
    require(
        all(isinstance(text, str) for text in seed.as_dict().values()), "every component of `seed_prompt` is a text"
    )
    require(seed == case.task.seed_prompt, "`seed_prompt` must be the same each time")


def takes_another_seed_prompt(case: TaskCase) -> None:
    """A run may set its own seed prompt: the problems stay, and components that do not fit are refused."""
    seed = case.task.seed_prompt
    name = seed.components[0][0]
    seeded = case.task.with_seed_prompt(seed.replace(name, EVOLVED))
    require(seeded.seed_prompt.as_dict()[name] == EVOLVED, "`with_seed_prompt` must give a task with that prompt")
    ids = [problem.id for split in SPLITS for problem in seeded.problems(split)]
    require(ids == [problem.id for problem in case.problems], "`with_seed_prompt` must keep the problems")
    try:
        case.task.with_seed_prompt(Prompt.from_dict({**seed.as_dict(), "nobody-has-this": "x"}))
    except TaskError:
        return
    raise AssertionError("`with_seed_prompt` must raise TaskError for components that the task does not have")


def has_parts_and_stages(case: TaskCase) -> None:
    """A plain task is its only part and stage. Every stage has problems to train on."""
    parts = list(case.task.parts)
    require(len(parts) > 0 and all(isinstance(part, Task) for part in parts), "`parts` are tasks, at least one")
    require(len({part.name for part in parts}) == len(parts), "`parts` have different names: metrics are named by them")
    for step in (0, 1, 1000):
        stage = case.task.stage(step)
        require(isinstance(stage, Stage), f"`stage({step})` is a fastslow.tasks.base.Stage, not {stage!r}")
        require(0 <= stage.first_step <= step, f"`stage({step})` began at step {stage.first_step}, which is later")
        require(len(stage.task.problems("train")) > 0, f"the task of `stage({step})` has nothing to train on")


def answers_of_others_are_judged_too(case: TaskCase) -> None:
    """The right answer to another problem is well formed, so it gets a score, not a failure of the scorer."""
    if case.right is None:
        return
    problems = case.some
    texts = [case.right(problem) for problem in problems[1:] + problems[:1]]
    for score in case.task.score_batch(problems, texts):
        require(not isinstance(score, ScoringFailure), f"the answer to another problem is wrong, not broken: {score}")


CHECKS = (
    is_a_task_with_a_name,
    splits_share_no_problem,
    problems_are_questions,
    gives_the_same_problems_again,
    scores_any_completion,
    names_what_is_wrong,
    scores_the_right_answer_with_1,
    scores_a_batch_in_order,
    says_the_same_twice,
    leaves_problems_alone,
    shows_the_prompt,
    has_one_seed_prompt,
    takes_another_seed_prompt,
    has_parts_and_stages,
    answers_of_others_are_judged_too,
)
