"""HoVer-hard: given a claim and what a first search found, write the follow-up query that finds the missing pages.

The paper (arXiv 2605.12484) gives the frame: one follow-up query, BM25 over Wikipedia abstracts, the reward from the
gold pages that are retrieved after the second hop. Ours, where it is silent:
- "Hard" are the claims of three hops, less those whose first hop finds every gold page, which reward any query.
- The first hop's query is the claim itself, so that the policy's part is a single turn: no summaries, no third hop,
  which the HoVer program of LangProBe and GEPA has.
- Both hops count. The reward is 1 where together they found all gold pages, else 0; `partial` gives the share found.
- Of the claims made of one HotpotQA question the first is taken, so that no split knows another's pages by heart.
- A query has at most 64 words, and a page is shown up to 1,000 characters.
- Titles are compared without case, accents' encoding and HTML escapes.
"""

import hashlib
import html
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.errors import ConfigError, InfrastructureError, TaskError
from fastslow.tasks.base import ScoringFailure, Split, Task, failure_of
from fastslow.tasks.bm25 import PageIndex, import_bm25s
from fastslow.tasks.formats import FORMATS, shorten
from fastslow.tasks.records import cut
from fastslow.tasks.sources import read_source
from fastslow.tasks.tables import Row
from fastslow.types import Problem, Score

MAX_QUERY_WORDS = 64
SHOWN_CHARS = 1000
LENGTH_RULE = f"Write one query of at most {MAX_QUERY_WORDS} words."
MISSING_RULE = "Name in the query what the missing pages are about; do not repeat what was found already."
QUESTION = "Claim: {claim}\n\nPages that a first search found:\n\n{pages}"
FIELDS = ("claim", "supporting_facts", "num_hops", "hpqa_id")


class HoverTask(Task):
    """HoVer: write one follow-up search query, so that BM25 over Wikipedia finds all pages that a claim rests on."""

    name = "hover"

    def __init__(
        self,
        corpus: str,
        index: str,
        claims: str = "vincentkoc/hover-parquet",
        splits: dict[str, str | int] | None = None,
        cut_from: str = "train",
        revision: str | None = None,
        hops: int = 3,
        pages: int = 7,
        partial: bool = False,
        seed: int = 0,
    ) -> None:
        if pages < 1:
            raise ConfigError(f"task.options.pages: {pages}: a search returns at least one page")
        import_bm25s()  # what is missing is told before data is read
        self.pages, self.partial = pages, partial
        sizes = splits or {"train": "rest", "validation": 200, "test": 200}
        rows = read_source(claims, sizes, cut_from, None, revision)
        if isinstance(rows, dict):
            raise ConfigError("task.options.splits: give sizes, such as {train: rest, validation: 200, test: 200}")
        chosen = _choose(rows, hops)
        self._index = PageIndex(corpus, index)
        first = first_hop(self._index, Path(index), [claim for claim, _ in chosen], pages)
        made = [self._problem(claim, gold, found) for (claim, gold), found in zip(chosen, first, strict=True)]
        hard = [problem for problem in made if problem.data["missing"]]
        self._splits = cut(hard, sizes, seed)

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, always the same ones in the same order."""
        return self._splits[split]

    def reference(self, problem: Problem) -> str | None:
        """The pages that have to be found."""
        return ", ".join(problem.data["gold"])

    def score(self, problem: Problem, completion: str) -> Score:
        """As `score_batch`, for one rollout. Raises InfrastructureError where the index breaks."""
        (score,) = self.score_batch([problem], [completion])
        if isinstance(score, ScoringFailure):
            raise InfrastructureError(score.reason)
        return score

    def score_batch(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score | ScoringFailure]:
        """One search for all queries of the batch. Where the index breaks, its rollouts are masked, never scored 0."""
        queries = [read_query(completion) for completion in completions]
        asked = [query for query in queries if not isinstance(query, Score)]
        try:
            titles = iter([[self._index[n].title for n in found] for found in self._index.search(asked, self.pages)])
        except Exception as error:  # a query is plain words by now: what breaks is the index
            return [query if isinstance(query, Score) else failure_of(error) for query in queries]
        return [
            query if isinstance(query, Score) else self._judge(problem, query, next(titles))
            for problem, query in zip(problems, queries, strict=True)
        ]

    def _judge(self, problem: Problem, query: str, titles: Sequence[str]) -> Score:
        gold, retrieved = problem.data["gold"], {_key(title) for title in titles}
        missing = [title for title in problem.data["missing"] if _key(title) not in retrieved]
        if not missing:
            return Score(1.0, "Correct.")
        found = [title for title in gold if title not in missing]
        lines = [
            MISSING_RULE,
            f"Found: {', '.join(found) or 'none'}. Still missing: {', '.join(missing)}.",
            f"The query {shorten(query)!r} retrieved: {shorten(', '.join(titles), 400) or 'nothing'}.",
        ]
        return Score(len(found) / len(gold) if self.partial else 0.0, "\n".join(lines))

    def _problem(self, claim: str, gold: list[str], found: Sequence[int]) -> Problem:
        pages = [self._index[number] for number in found]
        known = {_key(page.title) for page in pages}
        shown = [f"[{n}] {page.title} | {shorten(page.text, SHOWN_CHARS)}" for n, page in enumerate(pages, start=1)]
        message = {"role": "user", "content": QUESTION.format(claim=claim, pages="\n".join(shown) or "none")}
        data = {"gold": gold, "missing": [title for title in gold if _key(title) not in known]}
        return Problem(f"hover-{_digest(claim)[:12]}", (message,), data)


def read_query(completion: str) -> str | Score:
    """The query that a completion gives, or the score of one that gives none."""
    answer = FORMATS["tags"].extract(completion) or ""
    words = answer.encode("utf-8", "ignore").decode().split()
    if not words:
        return Score(0.0, FORMATS["tags"].rule)
    if len(words) > MAX_QUERY_WORDS or len(answer) > 20 * MAX_QUERY_WORDS:
        return Score(0.0, LENGTH_RULE)
    return " ".join(words)


def first_hop(index: PageIndex, directory: Path, claims: Sequence[str], pages: int) -> list[list[int]]:
    """What the claims themselves find. It is kept beside the index: a search over all claims takes minutes."""
    path = directory / f"first_hop_{_digest(json.dumps([pages, *claims]))[:16]}.json"
    if path.is_file():
        found: list[list[int]] = json.loads(path.read_text(encoding="utf-8"))
        return found
    found = index.search(claims, pages)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(found), encoding="utf-8")
    os.replace(partial, path)
    return found


def _choose(rows: Sequence[Row], hops: int) -> list[tuple[str, list[str]]]:
    """Claim and gold titles of the records with so many hops, the first one of each HotpotQA question."""
    questions: set[Any] = set()
    chosen: dict[str, list[str]] = {}
    for where, record in rows:
        missing = [field for field in FIELDS if field not in record]
        if missing:
            raise TaskError(f"{where}: has no {missing[0]!r}: a record of HoVer has {', '.join(FIELDS)}")
        for field in ("claim", "hpqa_id"):
            if not isinstance(record[field], str) or not record[field].strip():
                raise TaskError(f"{where}: {field} must hold a text, not {record[field]!r}")
        claim, question = record["claim"].strip(), record["hpqa_id"]
        if record["num_hops"] != hops or question in questions or claim in chosen:
            continue
        questions.add(question)
        chosen[claim] = _gold_titles(where, record["supporting_facts"])
    if not chosen:
        raise TaskError(f"task.options.hops: no claim has {hops} hops: HoVer has claims of 2, 3 and 4")
    return list(chosen.items())


def _gold_titles(where: str, facts: Any) -> list[str]:
    """Titles in order, each once. A fact is {key: title, value: sentence}, or [title, sentence] as in the release."""
    try:
        titles = [fact["key"] if isinstance(fact, Mapping) else fact[0] for fact in facts]
    except (TypeError, KeyError, IndexError) as error:
        raise TaskError(
            f"{where}: supporting_facts must hold {{key: title, value: sentence}}, not {facts!r}"
        ) from error
    if not titles or not all(isinstance(title, str) and title.strip() for title in titles):
        raise TaskError(f"{where}: has no supporting facts: HoVer's test split has none, take train or validation")
    return list(dict.fromkeys(titles))


def _key(title: str) -> str:
    return " ".join(unicodedata.normalize("NFD", html.unescape(title)).casefold().split())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
