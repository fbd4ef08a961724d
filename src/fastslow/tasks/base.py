"""The task interface: problems with stable ids, a scorer with feedback in words, three disjoint splits, a seed prompt.

A new task is one small file: subclass `Task`, give it `problems` and `score`, and name it in a config as
`package.module:ClassName`. Where the group's completions are scored together (TRL-style reward functions, a batched
judge), override `score_batch` as well. A task of several turns subclasses `EpisodeTask` and gives it `episode`
(`tasks/episode.py`).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastslow.errors import ElsewhereError, FastslowError, LateError, TaskError, let_stop
from fastslow.tasks.components import SKILL, TOOL, Described, descriptions_of, texts_of, with_skills
from fastslow.tasks.episode import Episode, OneTurn
from fastslow.tasks.failures import LONGEST_REASON as LONGEST_REASON
from fastslow.tasks.failures import ScoringFailure as ScoringFailure
from fastslow.tasks.failures import failure_of as failure_of
from fastslow.text import shortened, shown, storable
from fastslow.threads import TimeLimit
from fastslow.types import SYSTEM, Message, Problem, Prompt, Score

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

LONGEST_FEEDBACK = 100_000
"""Characters of a verifier's words that are kept: all of them are written down."""
TIMEOUT = "task.timeout_s"
MAX_FAILURES_IN_A_ROW = 3
"""Rows that fail one after the other before a scorer is taken for down."""

DEFAULT_SEED_PROMPT = "You are a helpful assistant."


@dataclass(frozen=True)
class Stage:
    """What is trained on at some step: a task, since which step, and for how many (None: to the end)."""

    task: "Task"
    first_step: int = 0
    steps: int | None = None


class Task(ABC):
    """What a policy and its prompts are trained on."""

    name: str = "task"
    _scoring_timeout_s: float | None = None

    @property
    def seed_prompt(self) -> Prompt:
        """The prompt that the first population consists of."""
        return Prompt.of(DEFAULT_SEED_PROMPT)

    @abstractmethod
    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of one split, always the same ones in the same order. Splits share no problem."""

    @abstractmethod
    def score(self, problem: Problem, completion: str) -> Score:
        """Reward in [0, 1] and feedback, one finding a line. A wrong answer scores 0; only broken machinery raises."""

    def reference(self, problem: Problem) -> str | None:
        """The right answer in words, for people who read completions; None where the task cannot tell one.

        By default what `problem.data` has under `reference` or `answer`, where that is a text or a number.
        """
        found = problem.data.get("reference", problem.data.get("answer"))
        return str(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else None

    @property
    def parts(self) -> Sequence["Task"]:
        """The tasks that are measured one by one: of a stream those that it is made of, otherwise the task itself."""
        return (self,)

    def stage(self, step: int) -> Stage:
        """What is trained on at a step: always the task itself, unless it is a stream of tasks."""
        return Stage(self)

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """Scores of many completions, in order. An exception of `score` becomes a `ScoringFailure`, never a 0.

        Raises: TaskError where `score` returns something other than a `Score` with a reward in [0, 1].
        """
        return [self._score_one(problem, text) for problem, text in zip(problems, completions, strict=True)]

    @property
    def scores_alone(self) -> bool:
        """Whether a batch is scored one completion at a time, as the task's own `score_batch` is not, if any."""
        return type(self).score_batch is Task.score_batch

    def limit_scoring(self, timeout_s: float | None) -> None:
        """Let `verdicts` wait so many seconds for each call of the scorer; None: as long as it takes."""
        object.__setattr__(self, "_scoring_timeout_s", timeout_s)  # a task may be a frozen dataclass

    def verdicts(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """What a run takes: `score_batch`, each call of the scorer within `task.timeout_s`, each score checked.

        Where a batch breaks, or is late, rows go in one at a time, so that one bad row costs one row. After three
        failures in a row the scorer is taken for down, and what is left fails with the same reason.
        Raises: TaskError for what is no score, and other errors of fastslow's own.
        """
        with TimeLimit(self._scoring_timeout_s, TIMEOUT) as limit:
            return self._verdicts_within(limit, problems, completions)

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        """The context of a problem under a prompt: the `system` component,
        merged into the problem's own system message.

        Override it where a task has more components than `system` (tool descriptions, skills) and places them itself.
        """
        return with_system_prompt(problem.messages, prompt.as_dict()[SYSTEM])

    def kind_of(self, messages: Sequence[Message]) -> str | None:
        """The kind of a question that is none of the task's own problems; None: its messages do not tell.

        `fastslow serve` asks it, so that a question gets the prompt that was evolved for its kind.
        Of its own problems the task need not tell: they are known.
        """
        return None

    def episode(self, problem: Problem, prompt: Prompt) -> Episode:
        """A new episode of a problem under a prompt: by default one turn, `messages`, then `score`.

        It is cheap: what takes time, or may fail, belongs into the episode's `start`.
        """
        return OneTurn(self, problem, prompt)

    @property
    def optional_components(self) -> Mapping[str, str]:
        """Components beside those of `seed_prompt` that the task can place, with the texts that they have now.

        A config opts in by naming them in task.seed_prompt.
        `skill:<name>` is possible for every task that has a `system`.
        """
        return {}

    def with_seed_prompt(self, prompt: Prompt) -> "Task":
        """The same task with another seed prompt; it may have components that the task's own does not have.

        Raises: TaskError where one of the task's is missing, or one could not be shown to the policy.
        """
        own, given = self.seed_prompt.as_dict(), prompt.as_dict()
        optional = self.optional_components if any(name not in own for name in given) else {}
        shown = {name for name in given if name in own or name in optional}
        shown |= {name for name in given if name.startswith(SKILL) and SYSTEM in own and name != SKILL}
        if shown != set(given) or not set(own) <= set(given):
            more = [*optional, *([f"{SKILL}<name>"] if SYSTEM in own else [])]
            raise TaskError(
                f"task.seed_prompt: has the components {sorted(given)}, those of task {self.name!r} are {sorted(own)}"
                + (f"; there may also be {', '.join(sorted(more))}" if more else "")
            )
        return _Reseeded(self, prompt)

    def _verdicts_within(
        self, limit: TimeLimit, problems: Sequence[Problem], completions: Sequence[str]
    ) -> list[Score | ScoringFailure]:
        rows = list(zip(problems, completions, strict=True))
        if not self.scores_alone:
            try:
                return self._batch(limit, rows)
            except BaseException as error:  # a scorer that ends its program must not end this one
                let_stop(error)
                if isinstance(error, FastslowError) and not isinstance(error, LateError | ElsewhereError):
                    raise
                if len(rows) == 1:
                    return [failure_of(error)]
        scores: list[Score | ScoringFailure] = []
        for row in rows:
            last = scores[-MAX_FAILURES_IN_A_ROW:]
            if (
                not self.scores_alone
                and len(last) == MAX_FAILURES_IN_A_ROW
                and not any(isinstance(score, Score) for score in last)
            ):
                return [*scores, *[last[-1]] * (len(rows) - len(scores))]
            scores += (
                [self._score_one(*row, limit)]
                if self.scores_alone
                else self._verdicts_within(limit, [row[0]], [row[1]])
            )
        return scores

    def _batch(self, limit: TimeLimit, rows: Sequence[tuple[Problem, str]]) -> list[Score | ScoringFailure]:
        problems, completions = [problem for problem, _ in rows], [text for _, text in rows]
        return check_scores(limit.call(lambda: self.score_batch(problems, completions)), problems)

    def _score_one(self, problem: Problem, completion: str, limit: TimeLimit | None = None) -> Score | ScoringFailure:
        try:
            asked = functools.partial(self.score, problem, completion)
            score = asked() if limit is None else limit.call(asked)
        except BaseException as error:
            let_stop(error)
            return failure_of(error)
        return check_score(score, problem)


class EpisodeTask(Task):
    """A task whose episodes have turns. Give it `problems` and `episode`; the episode scores itself."""

    @abstractmethod
    def episode(self, problem: Problem, prompt: Prompt) -> Episode:
        """A new episode of a problem under a prompt."""

    @property
    def optional_components(self) -> Mapping[str, str]:
        """The descriptions of the tools that the first episode of each kind has before it starts."""
        first: dict[str, Problem] = {}
        for problem in self.problems("train"):
            first.setdefault(problem.kind, problem)
        found: dict[str, str] = {}
        for problem in first.values():
            episode = self.episode(problem, self.seed_prompt)
            found |= descriptions_of(episode.tools)
            episode.close()
        return found

    def score(self, problem: Problem, completion: str) -> Score:
        """The score of an episode in which the policy says this one thing under the seed prompt."""
        episode = self.episode(problem, self.seed_prompt)
        try:
            episode.start()
            episode.step(completion)
            return episode.score()
        finally:
            episode.close()


class _Reseeded(Task):
    """Another task with its own seed prompt. It wraps: subclasses are free to define `seed_prompt` as they like."""

    def __init__(self, task: Task, prompt: Prompt) -> None:
        self.name = task.name
        self._task, self._prompt = task, prompt
        more = set(prompt.as_dict()) - set(task.seed_prompt.as_dict())
        placed = set(task.optional_components) if more else set()
        self._skills = {name for name in more - placed if name.startswith(SKILL)}
        self._tools = {name for name in more if name.startswith(TOOL)}

    @property
    def seed_prompt(self) -> Prompt:
        return self._prompt

    @property
    def parts(self) -> Sequence[Task]:
        whole = self._task.parts == (self._task,)
        return (self,) if whole else tuple(_Reseeded(part, self._prompt) for part in self._task.parts)

    def stage(self, step: int) -> Stage:
        stage = self._task.stage(step)
        task = self if stage.task is self._task else _Reseeded(stage.task, self._prompt)
        return Stage(task, stage.first_step, stage.steps)

    @property
    def optional_components(self) -> Mapping[str, str]:
        return self._task.optional_components

    def limit_scoring(self, timeout_s: float | None) -> None:
        self._task.limit_scoring(timeout_s)

    def problems(self, split: Split) -> Sequence[Problem]:
        return self._task.problems(split)

    def score(self, problem: Problem, completion: str) -> Score:
        return self._task.score(problem, completion)

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        return self._task.score_batch(problems, completions)

    def verdicts(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        return self._task.verdicts(problems, completions)

    def reference(self, problem: Problem) -> str | None:
        return self._task.reference(problem)

    def messages(self, problem: Problem, prompt: Prompt) -> tuple[Message, ...]:
        return self._task.messages(problem, self._placed(prompt))

    def kind_of(self, messages: Sequence[Message]) -> str | None:
        return self._task.kind_of(messages)

    def episode(self, problem: Problem, prompt: Prompt) -> Episode:
        episode = self._task.episode(problem, self._placed(prompt))
        descriptions = {name: text for name, text in prompt.components if name in self._tools}
        if not descriptions or isinstance(episode, OneTurn):
            return episode
        return Described(episode, texts_of(Prompt.from_dict(descriptions), TOOL))

    def _placed(self, prompt: Prompt) -> Prompt:
        """The prompt as the task itself knows it: skills that it does not place stand under its system text."""
        mine = {*self._skills, *self._tools}
        if not mine & set(prompt.as_dict()):
            return prompt
        skills = {name.removeprefix(SKILL): text for name, text in prompt.components if name in self._skills}
        return with_skills(Prompt.from_dict({n: t for n, t in prompt.components if n not in mine}), skills)


def has_turns(task: Task) -> bool:
    """Whether a task, or one of a stream, has episodes that are more than one completion and its score."""
    for part in task.parts:
        problem = next(iter(part.problems("train")), None)
        if problem is not None:
            episode = part.episode(problem, part.seed_prompt)
            episode.close()
            if not isinstance(episode, OneTurn):
                return True
    return False


def reference_of(task: Task, problem: Problem) -> str | None:
    """The task's reference answer, cut if long; None where the task has none, or breaks over it: nobody needs it."""
    try:
        found = task.reference(problem)
    except Exception as error:  # a task of somebody's own may raise whatever it likes
        failure_of(error)
        return None
    return None if found is None else shortened(storable(str(found)), LONGEST_REASON)


def as_number(reward: Any) -> float:
    """A reward as a float: any real number, of NumPy or PyTorch too, and a verdict (True is 1).

    Raises: TypeError or ValueError for anything else, a text that reads like a number included.
    """
    if isinstance(reward, str | bytes | bytearray) or getattr(reward, "ndim", 0) != 0:
        raise TypeError(f"{reward!r} is not a number")
    return float(reward)


def check_score(score: Score, problem: Problem) -> Score:
    """The score, its reward as a number of Python's. Feedback is cut where it is longer than
    `LONGEST_FEEDBACK`, and what no file can hold in it is replaced.

    Raises: TaskError where it is not a `Score` with a reward in [0, 1]."""
    if isinstance(score, TaskError):  # found out in a process of its own
        raise score
    if not isinstance(score, Score):
        raise TaskError(f"the scorer returned {shown(score)} for problem {problem.id!r}: return a fastslow.Score")
    if not isinstance(score.feedback, str):
        raise TaskError(
            f"the scorer's feedback for problem {problem.id!r} is {shown(score.feedback)}: a text is needed"
        )
    if not isinstance(score.reward, int | float):
        try:
            score = Score(as_number(score.reward), score.feedback)
        except (TypeError, ValueError):
            raise TaskError(
                f"the scorer returned reward {shown(score.reward)} for problem {problem.id!r}: a number is needed"
            ) from None
    if not 0.0 <= score.reward <= 1.0:
        raise TaskError(
            f"the scorer returned reward {shown(score.reward)} for problem {problem.id!r}: rewards lie in [0, 1]"
        )
    feedback = shortened(storable(score.feedback), LONGEST_FEEDBACK)
    return score if feedback == score.feedback else Score(score.reward, feedback)


def check_scores(found: Any, problems: Sequence[Problem]) -> list[Score | ScoringFailure]:
    """The scores of a batch, each checked. Raises: TaskError where there is not one for each problem."""
    if not isinstance(found, list | tuple) or len(found) != len(problems):
        raise TaskError(
            f"score_batch returned {shown(found)} for {len(problems)} completions: one Score each is needed"
        )
    return [
        score if isinstance(score, ScoringFailure) else check_score(score, problem)
        for score, problem in zip(found, problems, strict=True)
    ]


def with_system_prompt(messages: Sequence[Message], system: str) -> tuple[Message, ...]:
    """A copy of the messages with `system` in front, merged into an existing system message, never stacked."""
    if not system:
        return tuple(dict(message) for message in messages)
    if messages and messages[0]["role"] == "system":
        merged = {"role": "system", "content": f"{system}\n\n{messages[0]['content']}"}
        return (merged, *(dict(message) for message in messages[1:]))
    return ({"role": "system", "content": system}, *(dict(message) for message in messages))


def check_splits(task: Task) -> dict[Split, int]:
    """Sizes of the splits. Raises TaskError where ids repeat, splits overlap, or train or validation are empty."""
    owner: dict[str, Split] = {}
    sizes: dict[Split, int] = {}
    for split in SPLITS:
        problems = task.problems(split)
        sizes[split] = len(problems)
        for problem in problems:
            if problem.id in owner:
                other = owner[problem.id]
                where = f"twice in {split!r}" if other == split else f"in {other!r} and in {split!r}"
                raise TaskError(
                    f"task {task.name!r}: problem id {problem.id!r} stands {where}: splits must be disjoint"
                )
            owner[problem.id] = split
    for split in ("train", "validation"):
        if not sizes[split]:
            raise TaskError(f"task {task.name!r} has no {split} problems: raise the size of that split")
    return sizes
