"""Tool calls of every form, malformed ones, tools that fail, and arithmetic that must not hang."""

import time

import pytest

from fastslow.errors import TaskError
from fastslow.tasks.calculator import calculate
from fastslow.tasks.tool_calls import Call, Malformed, read_calls, tell_tools, without_tools, write_call
from fastslow.tasks.tools import ToolEpisode, schema_of
from fastslow.types import Message, Score

ADD = Call("add", {"a": 1, "b": 2})


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    if a > 100:
        raise ValueError("numbers up to 100")
    if a < 0:
        raise OSError("the server is down")
    return a + b


class Adding(ToolEpisode):
    def start(self) -> list[Message]:
        return [{"role": "user", "content": "Add."}]

    def score(self) -> Score:
        return Score(float(self.answer == "3"), "")


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>',
        'I call it.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}',
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>',
        '<think>{"name": "no", "arguments": {}}</think>{"name": "add", "parameters": {"a": 1, "b": 2}}',
        '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}',
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}}]',
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "VvvODy9mT"}]',
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}',
        write_call("add", {"a": 1, "b": 2}),
    ],
)
def test_calls_are_read_in_every_form(text: str) -> None:
    assert read_calls(text) == [ADD]


def test_several_calls_are_read_in_order_and_prose_makes_none() -> None:
    one = write_call("add", {"a": 1, "b": 2})
    assert read_calls(one + "\n" + write_call("sub", {})) == [ADD, Call("sub", {})]
    for answer in ("", "The sum is 3.", '{"answer": 3}', "{" * 5000, '{"name": "Ada"}', "[1, 2]", "<think>" + one):
        assert read_calls(answer) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("<tool_call>add(1, 2)</tool_call>", "not valid JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>', "not valid JSON"),
        ('<tool_call>{"arguments": {}}</tool_call>', "no `name`"),
        ('<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "JSON object"),
        ('<tool_call>{"name": "add", "arguments": "a=1"}</tool_call>', "text that is not valid JSON"),
        ("<tool_call>3</tool_call>", "JSON object"),
        ("<tool_call></tool_call>", "not valid JSON"),
        ("[TOOL_CALLS]nonsense", "not valid JSON"),
        ("<tool_call>" + "[" * 100_000, "JSON"),
    ],
)
def test_a_malformed_call_is_told_what_is_wrong_and_how_it_is_written(text: str, word: str) -> None:
    (call,) = read_calls(text)
    assert isinstance(call, Malformed)
    assert word in call.problem and call.problem.endswith("</tool_call>")


def test_a_tool_episode_goes_on_until_a_turn_without_a_call() -> None:
    episode = Adding([add])
    assert episode.step(write_call("add", {"a": 1, "b": 2})) == [{"role": "tool", "name": "add", "content": "3"}]
    assert episode.step("3") == []
    assert episode.score().reward == 1.0
    assert (episode.tool_calls, episode.tool_errors) == (1, [])


def test_what_the_model_wrote_is_answered_in_words_and_what_breaks_raises() -> None:
    episode = Adding([add])
    texts = [
        ("<tool_call>x</tool_call>", "could not be read"),
        (write_call("sub", {}), "There is no tool 'sub'. The tools are: add."),
        (write_call("add", {"a": 1}), "do not fit: missing a required argument: 'b'"),
        (write_call("add", {"a": 1, "b": 2, "c": 3}), "do not fit"),
        (write_call("add", {"a": 1000, "b": 2}), "add failed: numbers up to 100."),
        (write_call("add", {"a": "x", "b": 2}), "add failed"),
    ]
    for text, words in texts:
        (message,) = episode.step(text)
        assert words in message["content"]
    assert episode.tool_calls == len(episode.tool_errors) == len(texts)
    with pytest.raises(OSError, match="the server is down"):
        episode.step(write_call("add", {"a": -1, "b": 2}))


def test_a_schema_comes_from_hints_and_docstring_and_takes_another_description() -> None:
    function = schema_of(add)["function"]
    assert function["name"] == "add" and function["description"] == "Add two numbers."
    assert function["parameters"]["properties"]["a"] == {"type": "integer", "description": "The first."}
    assert schema_of(add, "Sums.")["function"]["description"] == "Sums."

    def bare(a):  # type: ignore[no-untyped-def]
        return a

    with pytest.raises(TaskError, match=r"tool 'bare'.*type hints"):
        schema_of(bare)


def test_tools_are_told_in_words_where_there_is_no_other_way() -> None:
    messages: list[Message] = [{"role": "system", "content": "Help."}, {"role": "user", "content": "1 + 2?"}]
    told = tell_tools(messages, [schema_of(add)])
    assert (
        told[0]["content"].startswith("Help.\n\nYou can call these tools:\n{") and "<tool_call>" in told[0]["content"]
    )
    assert [m["role"] for m in tell_tools(messages[1:], [schema_of(add)])] == ["system", "user"]
    assert tell_tools(messages, []) == messages
    assert without_tools([{"role": "tool", "content": "3"}]) == [{"role": "user", "content": "Result of the tool: 3"}]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("494 * 964", "476216"), ("(1 + 2) * -3", "-9"), ("2 ** 10", "1024"), ("2^3", "8"), ("7 / 2", "3.5"),
        ("8 / 2", "4"),
        ("7 // 2", "3"), ("7 % 4", "3"), ("3 \u00d7 4", "12"), ("1e3", "1000"), (" 5 ", "5"), ("2 ** -1", "0.5"),
        ("10 ** 30", "1" + "0" * 30),
    ],
)  # fmt: skip
def test_arithmetic_is_worked_out(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9", "9**9**9**9", "2**100000", "1 / 0", "1 % 0", "", "x", "__import__('os')", "abs(1)", "True",
        "'a' * 3",
        "1, 2",
        "(-8) ** 0.5", "1e308 * 10 ** 400", "1" * 301, "(" * 200, "-" * 290 + "1", "[1]", "1 if 1 else 2", "1j", "\0",
        "1e999 // 1",
        "0 ** -1", "1 and 2", "10.0 ** 400", "1 << 9", "lambda: 1", "f'{1}'", "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_small_arithmetic_is_refused_at_once(expression: str) -> None:
    start = time.perf_counter()
    try:
        value = calculate(expression)
    except ValueError as error:
        assert str(error)
    else:
        # A tower of signs is arithmetic.
        assert value in ("1", "-1")
    assert time.perf_counter() - start < 0.5
