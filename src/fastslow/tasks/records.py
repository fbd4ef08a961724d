"""The user's own data as a task: a JSONL file or a Hugging Face dataset, scored by name, by a function or as in TRL.

A split is a file of its own, a named split of the dataset, or a part cut from one source in the order of a seeded hash
of the question. Everything is read and checked when the task is made, before any model loads.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError, TaskError
from fastslow.extension import load_object
from fastslow.tasks.base import SPLITS, ScoringFailure, Split, Task
from fastslow.tasks.formats import get_format
from fastslow.tasks.reward_functions import RewardFunctions
from fastslow.tasks.scorers import Scorer, find_scorer, from_function
from fastslow.tasks.sources import REST, read_source
from fastslow.tasks.tables import Row, check_text, matching, with_choices
from fastslow.types import Message, Problem, Score

# Test comes first, so that another training size leaves the held-out problems as they are.
DEALT: tuple[Split, ...] = ("test", "validation", "train")
ROLES = ("system", "user", "assistant", "tool")
ID = "records-"

logger = logging.getLogger(__name__)

Judge = Callable[[Problem, str], Score]


class RecordsTask(Task):
    """Your own JSONL file or Hugging Face dataset, with a built-in scorer, a function, or TRL reward functions."""

    name = "records"

    def __init__(
        self,
        data: str | dict[str, str],
        splits: dict[str, str | int] | None = None,
        cut_from: str = "train",
        subset: str | None = None,
        prompt: str = "prompt",
        answer: str | None = None,
        id: str | None = None,
        kind: str | None = None,
        choices: str | None = None,
        where: dict[str, object] | None = None,
        scorer: str | None = None,
        answer_format: str | None = None,
        reward_functions: list[str] | None = None,
        reward_weights: list[float] | None = None,
        reward_range: list[float] | None = None,
        drop_duplicates: bool = False,
        skip_broken: bool = False,
        revision: str | None = None,
        seed: int = 0,
    ) -> None:
        self.columns = {"prompt": prompt, "answer": answer, "id": id, "kind": kind}
        self.choices, self.skip_broken = choices, skip_broken
        if choices is not None and answer is None:
            raise ConfigError("task.options.answer: is missing: choices need the column with the right one")
        if (scorer is None) == (not reward_functions):
            raise ConfigError("task.options: give either scorer or reward_functions")
        self._scorer: Scorer | None = None
        self._judge: Judge | None = None
        self._rewards: RewardFunctions | None = None
        if reward_functions:
            self._rewards = _load_rewards(reward_functions, reward_weights, reward_range)
        elif reward_weights is not None or reward_range is not None:
            raise ConfigError("task.options: reward_weights and reward_range belong to reward_functions, not to scorer")
        if scorer is not None:
            self._judge = self._make_judge(scorer, answer_format)
        rows: Sequence[Row] | Mapping[Split, Sequence[Row]] = read_source(data, splits, cut_from, subset, revision)
        if where:
            if isinstance(rows, Mapping):
                rows = {split: matching(part, where) for split, part in rows.items()}
            else:
                rows = matching(rows, where)
        self._reward_columns: list[str] = []
        self._splits = self._split(rows, splits or {}, drop_duplicates, seed)
        self._check_prompts_and_columns()

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def score(self, problem: Problem, completion: str) -> Score:
        """What the scorer or the reward functions say. Raises InfrastructureError where they break."""
        if self._judge is not None:
            return self._judge(problem, completion)
        (score,) = self.score_batch([problem], [completion])
        if isinstance(score, ScoringFailure):
            raise InfrastructureError(score.reason)
        return score

    @property
    def scores_alone(self) -> bool:
        """A scorer judges alone; reward functions take the whole batch."""
        return self._rewards is None

    def reference(self, problem: Problem) -> str | None:
        """The answer's column, where there is one and it is filled."""
        answer = None if self.columns["answer"] is None else problem.data["record"].get(self.columns["answer"])
        return None if _is_missing(answer) else str(answer)

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """One call of the reward functions for the whole batch; a rollout that they cannot judge is masked."""
        if self._rewards is None:
            return super().score_batch(problems, completions)
        prompts = [problem.data["record"][self.columns["prompt"]] for problem in problems]
        said: list[Any] = [
            completion if isinstance(prompt, str) else [{"role": "assistant", "content": completion}]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        columns = {name: [p.data["record"].get(name) for p in problems] for name in self._reward_columns}
        scores = self._rewards.score(prompts, said, columns)
        return [self._with_answer(problem, score) for problem, score in zip(problems, scores, strict=True)]

    def _with_answer(self, problem: Problem, score: Score | ScoringFailure) -> Score | ScoringFailure:
        column = self.columns["answer"]
        if column is None or isinstance(score, ScoringFailure) or score.reward == 1.0:
            return score
        answer = problem.data["record"][column]
        if _is_missing(answer):
            return score
        return Score(score.reward, f"{score.feedback}\nThe reference answer is {answer}.")

    def _make_judge(self, scorer: str, answer_format: str | None) -> Judge:
        found = find_scorer(scorer)
        if not isinstance(found, Scorer):
            if answer_format is not None:
                raise ConfigError(
                    "task.options.answer_format: belongs to the scorers exact, number and choice, and to a Scorer of "
                    f"your own. Remove it: the function {scorer!r} reads the completion itself"
                )
            by_record = from_function(found, scorer, self.columns["answer"])
            return lambda problem, completion: by_record(completion, problem.data["record"])
        self._scorer = found
        if self.columns["answer"] is None:
            raise ConfigError(f"task.options.answer: is missing: scorer {scorer!r} needs the column with the answers")
        if answer_format is not None and not found.takes_format:
            raise ConfigError(f"task.options.answer_format: scorer {scorer!r} has a format of its own: remove it")
        form = get_format(answer_format or "plain")
        return lambda problem, completion: found.judge(completion, problem.data["gold"], form)

    def _split(
        self,
        rows: Sequence[Row] | Mapping[Split, Sequence[Row]],
        sizes: Mapping[str, str | int],
        drop: bool,
        seed: int,
    ) -> dict[Split, list[Problem]]:
        if not isinstance(rows, Mapping):
            return cut(self._make_problems([rows], drop)[0], sizes, seed)
        order = [split for split in DEALT if split in rows]
        made = self._make_problems([rows[split] for split in order], drop)
        return {split: made[order.index(split)] if split in order else [] for split in SPLITS}

    def _make_problems(self, sources: Sequence[Sequence[Row]], drop: bool) -> list[list[Problem]]:
        """The problems of each source. A question, and an id, stands once over all of them."""
        seen: dict[bytes | str, Problem] = {}
        made, contrary, first_contrary = list[list[Problem]](), 0, ""
        for rows in sources:
            problems, broken = list[Problem](), list[TaskError]()
            for where, record in rows:
                try:
                    question, problem = self._make_problem(where, record)
                except TaskError as error:
                    if not self.skip_broken:
                        raise
                    broken.append(error)
                    continue
                keys: list[bytes | str] = [question] if self.columns["id"] is None else [question, problem.id]
                repeated = next((key for key in keys if key in seen), None)
                if repeated is None:
                    seen.update(dict.fromkeys(keys, problem))
                    problems.append(problem)
                elif not drop or repeated != question:
                    what = "the question" if repeated == question else f"the id {problem.id.removeprefix(ID)!r}"
                    hint = " Or set drop_duplicates: true to keep the first" if repeated == question else ""
                    first = self._place(seen[repeated], sources)
                    raise TaskError(f"{where}: repeats {what} of {first}: every problem must stand once.{hint}")
                elif self._answer_text(seen[question]) != self._answer_text(problem):
                    contrary += 1
                    first_contrary = first_contrary or f"{where} and {self._place(seen[question], sources)}"
            made.append(problems)
            self._tell_broken(broken, len(problems), len(rows))
        if contrary:
            logger.warning(
                "task.options.drop_duplicates: %d repeated questions have another answer than the "
                "first, which is kept: %s",
                contrary,
                first_contrary,
            )
        return made

    def _tell_broken(self, broken: Sequence[TaskError], problems: int, records: int) -> None:
        if broken and not problems:
            raise broken[0]
        if broken:
            logger.warning("task.options.skip_broken: %d of %d records left out: %s", len(broken), records, broken[0])

    def _place(self, problem: Problem, sources: Sequence[Sequence[Row]]) -> str:
        """Where the record of a problem stands. It is looked for only when it is asked for: when data are refused."""
        for where, record in itertools.chain(*sources):
            with contextlib.suppress(TaskError):
                if self._make_problem(where, record)[1] == problem:
                    return where
        return "an earlier record"

    def _answer_text(self, problem: Problem) -> str:
        column = self.columns["answer"]
        return "" if column is None else repr(problem.data["record"].get(column))

    def _make_problem(self, where: str, record: dict[str, object]) -> tuple[bytes, Problem]:
        """A problem, and what its question is told from others by."""
        answer = self.columns["answer"]
        if self.choices is not None and answer is not None:
            self._messages(where, record)  # the options need a question that is one
            record = with_choices(where, record, str(self.columns["prompt"]), self.choices, answer)
        messages = self._messages(where, record)
        question = hashlib.sha256(json.dumps(messages, ensure_ascii=False).encode()).digest()
        identity = question.hex()[:12]
        if self.columns["id"] is not None:
            identity = self._name(where, record, "id")
        kind = "" if self.columns["kind"] is None else self._name(where, record, "kind")
        return question, Problem(f"{ID}{identity}", messages, self._data(where, record), kind)

    def _data(self, where: str, record: dict[str, object]) -> dict[str, Any]:
        if self.columns["answer"] is None:
            return {"record": record}
        answer = self._value(where, record, "answer")
        if self._scorer is None:
            return {"record": record}
        try:
            return {"record": record, "gold": self._scorer.prepare(answer)}
        except (TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, TaskError) else f"the answer {answer!r} {error}"
            raise TaskError(f"{where}: {reason} (column {self.columns['answer']!r})") from error

    def _value(self, where: str, record: Mapping[str, object], option: str) -> Any:
        column = self.columns[option]
        if column is None or column not in record:
            raise TaskError(
                f"{where}: has no column {column!r} (task.options.{option}): the columns are {', '.join(record)}"
            )
        return record[column]

    def _name(self, where: str, record: Mapping[str, object], option: str) -> str:
        """The id or kind of a record: a text or a number that says something."""
        value = self._value(where, record, option)
        if _is_missing(value) or not isinstance(value, str | int | float) or not str(value).strip():
            raise TaskError(
                f"{where}: column {self.columns[option]!r} (task.options.{option}) holds {value!r}: a text or a number "
                "is needed in every record"
            )
        check_text(where, self.columns[option], str(value))
        return str(value)

    def _messages(self, where: str, record: Mapping[str, object]) -> tuple[Message, ...]:
        value = self._value(where, record, "prompt")
        if isinstance(value, str) and value.strip():
            check_text(where, self.columns["prompt"], value)
            return ({"role": "user", "content": value},)
        if not isinstance(value, list) or not value or not all(_is_message(message) for message in value):
            raise TaskError(
                f"{where}: column {self.columns['prompt']!r} must hold a text or a list of chat messages "
                f"({{role, content}}, roles {', '.join(ROLES)}), not {value!r}"
            )
        if value[-1]["role"] == "assistant":
            raise TaskError(f"{where}: the chat ends with an assistant message: the policy is to write it, remove it")
        if not any(message["role"] == "user" for message in value):
            raise TaskError(f"{where}: column {self.columns['prompt']!r} holds a chat without a message of the user's")
        for number, message in enumerate(value, start=1):
            check_text(where, self.columns["prompt"], message["content"])
            if message["role"] == "user" and not message["content"].strip():
                raise TaskError(f"{where}: column {self.columns['prompt']!r}, message {number}: the user says nothing")
            if message.get("tool_calls"):
                raise TaskError(
                    f"{where}: column {self.columns['prompt']!r}, message {number}: has tool_calls, which would be "
                    "lost: write them into its content"
                )
        return tuple({"role": message["role"], "content": message["content"]} for message in value)

    def _check_prompts_and_columns(self) -> None:
        records = [problem.data["record"] for split in SPLITS for problem in self._splits[split]]
        prompt = self.columns["prompt"]
        if len({isinstance(record[prompt], str) for record in records}) > 1:
            raise TaskError(f"task.options.prompt: column {prompt!r} holds texts and chats: make all of them the same")
        self._reward_columns = sorted({name for record in records for name in record} - {"prompt", "completion"})
        if self._rewards is not None:
            taken = {"completions", *({"prompts"} - {prompt})} & set(self._reward_columns)
            if taken:
                raise ConfigError(
                    f"task.options.reward_functions: the records have a column {min(taken)!r}, under which functions "
                    "get something else: rename it"
                )
            self._rewards.check_columns(self._reward_columns)


def cut(problems: Sequence[Problem], sizes: Mapping[str, str | int], seed: int) -> dict[Split, list[Problem]]:
    """Disjoint parts in the order of a seeded hash of the ids: test first, then validation, then train.

    A size is a number or `rest`; within a part, problems keep their order. Raises TaskError where there are too few.
    """
    order = sorted(range(len(problems)), key=lambda index: _digest(f"{seed}:{problems[index].id}"))
    fixed = sum(size for size in sizes.values() if isinstance(size, int))
    if fixed > len(problems) or (fixed == len(problems) and REST in sizes.values()):
        raise TaskError(
            f"task.options.splits: asks for {dict(sizes)}, but there are only {len(problems)} different records"
        )
    splits: dict[Split, list[Problem]] = {split: [] for split in SPLITS}
    start = 0
    for split in DEALT:
        size = sizes.get(split, 0)
        count = len(problems) - fixed if isinstance(size, str) else size
        splits[split] = [problems[index] for index in sorted(order[start : start + count])]
        start += count
    return splits


def _load_rewards(
    paths: list[str], weights: Sequence[float] | None, reward_range: Sequence[float] | None
) -> RewardFunctions:
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"task.options.reward_functions: names {twice!r} twice: give it a weight in reward_weights instead"
        )
    functions = {path: _load_function(path) for path in paths}
    return RewardFunctions(functions, weights, (0.0, 1.0) if reward_range is None else reward_range)


def _load_function(path: str) -> Callable[..., Any]:
    function: Callable[..., Any] = load_object(path, "task.options.reward_functions")
    if not callable(function):
        raise ConfigError(f"task.options.reward_functions: {path!r} is {function!r}, not a function")
    return function


def _is_message(message: object) -> bool:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return False
    return message["role"] in ROLES and isinstance(message.get("content"), str)


def _is_missing(value: object) -> bool:
    """Whether a cell is empty: null, or the NaN that tables of numbers have for it."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
