"""What a reflection LM is asked, and which of its replies are adopted."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError, ReflectionError
from fastslow.fast.optimiser import Reflection, Usage
from fastslow.fast.proposers.base import Attempt, Example, ProposalRequest
from fastslow.fast.proposers.clipping import clip, clip_answer
from fastslow.fast.proposers.reflection import Question, ReflectionProposer, Reply, read_reply
from fastslow.fast.proposers.reflection_prompt import FIELDS, RECIPES, Wording, render_messages
from fastslow.fast.proposers.registry import check_proposer
from fastslow.fast.proposers.settings import proposer_config
from fastslow.types import Prompt

SPENT = Usage(calls=2, failures=1, input_tokens=10, output_tokens=5, usd=0.5)


def request(prompt: Prompt | None = None, examples: Sequence[Example] = ()) -> ProposalRequest:
    return ProposalRequest(prompt or Prompt.of("Help."), "system", tuple(examples), 1)


def rendered(asked: ProposalRequest, recipe: str = "light", chars: int = 10_000) -> str:
    messages = render_messages(asked, Wording(recipe, 500), chars)
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
    proposer = ReflectionProposer(Scripted(*replies), Wording(max_prompt_chars=100))
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
    proposer = ReflectionProposer(Scripted(reply), Wording(max_prompt_chars=100))
    with pytest.raises(ReflectionError, match=words):
        proposer.propose(Prompt.of("Help."), "system", [], seed=1)


# -- the wording -------------------------------------------------------------------------------------------------------


def asked_with(wording: Wording, asked: ProposalRequest | None = None, chars: int = 10_000) -> str:
    return render_messages(asked or request(), wording, chars)[0]["content"]


def test_the_built_in_wording_asks_for_what_gepas_does() -> None:
    text = asked_with(Wording())
    for part in (
        "in which form the input comes",
        "Facts of the domain",
        "A strategy",
        "carries over to other problems",
    ):
        assert part in text
    assert "{{" not in text
    assert "\n\n\n" not in text, "a field without anything in it leaves no hole"


def test_the_background_stands_in_every_request_as_it_is() -> None:
    assert "What is known of the task:\nBoxes are {{heavy}}." in asked_with(Wording(background="Boxes are {{heavy}}."))
    assert "What is known" not in asked_with(Wording())


def test_reference_answers_are_shown_where_they_are_asked_for() -> None:
    asked = request(examples=[Example("q?", "4", 0.0, "f.", reference="five")])
    assert "Reference answer: five" in asked_with(Wording(references=True), asked)
    assert "five" not in asked_with(Wording(), asked)


def test_refused_attempts_are_shown_the_newest_of_them() -> None:
    tried = tuple(Attempt(f"+ line {number}", f"reason {number}") for number in range(4))
    asked = replace(request(), attempts=tried)
    text = asked_with(Wording(attempts=2), asked)
    assert "+ line 2\nRefused: reason 2" in text
    assert "+ line 3\nRefused: reason 3" in text
    assert "line 1" not in text
    assert "refused. Lines with +" not in asked_with(Wording(), asked)


def test_long_thoughts_are_clipped_in_their_middle_and_the_answer_stays() -> None:
    answer = f"<think>{'begin ' * 50}{'thought ' * 4000}{'end ' * 50}</think>The answer is 42 apples."
    text = rendered(request(examples=[Example("How many?", answer, 0.0, "Say the number alone.")]), chars=1500)
    assert "</think>The answer is 42 apples." in text
    assert "Say the number alone." in text
    assert "characters left out" in text
    assert "<think>begin" in text
    assert len(text) < len(rendered(request())) + 1500 + 240


def test_an_answer_that_is_long_itself_leaves_room_for_its_thoughts() -> None:
    text = clip_answer(f"{'t' * 5000}</think>{'a' * 5000}", 1000)
    assert text.count("characters left out") == 2
    assert 740 <= text.count("a") <= 800 and 200 <= text.count("t") <= 280


def test_short_examples_leave_their_room_to_long_ones_up_to_the_limit_of_one() -> None:
    examples = [Example("q?", "x" * 900, 0.0, "f."), *[Example("q?", "y", 0.5, "f.")] * 7]
    assert "x" * 900 in asked_with(Wording(), request(examples=examples), 1000)
    assert "x" * 400 not in asked_with(Wording(example_chars=500), request(examples=examples), 1000)


# -- a template of somebody's own --------------------------------------------------------------------------------------

WHOLE = "Mend this: {{ current_prompt }}\n\n{{background}}\n\nSeen: {{examples}}\n\n{{answer_format}}"


def config_with(path: Path, template: str, **changes: Any) -> Any:
    path.write_text(template, encoding="utf-8")
    return proposer_config(kind="openai", model="x", base_url="http://127.0.0.1:1/v1", template=str(path), **changes)


def test_a_template_says_it_in_its_own_words(tmp_path: Path) -> None:
    config = config_with(tmp_path / "t.txt", WHOLE, background="Boxes.")
    check_proposer(config)
    asked = request(examples=[Example("Why?", "{{recipe}}", 0.0, "")])
    text = asked_with(Wording.of(config), asked)
    assert text.startswith("Mend this: Help.\n\nWhat is known of the task:\nBoxes.\n\nSeen: <example number=1")
    assert "The model's answer: {{recipe}}" in text, "what a model wrote is no field"


@pytest.mark.parametrize(
    ("template", "changes", "words"),
    [
        (
            WHOLE + "{{exmaples}} {{curr_param}}",
            {},
            r"has unknown fields: 'exmaples', 'curr_param'\. Known: component, current",
        ),
        ("{{current_prompt}}", {}, r"lacks \{\{examples\}\}, \{\{answer_format\}\}: write them"),
        ("{{current_prompt}} {{examples}} end with <new_prompt>", {}, r"lacks \{\{answer_format\}\}: write it"),
        (WHOLE.replace("{{background}}", ""), {"background": "Boxes."}, r"lacks \{\{background\}\}"),
        (WHOLE, {"refused_attempts": 2}, r"lacks \{\{refused_attempts\}\}"),
    ],
)
def test_fields_that_are_unknown_or_missing_are_named(
    tmp_path: Path, template: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=r"fast\.proposer\.template: '.*t\.txt' " + words):
        check_proposer(config_with(tmp_path / "t.txt", template, **changes))


def test_the_form_of_the_reply_may_be_asked_for_in_other_words(tmp_path: Path) -> None:
    template = "{{current_prompt}} {{examples}} Write <new_prompt>the text</new_prompt>."
    check_proposer(config_with(tmp_path / "t.txt", template))


def test_a_template_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = config_with(tmp_path / "t.txt", WHOLE)
    (tmp_path / "t.txt").unlink()
    with pytest.raises(ConfigError, match=r"fast\.proposer\.template: '.*t\.txt' cannot be read"):
        check_proposer(config)
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe{{examples}}")
    with pytest.raises(ConfigError, match=r"cannot be read"):
        check_proposer(config)


def test_the_template_of_the_docs_is_one_and_their_table_has_every_field(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "prompts.md").read_text(encoding="utf-8")
    template = re.search(r"```\n(You are an editor.*?)```", page, re.DOTALL)
    assert template is not None
    check_proposer(config_with(tmp_path / "t.txt", template[1], background="Orders.", refused_attempts=2))
    assert set(re.findall(r"^\| `\{\{(\w+)\}\}` \|", page, re.MULTILINE)) == set(FIELDS)


# -- the record --------------------------------------------------------------------------------------------------------


def test_what_was_asked_and_said_is_kept_without_keys_and_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOTHER_SECRET", "hunter2-hunter2-hunter2")
    key = "sk-key-0123456789abcdef"
    asked = request(examples=[Example("q?", f"I saw {key} and hunter2-hunter2-hunter2", 0.0, "x" * 3000)])

    class Model:
        def answer(self, questions: Sequence[Question]) -> list[Reply | ReflectionError]:
            sent = [question.messages(9000)[0]["content"] for question in questions]
            assert key in sent[0], "only the record is without it: this test shows nothing otherwise"
            reply = f"<think>secret thoughts</think>It fails: {key}.<new_prompt>A.</new_prompt>"
            return [Reply(reply, "stop", SPENT), Reply("no tags", "stop", SPENT), ReflectionError("down", SPENT)]

    proposer = ReflectionProposer(Model(), Wording(), log_chars=1500, api_key=key)
    good, refused, failed = (outcome.reflection for outcome in proposer.propose_batch([asked, request(), request()]))
    assert isinstance(good, Reflection) and isinstance(refused, Reflection) and isinstance(failed, Reflection)
    assert (good.outcome, good.diagnosis, good.usage) == ("proposed", "It fails: [secret].", SPENT)
    assert key not in good.request and "hunter2" not in good.request
    assert 1500 <= len(good.request) < 1560
    assert (refused.outcome, refused.diagnosis) == ("refused", "no tags")
    assert "has no <new_prompt>" in refused.reason
    assert (failed.outcome, failed.reason, failed.diagnosis) == ("failed", "down", "")
    silent = ReflectionProposer(Model(), Wording(), api_key=key).propose_batch([asked, request(), request()])
    assert [outcome.reflection for outcome in silent] == [None, None, None]
