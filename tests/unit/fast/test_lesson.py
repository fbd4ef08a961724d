"""The proposer without an LLM: which lesson it takes, and the three edits."""

import pytest

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Example
from fastslow.fast.proposers.lesson import REPLACE_PROBABILITY, LessonProposer, count_lessons
from fastslow.types import Prompt

BRACES = "Use braces."
SHORT = "Be short."


def failed(*lines: str) -> Example:
    return Example("q", "a", 0.0, "\n".join(lines))


def children(prompt: Prompt, examples: list[Example], seeds: int = 400) -> list[str]:
    proposer = LessonProposer()
    return [proposer.propose(prompt, "system", examples, seed=seed).text for seed in range(seeds)]


def test_lines_are_counted_once_an_example_and_only_in_failures() -> None:
    examples = [failed(BRACES, BRACES, SHORT), failed(BRACES), failed(SHORT), Example("q", "a", 1.0, "Well done.")]
    assert count_lessons(examples, known=[]) == {BRACES: 2, SHORT: 2}


def test_what_only_one_example_names_is_left_out_where_anything_comes_more_often() -> None:
    examples = [failed(BRACES, "The answer is 3."), failed(BRACES, "The answer is 4.")]
    assert count_lessons(examples, known=[]) == {BRACES: 2}
    assert count_lessons(examples[:1], known=[]) == {BRACES: 1, "The answer is 3.": 1}
    # One failure among several examples: nobody can tell its rule from its answer.
    assert count_lessons([examples[0], Example("q", "a", 1.0, "")], known=[]) == {}


@pytest.mark.parametrize(
    "line",
    [
        "correct: "
        "0", "short: 0.25", "accuracy = 3/4", "0", "reward: -1e-3", "passed 0 ", "unit tests: 75%", "ok: False",
        "The reference answer is yes.", "The correct answer is B.", "The answer was 'A', the correct one is 'B'.",
    ],
)  # fmt: skip
def test_a_bare_number_and_one_problems_answer_are_no_lessons(line: str) -> None:
    assert count_lessons([failed(line, BRACES), failed(line, BRACES)], known=[]) == {BRACES: 2}
    with pytest.raises(ReflectionError, match="names nothing"):
        LessonProposer().propose(Prompt.of("Help."), "system", [failed(line)] * 3, seed=0)


@pytest.mark.parametrize("line", ["Write 3 lines.", "Answer: a number, such as 3, alone.", "Use step 1: think."])
def test_a_rule_with_a_number_is_a_lesson(line: str) -> None:
    assert count_lessons([failed(line)], known=[]) == {line: 1}


def test_known_lines_are_ignored_whatever_their_blanks_case_and_full_stop() -> None:
    assert count_lessons([failed(BRACES), failed(BRACES)], known=["  use   BRACES"]) == {}


def test_a_lesson_is_added_or_takes_the_place_of_a_line_and_the_first_line_stays() -> None:
    parent = Prompt.of("Help.\nOld rule.")
    texts = children(parent, [failed(BRACES), failed(BRACES)])
    added, replaced = f"Help.\nOld rule.\n{BRACES}", f"Help.\n{BRACES}"
    assert set(texts) == {added, replaced}
    # 400 draws at 0.15: 60 expected, standard deviation 7.1
    assert abs(texts.count(replaced) - 400 * REPLACE_PROBABILITY) < 4 * 7.1


def test_the_seed_line_alone_is_never_replaced() -> None:
    assert set(children(Prompt.of("Help."), [failed(BRACES)], seeds=50)) == {f"Help.\n{BRACES}"}


def test_lessons_are_drawn_by_their_frequency() -> None:
    examples = [failed(BRACES, SHORT)] * 2 + [failed(BRACES)] * 4
    texts = children(Prompt.of("Help."), examples)
    # BRACES six times, SHORT twice: one draw in four. 100 expected of 400, standard deviation 8.7
    assert abs(sum(SHORT in text for text in texts) - 100) < 4 * 8.7


def test_with_nothing_to_learn_one_line_is_dropped_but_not_the_first() -> None:
    texts = set(children(Prompt.of("Help.\nA.\nB."), [failed("A.", "B.")], seeds=50))
    assert texts == {"Help.\nA.", "Help.\nB."}


def test_with_nothing_to_learn_and_nothing_to_drop_it_refuses() -> None:
    with pytest.raises(ReflectionError, match="names nothing") as caught:
        LessonProposer().propose(Prompt.of("Help."), "system", [Example("q", "a", 1.0, "")], seed=0)
    assert caught.value.usage == Usage(refused=1)


def test_a_prompt_that_grows_too_long_is_refused_with_its_text() -> None:
    proposer = LessonProposer(max_prompt_chars=10)
    with pytest.raises(ReflectionError, match="17 characters, more than 10") as caught:
        proposer.propose(Prompt.of("Help."), "system", [failed(BRACES)], seed=0)
    assert caught.value.text == f"Help.\n{BRACES}"
    assert caught.value.usage == Usage(refused=1)


def test_what_another_component_says_is_not_said_again() -> None:
    prompt = Prompt.from_dict({"system": "Help.", "tools": BRACES})
    proposal = LessonProposer().propose(prompt, "system", [failed(BRACES, SHORT), failed(BRACES, SHORT)], seed=0)
    assert proposal.text == f"Help.\n{SHORT}"


def test_the_same_seed_makes_the_same_edit() -> None:
    examples = [failed(BRACES, SHORT), failed(BRACES, SHORT)]
    assert children(Prompt.of("Help.\nA."), examples, 20) == children(Prompt.of("Help.\nA."), examples, 20)
