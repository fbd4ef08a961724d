"""Multi-hop search: questions about a made world, whose pages a BM25 index finds. Nothing is downloaded.

A question names the first page alone. Each page names the next, and the last one has the number that is asked
for. The reward is exact: 1 for that number, 0 otherwise; `partial` gives half of the reward for the share of
the pages that were found.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from fastslow.errors import TaskError
from fastslow.tasks.base import EpisodeTask, Split
from fastslow.tasks.bm25 import PageIndex
from fastslow.tasks.formats import answer_part
from fastslow.tasks.made_world import Names, Question, made_questions, made_things
from fastslow.tasks.tools import ToolEpisode, ToolError
from fastslow.types import Message, Problem, Prompt, Score

SEED_PROMPT = "You answer questions. You can search in a collection of pages."
CALLS = ("tools", "tag")
MAX_QUERY_WORDS = 32
QUERY_RULE = f"A query has 1 to {MAX_QUERY_WORDS} words."
SEARCH_RULE = "Search before you answer: only the pages know the answer."
TAG_RULE = "To search, write <search>a few words</search> and nothing else."
NEXT_RULE = "Search again for what a page names, until you have found the last part of the question."
READ_RULE = "Read the page of the last part of the question: the answer is the number on it."
NUMBER_RULE = "Answer with the number alone."
LEFT_RULE = "No search is left. Answer now."
LIMIT_RULE = "Answer before the searches are used up."
NOTHING = "Nothing was found."
_TAG = re.compile(r"<search>(.*?)</search>", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+")


class SearchTask(EpisodeTask):
    """Questions over several pages of a made world, which the policy searches; nothing is downloaded."""

    name = "search"

    def __init__(
        self,
        hops: int = 2,
        results: int = 3,
        searches: int | None = None,
        distractors: int = 0,
        calls: str = "tools",
        partial: bool = False,
        train: int = 1000,
        validation: int = 100,
        test: int = 100,
        seed: int = 0,
    ) -> None:
        if not 2 <= hops <= 4 or not 1 <= results <= 20 or (searches is not None and searches < 1) or distractors < 0:
            raise TaskError(
                "task.options: hops 2 to 4, results 1 to 20, searches >= 1 and distractors >= 0 are needed, got "
                f"{hops}, {results}, {searches} and {distractors}"
            )
        if calls not in CALLS:
            raise TaskError(f"task.options.calls: {calls!r} is unknown: take one of {', '.join(CALLS)}")
        self.hops, self.results, self.partial, self.calls = hops, results, partial, calls
        self.searches = 2 * hops if searches is None else searches
        names, things = Names(seed), []
        # Test comes first, so that another training size leaves the held-out problems as they are.
        sizes: dict[Split, int] = {"test": test, "validation": validation, "train": train}
        self._splits: dict[Split, list[Problem]] = {}
        for split, size in sizes.items():
            rng = random.Random(f"search {seed} {hops} {split}")
            part = made_things(size, names, rng)
            things += part
            self._splits[split] = [_problem(q) for q in itertools.islice(made_questions(part, hops, rng), size)]
            if len(self._splits[split]) < size:
                raise TaskError(f"task.options.{split}: {size} different questions could not be made: ask for fewer")
        things += made_things(distractors, names, random.Random(f"search {seed} distractors")) if distractors else []
        random.Random(f"search {seed} order").shuffle(things)
        self.index = PageIndex.of([thing.page() for thing in things])

    @property
    def seed_prompt(self) -> Prompt:
        """It says that there is a search, and not how to use it well."""
        return Prompt.of(SEED_PROMPT)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def episode(self, problem: Problem, prompt: Prompt) -> "SearchEpisode":
        """A new episode."""
        return SearchEpisode(self, self.messages(problem, prompt), problem.data["answer"], problem.data["titles"])


class SearchEpisode(ToolEpisode):
    """The question, searches and their pages, the answer."""

    answered: ClassVar[tuple[type[Exception], ...]] = (ToolError,)
    """An index that raises anything else is broken."""

    def __init__(self, task: SearchTask, opening: Sequence[Message], right: int, titles: Sequence[str]) -> None:
        self.task, self.opening, self.right, self.titles = task, opening, right, titles
        self.found: set[str] = set()
        self.searched = 0
        self.has_answer = False
        super().__init__([self.search] if task.calls == "tools" else [])

    def search(self, query: str) -> str:
        """Search for pages. The answer has the titles and texts of the pages that fit best.

        Args:
            query: A few words to look for.
        """
        words = str(query).encode("utf-8", "ignore").decode().split()
        if not 1 <= len(words) <= MAX_QUERY_WORDS or len(str(query)) > 40 * MAX_QUERY_WORDS:
            raise ToolError(QUERY_RULE.rstrip("."))
        if self.searched >= self.task.searches:
            raise ToolError(LEFT_RULE.rstrip("."))
        self.searched += 1
        (numbers,) = self.task.index.search([" ".join(words)], self.task.results)
        pages = [self.task.index[number] for number in numbers]
        self.found |= {page.title for page in pages}
        return "\n".join(f"[{n}] {page.title} | {page.text}" for n, page in enumerate(pages, start=1)) or NOTHING

    def start(self) -> Sequence[Message]:
        """The question under the prompt."""
        return self.opening

    def step(self, text: str) -> Sequence[Message]:
        """The pages that a search finds; nothing after an answer, or without a search left."""
        warned = self.searched >= self.task.searches
        results = self._by_tag(text) if self.task.calls == "tag" else list(super().step(text))
        if not results:
            self.has_answer = True
            return ()
        if warned:
            return ()
        if self.searched >= self.task.searches:
            results[-1] = {**results[-1], "content": f"{results[-1]['content']}\n{LEFT_RULE}"}
        return results

    def score(self) -> Score:
        """1 for the right number as the last one of the answer; words for where the way to it broke off."""
        numbers = [number.replace(",", "") for number in _NUMBER.findall(answer_part(self.answer))]
        if self.has_answer and numbers and numbers[-1] == str(self.right):
            return Score(1.0, "Correct.")
        found = [title for title in self.titles if title in self.found]
        reward = 0.5 * len(found) / len(self.titles) if self.task.partial else 0.0
        missing = [title for title in self.titles if title not in self.found]
        lines = [self._rule(bool(missing)), *([] if self.has_answer and numbers else [NUMBER_RULE])]
        if missing:
            lines.append(f"Found: {', '.join(found) or 'none'}. Still missing: {', '.join(missing)}.")
        return Score(reward, "\n".join([*lines, f"The right answer was {self.right}."]))

    def _rule(self, missing: bool) -> str:
        """The one rule that would have helped most."""
        if not self.has_answer and self.searched >= self.task.searches:
            return LIMIT_RULE
        if not self.found:
            return TAG_RULE if self.task.calls == "tag" else SEARCH_RULE
        return NEXT_RULE if missing else READ_RULE

    def _by_tag(self, text: str) -> list[Message]:
        """The result of a search in a turn's text, which only the feedback tells how to write."""
        said = answer_part(text)
        query = _TAG.search(said)
        if query is None:
            self.answer = text
            return []
        self.tool_calls += 1
        try:
            return [{"role": "user", "content": self.search(query[1])}]
        except ToolError as error:
            return [{"role": "user", "content": self._failed(str(error))}]


def _problem(question: Question) -> Problem:
    digest = hashlib.sha256(question.text.encode()).hexdigest()[:12]
    data: Mapping[str, object] = {"answer": question.answer, "titles": list(question.titles)}
    return Problem(f"search-{digest}", ({"role": "user", "content": question.text},), data)
