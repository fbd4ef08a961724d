"""What reflection is told of an episode of several turns."""

from fastslow.fast.gepa.adapter import CycleAdapter
from fastslow.fast.optimiser import Evaluation
from fastslow.fast.proposers.base import Example
from fastslow.fast.proposers.lesson import count_lessons
from fastslow.fast.transcript import feedback_of, turns_of
from fastslow.types import Completion, EndReason, Problem, Prompt, Rollout, Trace, Turn

DONE = Completion((1,), (0.0,), "stop")
SAID = ({"role": "tool", "content": "no such tool"},)


def rollout(trace: Trace | None) -> Rollout:
    turns = (Turn((1,), DONE, "call"), Turn((1, 1, 2), DONE, "5", SAID))
    return Rollout("p", "h", turns if trace else turns[:1], 0.0, "Be exact.", None, 0, "rl", trace)


def test_a_transcript_has_every_turn_what_was_said_and_why_it_ended() -> None:
    trace = Trace("max_turns", ({"role": "user", "content": "wrong"},), 1, ("no such tool",))
    assert turns_of(rollout(trace)) == (
        ("assistant", "call"), ("tool", "no such tool"), ("assistant", "5"), ("user", "wrong"),
        ("end", "cut off: too many turns, after 2 turns"),
    )  # fmt: skip
    assert turns_of(rollout(None)) == ()


def test_answers_of_tools_to_failed_calls_are_feedback_once_each() -> None:
    trace = Trace("done", tool_calls=3, tool_errors=("no such tool", "Be exact.", "no  such\ntool", "x" * 999))
    assert feedback_of(rollout(trace)) == "Be exact.\nno such tool\n" + "x" * 300
    assert feedback_of(rollout(None)) == "Be exact."


def test_every_end_has_words() -> None:
    ends: tuple[EndReason, ...] = ("done", "turn_tokens", "max_turns", "max_tokens", "context", "failed", "timed_out")
    words = [turns_of(rollout(Trace(end)))[-1][1] for end in ends]
    assert len(set(words)) == len(ends)


def test_the_lesson_proposer_learns_from_what_tools_said() -> None:
    prompt, problem = Prompt.of("seed"), Problem("p", ({"role": "user", "content": "question"},))
    failed = rollout(Trace("done", tool_calls=1, tool_errors=("The call has no name.",)))
    adapter = CycleAdapter(None, lambda pairs: [Evaluation(prompt, problem, (failed,))] * len(pairs), [problem], 8, 0)  # type: ignore[arg-type]
    batch = adapter.evaluate([problem], prompt.as_dict())
    records = adapter.make_reflective_dataset(prompt.as_dict(), batch, ["system"])["system"]
    example: Example = records[0]["example"]
    assert example.turns[0] == ("assistant", "call") and example.answer == "5"
    assert set(count_lessons([example, example], ["seed"])) == {"Be exact.", "The call has no name."}
