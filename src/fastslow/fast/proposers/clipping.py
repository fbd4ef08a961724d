"""Examples in as many characters as a reflection LM may read: long texts lose their middle,
short ones leave their room.
"""

from collections.abc import Mapping, Sequence

from fastslow.fast.proposers.base import Example

THOUGHT_END = "</think>"
LEAST_CHARS = 60
SPEAKERS: Mapping[str, str] = {
    "assistant": "The model", "user": "The environment", "tool": "A tool", "system": "The system", "end": "The end"
}  # fmt: skip
"""Who says what in a transcript, in words."""


def clip(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit` characters. Beginnings and ends tell most."""
    if len(text) <= limit:
        return text
    note = f" [... {len(text) - limit} characters left out ...] "
    head = limit * 2 // 3
    return text[:head] + note + text[len(text) - (limit - head) :]


def clip_answer(text: str, limit: int) -> str:
    """An answer, of which thoughts lose their middle first: what comes after them is what was scored.

    Thoughts end with `</think>`, as reasoning models write them. What follows them may take three quarters of the room.
    """
    thoughts, end, answer = text.rpartition(THOUGHT_END)
    if len(text) <= limit or not end:
        return clip(text, limit)
    answer = clip(answer, max(limit * 3 // 4, limit - len(thoughts)))
    return clip(thoughts, max(LEAST_CHARS, limit - len(answer) - len(end))) + end + answer


def examples_text(
    examples: Sequence[Example], chars: int, example_chars: int | None = None, references: bool = False
) -> str:
    """All examples in about `chars` characters, each in at most `example_chars`; short ones leave their room to others.

    Worst first: where examples must be short, the failures are read first.
    """
    limit = fair_limit([_length(example, references) for example in examples], chars)
    limit = limit if example_chars is None else min(limit, example_chars)
    ordered = sorted(examples, key=lambda example: example.reward)
    return "\n\n".join(_example(number, example, limit, references) for number, example in enumerate(ordered, start=1))


def fair_limit(lengths: Sequence[int], total: int) -> int:
    """The length that texts are clipped to, so that all take about `total`: short ones leave their room to others."""
    left, waiting = total, sorted(lengths)
    for position, length in enumerate(waiting):
        share = left // (len(waiting) - position)
        if length > share:
            return max(1, share)
        left -= length
    return max(1, total)


def _length(example: Example, references: bool) -> int:
    return sum(_lengths(example, references))


def _lengths(example: Example, references: bool) -> list[int]:
    answer = sum(len(text) for _, text in example.turns) or len(example.answer)
    return [len(example.question), answer, len(example.feedback), len(example.reference) if references else 0]


def _example(number: int, example: Example, chars: int, references: bool) -> str:
    limit = fair_limit(_lengths(example, references), chars)
    question, feedback = clip(example.question, limit), clip(example.feedback or "(none)", limit)
    answer = (
        _transcript(example.turns, limit) or f"The model's answer: {clip_answer(example.answer or '(empty)', limit)}"
    )
    reference = f"\nReference answer: {clip(example.reference, limit)}" if references and example.reference else ""
    return (
        f"<example number={number} reward={example.reward:.2f}>\nQuestion: {question}\n{answer}{reference}\n"
        f"Feedback of the verifier: {feedback}\n</example>"
    )


def _transcript(turns: Sequence[tuple[str, str]], chars: int) -> str:
    """An episode turn by turn. Where all of it is too long, the longest turns are clipped, each in its middle."""
    limit = fair_limit([len(text) for _, text in turns], chars)
    return "\n".join(
        f"{SPEAKERS.get(who, who)}: {(clip_answer if who == 'assistant' else clip)(text or '(empty)', limit)}"
        for who, text in turns
    )
