"""Any answer of a reflection server, and any text that a model writes: a proposal, or a refusal in words."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fastslow.errors import ReflectionError
from fastslow.fast.proposers.base import Proposal, ProposalRequest, propose_all
from fastslow.fast.proposers.reflection import Question, ReflectionProposer, Reply
from fastslow.fast.proposers.reflection_prompt import Wording
from fastslow.fast.proposers.replies import BrokenReply, ReplyReader
from fastslow.fast.proposers.settings import OpenAIConfig, proposer_config
from fastslow.tasks.tool_calls import Call, Malformed, read_calls, write_call
from fastslow.tasks.tools import ToolEpisode
from fastslow.text import control_characters
from fastslow.types import Message, Prompt, Score

from fuzz_values import FUZZ, TEXTS, VALUES, changed_tree

WHOLE = {
    "id": "x",
    "choices": [
        {"message": {"role": "assistant", "content": "<new_prompt>Be brief.</new_prompt>"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
CONFIG = proposer_config(kind="openai", model="m", base_url="http://h/v1")
SECRET = "sk-a-long-secret-of-the-environment"


class Anyone:
    """A reflection model that gives what it was given."""

    def __init__(self, response: Any) -> None:
        self.response = response

    def answer(self, questions: Any) -> list[Reply | ReflectionError]:
        assert isinstance(CONFIG, OpenAIConfig)
        for question in questions:
            assert isinstance(question, Question)
        try:
            return [ReplyReader(CONFIG, SECRET, [SECRET]).read(self.response, lambda: None)] * len(questions)
        except BrokenReply as error:
            return [ReflectionError(str(error))] * len(questions)


def propose(response: Any) -> None:
    parent = Prompt.of("Answer.")
    proposer = ReflectionProposer(Anyone(response), Wording(max_prompt_chars=100))
    (outcome,) = propose_all(proposer, [ProposalRequest(parent, "system", (), 0)])
    if isinstance(outcome, Proposal):
        assert 0 < len(outcome.text) <= 100
        assert not control_characters(outcome.text)
        assert SECRET not in outcome.text
        assert outcome.usage.input_tokens >= 0
        assert outcome.usage.usd is None or outcome.usage.usd >= 0
    else:
        assert str(outcome)
        assert SECRET not in str(outcome)


@FUZZ
@given(changed_tree(WHOLE))
def test_an_answer_that_was_changed(response: Any) -> None:
    propose(response)


@FUZZ
@given(VALUES)
def test_any_answer(response: Any) -> None:
    propose(response)


@FUZZ
@given(
    st.lists(
        st.one_of(TEXTS, st.sampled_from(["<new_prompt>", "</new_prompt>", "</think>", "<think>", "\r\n", SECRET]))
    )
)
def test_any_text_as_a_reply(parts: list[str]) -> None:
    message = {"content": "".join(parts)}
    propose({"choices": [{"message": message, "finish_reason": "stop"}]})


class Tools(ToolEpisode):
    """Two tools."""

    def __init__(self) -> None:
        super().__init__([add, shout])

    def start(self) -> list[Message]:
        return []

    def score(self) -> Score:
        return Score(0.0)


def add(a: int, b: int = 0) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


def shout(text: str) -> str:
    """Say it loud.

    Args:
        text: what to say
    """
    return text.upper()


MARKS = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
    "<think>",
    "</think>",
    "{",
    "}",
    "[",
    "]",
]
BITS = [
    *MARKS,
    '"name"',
    '"arguments"',
    '"parameters"',
    ":",
    ",",
    '"add"',
    '{"name": "add", "arguments": {"a": 1}}',
    "null",
]
EPISODE = Tools()


@FUZZ
@given(st.lists(st.one_of(TEXTS, st.sampled_from(BITS)), max_size=12))
def test_any_text_as_tool_calls(parts: list[str]) -> None:
    text = "".join(parts)
    for call in read_calls(text):
        assert isinstance(call, Call | Malformed)
    for message in EPISODE.step(text):
        assert isinstance(message["content"], str)


@FUZZ
@given(
    st.one_of(st.sampled_from(["add", "shout"]), TEXTS),
    st.dictionaries(st.one_of(TEXTS, st.sampled_from("ab")), VALUES),
)
def test_any_arguments(name: str, arguments: dict[str, Any]) -> None:
    for message in EPISODE.step(write_call(name, arguments)):
        assert isinstance(message["content"], str)
