"""Kept rollouts as conversations: who spoke, which tools were called, and what is marked."""

from fastslow.runs.transcripts import POLICY, Said, conversation, cut_off, end_of

from report_runs import episode, sample


def test_a_conversation_has_turns_answers_calls_and_marks_in_order() -> None:
    call = '<tool_call>{"name": "calculator", "arguments": {"expression": "2*"}}</tool_call>'
    assert conversation(episode()) == [  # type: ignore[arg-type]
        Said(POLICY, f"I compute. {call}", ('calculator(expression="2*")',)),
        Said("tool", "The expression is not complete.", mark="error"),
        Said(POLICY, "It is 4.", mark="forked"),
        Said("user", "Well done."),
    ]


def test_a_turn_that_was_cut_off_is_marked_and_only_the_last_one() -> None:
    turns = [{"messages": [], "text": text, "tokens": 1, "forked": False} for text in ("a", "b")]
    marks = [one.mark for one in conversation(episode(turns=turns, said=[], end="turn_tokens"))]  # type: ignore[arg-type]
    assert marks == ["", "cut"]
    assert [one.mark for one in conversation(episode(turns=turns, said=[], end="max_turns"))] == ["", ""]  # type: ignore[arg-type]


def test_without_tools_nothing_is_taken_for_a_call_and_what_cannot_be_read_is_said() -> None:
    text = '{"name": "x", "arguments": {}}'
    turns = [{"messages": [], "text": text, "tokens": 1, "forked": False}]
    (plain,) = conversation(episode(turns=turns, said=[], tool_calls=0, tool_errors=[]))  # type: ignore[arg-type]
    assert plain == Said(POLICY, text)
    turns = [{"messages": [], "text": "<tool_call>{oops</tool_call>", "tokens": 1, "forked": False}]
    (broken,) = conversation(episode(turns=turns, said=[], tool_errors=[]))  # type: ignore[arg-type]
    assert broken.calls == ("a call that cannot be read",)


def test_a_task_of_one_turn_has_no_conversation_and_still_an_end() -> None:
    line = sample("x", finish_reason="length")
    assert (conversation(line), end_of(line), cut_off(line)) == ([], "turn_tokens", True)  # type: ignore[arg-type]
    assert (end_of(sample()), cut_off(sample())) == ("done", False)  # type: ignore[arg-type]
    assert (end_of(episode(end="timed_out")), cut_off(episode(end="timed_out"))) == ("timed_out", False)  # type: ignore[arg-type]
