"""The multi-hop search task: a way to every answer, words for where it broke off, splits that share no page, limits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import TaskError
from fastslow.tasks import search
from fastslow.tasks.bm25 import Page, PageIndex
from fastslow.tasks.registry import build_task
from fastslow.tasks.search import SearchTask
from fastslow.tasks.settings import TaskConfig
from fastslow.tasks.tool_calls import write_call
from fastslow.testing.episodes import check_episodes
from fastslow.types import Problem, Score
from speaker import Speaker, roll

SIZES = {"train": 60, "validation": 20, "test": 20}


def made(**options: Any) -> SearchTask:
    task = build_task(TaskConfig(name="search", options={**SIZES, **options}))
    assert isinstance(task, SearchTask)
    return task


def call(query: str, tag: bool = False) -> str:
    return f"<search>{query}</search>" if tag else write_call("search", {"query": query})


def play(task: SearchTask, problem: Problem, texts: Sequence[str]) -> Score:
    episode = task.episode(problem, task.seed_prompt)
    episode.start()
    for text in texts:
        if not episode.step(text):
            break
    return episode.score()


@pytest.mark.parametrize("options", [{}, {"hops": 3, "distractors": 200}, {"hops": 4, "calls": "tag"}], ids=str)
def test_who_follows_the_pages_finds_every_answer(options: dict[str, Any]) -> None:
    task = made(**options)
    tag = options.get("calls") == "tag"
    read = 0
    for split in SIZES:
        for problem in task.problems(split):  # type: ignore[arg-type]
            episode = task.episode(problem, task.seed_prompt)
            said = [episode.step(call(title, tag))[0]["content"] for title in problem.data["titles"]]
            shown = next(line for line in said[-1].splitlines() if f"] {problem.data['titles'][-1]} |" in line)
            assert str(problem.data["answer"]) in shown
            assert not episode.step(f"It was in {problem.data['answer']}.")
            assert episode.score() == Score(1.0, "Correct.")
            alone = task.episode(problem, task.seed_prompt)
            alone.step(call(problem.messages[0]["content"], tag))
            read += problem.data["titles"][-1] in alone.found
    # The question's own words hardly ever find the page of the answer: that takes another hop.
    assert read <= 5
    check_episodes(task, plays=lambda p: [*(call(title, tag) for title in p.data["titles"]), f"{p.data['answer']:,}"])


def test_splits_share_no_page_of_any_question_and_another_training_size_changes_no_other() -> None:
    task, larger = made(), made(train=200)
    pages = {
        split: {title for problem in task.problems(split) for title in problem.data["titles"]}  # type: ignore[arg-type]
        for split in SIZES
    }
    assert not pages["train"] & pages["test"] and not pages["train"] & pages["validation"]
    assert not pages["test"] & pages["validation"]
    assert task.problems("test") == larger.problems("test")
    assert task.problems("validation") == larger.problems("validation")
    assert {p.id for p in task.problems("train")}.isdisjoint(p.id for p in made(seed=1).problems("train"))


def test_feedback_names_where_the_way_broke_off() -> None:
    task = made(hops=3, searches=4)
    problem = task.problems("train")[0]
    titles, right = problem.data["titles"], str(problem.data["answer"])
    said = [
        play(task, problem, texts).feedback.splitlines()
        for texts in (
            ["I do not know."],
            [call(titles[0]), "999999"],
            [*map(call, titles), "999999"],
            [call(titles[0])] * 6,
        )
    ]
    assert said[0][:2] == [search.SEARCH_RULE, search.NUMBER_RULE]
    assert said[1][0] == search.NEXT_RULE and titles[-1] in said[1][1] and said[1][1].startswith(f"Found: {titles[0]}")
    assert said[2] == [search.READ_RULE, f"The right answer was {right}."]
    assert said[3][0] == search.LIMIT_RULE
    assert play(made(calls="tag"), made(calls="tag").problems("train")[0], ["x"]).feedback.startswith(search.TAG_RULE)
    assert play(task, problem, [f"first {right}, then 5"]).reward == 0.0


def test_searches_are_limited_in_one_turn_as_over_several() -> None:
    task = made(searches=2)
    problem = task.problems("train")[0]
    episode: Any = task.episode(problem, task.seed_prompt)
    answers = [message["content"] for message in episode.step(call("town") * 3)]
    assert len(answers) == 3 and "No search is left" in answers[2] and answers[2].endswith(search.LEFT_RULE)
    assert episode.searched == 2
    assert not episode.step(call(problem.data["titles"][-1]))
    assert problem.data["titles"][-1] not in episode.found


def test_a_query_that_is_none_is_refused_in_words() -> None:
    for task in (made(), made(calls="tag")):
        episode: Any = task.episode(task.problems("train")[0], task.seed_prompt)
        for query in ("", "word " * 40, "x" * 5000):
            (answer,) = episode.step(call(query, task.calls == "tag"))
            assert "A query has 1 to 32 words" in answer["content"]
        assert len(episode.tool_errors) == 3 and episode.searched == 0
        (answer,) = episode.step(call("\ud800 zzzzqq", task.calls == "tag"))
        assert answer["content"] == search.NOTHING


def test_partial_pays_half_for_the_pages_that_were_found() -> None:
    task = made(partial=True)
    problem = task.problems("train")[0]
    assert play(task, problem, ["0"]).reward == 0.0
    assert play(task, problem, [call(problem.data["titles"][0]), "0"]).reward == 0.25
    assert play(task, problem, [*map(call, problem.data["titles"]), "0"]).reward == 0.5
    assert play(task, problem, [str(problem.data["answer"])]).reward == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hops": 5}, "hops 2 to 4"),
        ({"results": 0}, "results 1 to 20"),
        ({"searches": 0}, "searches >= 1"),
        ({"calls": "json"}, "task.options.calls: 'json' is unknown: take one of tools, tag"),
        ({"train": 50_000}, "ask for fewer"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        made(**options)


def test_an_index_that_breaks_masks_the_rollout() -> None:
    task = made()
    task.index = None  # type: ignore[assignment]
    ((rollout,),) = roll(Speaker(call("town")), task)
    assert rollout.reward is None and rollout.end == "failed"


def test_an_index_in_memory_finds_what_the_one_on_disk_finds(tmp_path: Path) -> None:
    pages = [Page(f"Page {i}", f"About topic{i % 7} and thing{i}.") for i in range(30)]
    corpus = tmp_path / "pages.jsonl"
    corpus.write_text("".join(json.dumps({"title": page.title, "text": page.text}) + "\n" for page in pages))
    disk, memory = PageIndex(str(corpus), str(tmp_path / "index")), PageIndex.of(pages)
    queries = ["topic3", "thing12 topic5", "nothing at all"]
    assert memory.search(queries, 4) == disk.search(queries, 4)
    assert memory[3] == disk[3] == pages[3] and len(memory) == len(disk) == 30
