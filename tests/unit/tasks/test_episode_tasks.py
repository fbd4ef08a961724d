"""The built-in tasks of several turns: exact rewards, words that teach, difficulty."""

from typing import Any

import pytest

from fastslow.errors import TaskError
from fastslow.tasks.base import EpisodeTask, check_splits
from fastslow.tasks.guess import FORM_RULE, MIDDLE_RULE, RANGE_RULE, GuessTask
from fastslow.tasks.tool_protocol import FORMS, ToolProtocolTask
from fastslow.testing.episodes import check_episodes
from fastslow.testing.tasks import check_task
from fastslow.types import Problem, Score

SIZES = {"train": 8, "validation": 3, "test": 3}


def play(task: EpisodeTask, *texts: str, number: int = 0) -> tuple[list[str], Score]:
    episode = task.episode(task.problems("train")[number], task.seed_prompt)
    episode.start()
    said = []
    for text in texts:
        answer = episode.step(text)
        said += [message["content"] for message in answer]
        if not answer:
            break
    return said, episode.score()


def bisect(problem: Problem) -> list[str]:
    """Halve what is left until the number is found."""
    low, high, number = (problem.data[name] for name in ("low", "high", "number"))
    guesses = [(low + high) // 2]
    while guesses[-1] != number:
        low, high = (guesses[-1] + 1, high) if guesses[-1] < number else (low, guesses[-1] - 1)
        guesses.append((low + high) // 2)
    return [str(guess) for guess in guesses]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operands", [2, 4])
def test_tool_protocol_keeps_the_contract_in_every_form(form: str, operands: int) -> None:
    def plays(problem: Problem) -> list[str]:
        return [FORMS[form].write(problem.data["expression"]), f"It is {problem.data['answer']}."]

    options = {"form": form, "operands": operands}
    check_task(ToolProtocolTask(**SIZES, **options), again=ToolProtocolTask(**SIZES, **options))
    check_episodes(ToolProtocolTask(**SIZES, **options), plays=plays)


def test_the_form_of_a_call_is_named_by_the_feedback_alone() -> None:
    task = ToolProtocolTask(**SIZES)
    problem = task.problems("train")[0]
    rule = FORMS["json"].rule
    assert "{" not in task.seed_prompt.system + problem.messages[0]["content"]
    said, score = play(task, "It is 12.")
    assert (said, score.reward) == ([], 0.0)
    assert score.feedback.splitlines()[0] == rule
    said, score = play(task, '{"tool": "abacus", "input": "1"}', '{"tool": "calculator"}', "I do not know.")
    assert "there is no tool 'abacus'" in said[0] and "no text `input`" in said[1]
    assert score.feedback.splitlines()[:2] == [rule, "The answer must be a number."]
    said, score = play(task, FORMS["json"].write("9**9**9"), FORMS["json"].write("2 + 2"), "4")
    assert "too large" in said[0] and said[1].startswith("The result is 4.") and rule not in score.feedback


def test_an_answer_is_its_last_number_whatever_stands_around_it() -> None:
    task = ToolProtocolTask(**SIZES)
    answer = task.problems("train")[0].data["answer"]
    for text in (str(answer), f"{answer:,}", f"<think>5</think>The product is **{answer}**.", f"{answer}.0"):
        assert play(task, text)[1].reward == 1.0
    for text in (str(answer + 1), f"{answer} or 5", f"-{answer}", ""):
        assert play(task, text)[1].reward == 0.0


def test_endless_calls_end() -> None:
    task = ToolProtocolTask(**SIZES, max_calls=2)
    said, score = play(task, *[FORMS["json"].write("1 + 1")] * 9)
    assert (len(said), score.reward) == (2, 0.0)
    assert "no answer after 3 calls" in score.feedback


def test_a_longer_training_split_changes_no_other_problem() -> None:
    small, large = ToolProtocolTask(**SIZES), ToolProtocolTask(**{**SIZES, "train": 50})
    assert small.problems("test") == large.problems("test")
    assert list(small.problems("train")) == list(large.problems("train"))[:8]
    assert check_splits(large)["train"] == 50


@pytest.mark.parametrize("options", [{}, {"numbers": 7}, {"numbers": 1000, "graded": True}])
def test_guess_keeps_the_contract_and_halving_wins(options: dict[str, Any]) -> None:
    check_task(GuessTask(**SIZES, **options), again=GuessTask(**SIZES, **options))
    check_episodes(GuessTask(**SIZES, **options), plays=bisect)


def test_guess_says_higher_or_lower_and_which_rule_would_have_helped() -> None:
    task = GuessTask(**SIZES, tries=3)
    data = task.problems("train")[0].data
    low, number = data["low"], data["number"]
    said, score = play(task, "no idea", "1 2", str(low - 5))
    assert said == [f"{FORM_RULE} Tries left: 2.", f"{FORM_RULE} Tries left: 1."]
    assert score == Score(0.0, f"{FORM_RULE}\n{RANGE_RULE}\nThe number was {number}.")
    wrong = number + 1 if number < data["high"] else number - 1
    said, score = play(task, str(wrong), str(number))
    assert said == [f"{'Lower' if wrong > number else 'Higher'}. Tries left: 2."]
    assert score.reward == 1.0
    _, score = play(task, *[str(low)] * 3)
    assert MIDDLE_RULE in score.feedback or number == low


def test_a_graded_game_pays_for_what_was_found_out() -> None:
    graded = GuessTask(**SIZES, tries=2, graded=True)
    data = graded.problems("train")[0].data
    middle = (data["low"] + data["high"]) // 2
    assert play(graded, "x", "x")[1].reward == 0.0
    assert 0.1 < play(graded, str(middle), "x")[1].reward < 0.5
    assert play(GuessTask(**SIZES, tries=2), str(middle), "x")[1].reward in (0.0, 1.0)


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (ToolProtocolTask, {"digits": 0}, "digits 1 to 12"),
        (ToolProtocolTask, {"form": "xml"}, "form: 'xml' is unknown: take one of json"),
        (ToolProtocolTask, {"digits": 1, "train": 1000}, "raise digits"),
        (GuessTask, {"numbers": 1}, "numbers 2 to"),
        (GuessTask, {"train": 10**6}, "too many"),
    ],
)
def test_options_that_cannot_be_are_refused(task: type[EpisodeTask], options: dict[str, object], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        task(**options)
