"""What a reflection LM is asked: the parent's text, what the policy did under it, and how far the child may go from it."""

from collections.abc import Mapping, Sequence

from fastslow.fast.proposers.base import Example, ProposalRequest
from fastslow.types import Message

OPEN, CLOSE = "<new_prompt>", "</new_prompt>"
SPEAKERS: Mapping[str, str] = {
    "assistant": "The model", "user": "The environment", "tool": "A tool", "system": "The system", "end": "The end"
}  # fmt: skip
"""Who says what in a transcript, in words."""

RECIPES: Mapping[str, str] = {
    "light": (
        "Edit the current text lightly. Find the mistake that most of the failures share, and make the one small change that "
        "would have prevented it: add a rule, sharpen one, correct one, or take out one that does harm. Keep every other "
        "line exactly as it is, because the policy has been trained under it."
    ),
    "full": (
        "Write the best text that you can. You may keep, reorder or replace anything, and start from scratch where the "
        "current text points the wrong way. Keep what the good answers show to be working."
    ),
}


def render_messages(
    request: ProposalRequest, *, recipe: str, max_prompt_chars: int, example_chars: int
) -> list[Message]:
    """The chat messages of one request; all examples together take about `example_chars` characters."""
    sections = [
        f"A language model solves problems under a prompt. You improve the part of that prompt named {request.component!r}"
        f"{_meaning(request.component)}.",
        f"Its current text:\n<current_prompt>\n{request.parent.as_dict()[request.component]}\n</current_prompt>",
        _other_parts(request),
        f"What the model did under it:\n\n{_examples(request.examples, example_chars)}",
        f"Your task: {RECIPES[recipe]}",
        (
            "Write for problems that are not shown here: name rules, formats and methods, never the answer of one problem "
            f"above. Where the feedback asks for a format, state it exactly. {_limit(request, max_prompt_chars)}"
        ),
        (
            f"First say in one or two sentences what goes wrong and why. Then give the complete new text, not only the "
            f"change, between {OPEN} and {CLOSE}, and nothing after it."
        ),
    ]
    return [{"role": "user", "content": "\n\n".join(section for section in sections if section)}]


def _meaning(component: str) -> str:
    """What a component is, where its name says it."""
    kind, _, name = component.partition(":")
    meanings = {
        "tool": f": the description of the tool {name!r}, which the model reads beside the tool's arguments",
        "skill": f": a skill, a text that the model reads under the heading {name!r} when it works",
    }
    return meanings.get(kind, "") if name else ""


def _limit(request: ProposalRequest, max_prompt_chars: int) -> str:
    """The length that a new text may have: what the config allows, or what the policy's context holds, where that is less."""
    room = request.max_chars
    if room is None or room >= max_prompt_chars:
        return f"The whole text has at most {max_prompt_chars} characters."
    now = len(request.parent.as_dict()[request.component])
    return (
        f"The whole text has at most {room} characters (the current one has {now}): the model reads it together with the "
        "question and its own answer, and no more fits. A longer text is refused."
    )


def clip(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit` characters. Beginnings and ends tell most."""
    if len(text) <= limit:
        return text
    note = f" [... {len(text) - limit} characters left out ...] "
    head = limit * 2 // 3
    return text[:head] + note + text[len(text) - (limit - head) :]


def _other_parts(request: ProposalRequest) -> str:
    others = [(name, text) for name, text in request.parent.components if name != request.component]
    if not others:
        return ""
    shown = "\n\n".join(f"<part name={name!r}>\n{clip(text, 1000)}\n</part>" for name, text in others)
    return f"The prompt's other parts, which stay as they are:\n{shown}"


def _examples(examples: Sequence[Example], chars: int) -> str:
    """Worst first: where examples must be short, the failures are read first."""
    share = chars // max(1, len(examples))
    ordered = sorted(examples, key=lambda example: example.reward)
    return "\n\n".join(_example(number, example, share) for number, example in enumerate(ordered, start=1))


def _example(number: int, example: Example, chars: int) -> str:
    question, feedback = clip(example.question, chars // 3), clip(example.feedback or "(none)", chars // 3)
    room = max(chars // 3, chars - len(question) - len(feedback))
    answer = _transcript(example.turns, room) or f"The model's answer: {clip(example.answer or '(empty)', room)}"
    return (
        f"<example number={number} reward={example.reward:.2f}>\nQuestion: {question}\n{answer}\n"
        f"Feedback of the verifier: {feedback}\n</example>"
    )


def _transcript(turns: Sequence[tuple[str, str]], chars: int) -> str:
    """An episode turn by turn. Where all of it is too long, the longest turns are clipped, each in its middle."""
    limit = _fair_limit([len(text) for _, text in turns], chars)
    return "\n".join(f"{SPEAKERS.get(who, who)}: {clip(text or '(empty)', limit)}" for who, text in turns)


def _fair_limit(lengths: Sequence[int], total: int) -> int:
    """The length that texts are clipped to, so that all of them take about `total`: short ones leave their room to others."""
    left, waiting = total, sorted(lengths)
    for position, length in enumerate(waiting):
        share = left // (len(waiting) - position)
        if length > share:
            return max(1, share)
        left -= length
    return max(1, total)
