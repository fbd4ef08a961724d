"""What a reflection LM is asked, and which of its replies are adopted."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fastslow.errors import ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.fast.proposers.base import Example, ProposalRequest
from fastslow.fast.proposers.reflection import Question, ReflectionProposer, Reply, read_reply
from fastslow.fast.proposers.reflection_prompt import RECIPES, clip, render_messages
from fastslow.types import Prompt

SPENT = Usage(calls=2, failures=1, input_tokens=10, output_tokens=5, usd=0.5)


def request(prompt: Prompt | None = None, examples: Sequence[Example] = ()) -> ProposalRequest:
    return ProposalRequest(prompt or Prompt.of("Help."), "system", tuple(examples), 1)


def rendered(asked: ProposalRequest, recipe: str = "light", chars: int = 10_000) -> str:
    messages = render_messages(asked, recipe=recipe, max_prompt_chars=500, example_chars=chars)
    assert [message["role"] for message in messages] == ["user"]
    return messages[0]["content"]


class Scripted:
    """A model that gives the replies it was given."""

    def __init__(self, *replies: Reply | ReflectionError) -> None:
        self.replies = list(replies)

    def answer(self, questions: Sequence[Question]) -> list[Reply | ReflectionError]:
        return [self.replies.pop(0) for _ in questions]


def test_the_question_holds_the_parent_the_examples_and_the_limit() -> None:
    text = rendered(request(examples=[Example("Why?", "Because.", 0.25, "Say more.")]))
    for part in ("Help.", "Question: Why?", "answer: Because.", "reward=0.25", "Say more.", "500", "<new_prompt>"):
        assert part in text


def test_the_worst_example_comes_first() -> None:
    text = rendered(request(examples=[Example("good", "a", 1.0, ""), Example("bad", "b", 0.0, "")]))
    assert text.index("Question: bad") < text.index("Question: good")


def test_the_limit_is_the_contexts_where_that_is_less_than_the_configs() -> None:
    asked = request()
    assert "at most 500 characters." in rendered(replace(asked, max_chars=500))
    text = rendered(replace(asked, max_chars=120))
    assert "at most 120 characters (the current one has 5): the model reads it together with the question" in text
    assert "500" not in text


@pytest.mark.parametrize("recipe", ["light", "full"])
def test_each_recipe_asks_for_its_own_kind_of_edit(recipe: str) -> None:
    other = "full" if recipe == "light" else "light"
    text = rendered(request(), recipe)
    assert RECIPES[recipe] in text
    assert RECIPES[other] not in text


def test_the_other_components_are_shown_and_one_is_asked_for() -> None:
    text = rendered(request(Prompt.from_dict({"system": "Help.", "tools": "Use a calculator."})))
    assert "named 'system'" in text
    assert "<part name='tools'>\nUse a calculator." in text


def test_clipping_keeps_the_beginning_and_the_end_and_says_how_much_is_gone() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("a" * 60 + "b" * 40 + "c" * 20, 30) == "a" * 20 + " [... 90 characters left out ...] " + "c" * 10


def test_long_examples_fit_what_they_are_given() -> None:
    examples = [Example("q" * 9000, "a" * 9000, 0.0, "f" * 9000) for _ in range(8)]
    bare = len(rendered(request()))
    # Three notes of at most 40 characters and the labels, about 120, come on top of each example's share.
    assert bare < len(rendered(request(examples=examples), chars=4000)) < bare + 4000 + 8 * 240


def test_an_answer_may_use_what_question_and_feedback_leave() -> None:
    text = rendered(request(examples=[Example("q?", "a" * 880, 0.0, "f.")]), chars=900)
    assert "a" * 880 in text


def test_an_episode_is_read_turn_by_turn_and_each_long_turn_is_clipped_in_its_middle() -> None:
    turns = (
        ("assistant", "a" * 5000),
        ("user", "Result: 5"),
        ("assistant", "b" * 4000),
        ("end", "cut off: too many turns"),
    )
    text = rendered(request(examples=[Example("q?", "b" * 4000, 0.0, "f.", turns)]), chars=900)
    parts = [
        "The model: aaa",
        "aaa\nThe environment: Result: 5\nThe model: bbb",
        "bbb\nThe end: cut off: too many turns",
    ]
    assert [text.count(part) for part in parts] == [1, 1, 1]
    assert text.count("characters left out") == 2
    assert text.count("a" * 10) * 10 > 300 and len(text) < len(rendered(request())) + 900 + 240
    assert "The model's answer" not in text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Why: x.\n<new_prompt>\nA.\n\nB.\n</new_prompt>\n", "A.\n\nB."),
        ("<think>maybe <new_prompt>draft</new_prompt></think><new_prompt>final</new_prompt>", "final"),
        ("<new_prompt>draft</new_prompt> better: <new_prompt>final</new_prompt>", "final"),
    ],
)
def test_the_last_whole_text_after_any_thoughts_is_taken(reply: str, text: str) -> None:
    assert read_reply(reply, "stop") == (text, None)
    assert read_reply(reply, None) == (text, None)


@pytest.mark.parametrize(
    ("reply", "finish", "words"),
    [
        ("", "stop", "empty"),
        ("   \n", "stop", "empty"),
        ("<think>all thought</think>", "stop", "empty"),
        ("<new_prompt></new_prompt>", "stop", "empty"),
        ("a new prompt", "stop", "has no"),
        ("<new_prompt>half", "stop", "never closed"),
        ("<new_prompt>whole</new_prompt> <new_prompt>ha", "stop", "never closed"),
        ("<new_prompt>whole</new_prompt>", "length", "truncated"),
        ("half a tho", "length", "truncated"),
        ("<new_prompt>whole</new_prompt>", "content_filter", "content_filter"),
    ],
)
def test_everything_else_is_refused(reply: str, finish: str, words: str) -> None:
    refusal = read_reply(reply, finish)[1]
    assert refusal is not None
    assert words in refusal


def test_refused_replies_keep_their_cost_and_their_text_and_errors_pass_through() -> None:
    down = ReflectionError("down", Usage(calls=3, failures=3))
    replies = [Reply("<new_prompt>A.</new_prompt>", "stop", SPENT), Reply("no", "stop", SPENT), down]
    proposer = ReflectionProposer(Scripted(*replies), recipe="light", max_prompt_chars=100)
    good, refused, failed = proposer.propose_batch([request(), request(), request()])
    assert not isinstance(good, ReflectionError)
    assert (good.text, good.usage) == ("A.", SPENT)
    assert isinstance(refused, ReflectionError)
    assert refused.usage == SPENT + Usage(refused=1)
    assert refused.text == "no"
    assert failed is down


@pytest.mark.parametrize(("text", "words"), [("x" * 101, "101 characters, more than"), (" Help. ", "unchanged")])
def test_texts_that_are_too_long_or_unchanged_are_refused(text: str, words: str) -> None:
    reply = Reply(f"<new_prompt>{text}</new_prompt>", "stop", SPENT)
    proposer = ReflectionProposer(Scripted(reply), recipe="light", max_prompt_chars=100)
    with pytest.raises(ReflectionError, match=words):
        proposer.propose(Prompt.of("Help."), "system", [], seed=1)
