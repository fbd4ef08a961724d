"""From a completion to what a client of OpenAI's gets: cut at its own limit and stop texts, with calls taken out."""

from bisect import bisect_left

from fastslow.slow.engine import Chat, PolicyEngine
from fastslow.tasks.agents.chat_api import ChatRequest, Choice, Finish, split_calls
from fastslow.types import Completion, FinishReason


def cut(
    chat: Chat, context: tuple[int, ...], completion: Completion, request: ChatRequest
) -> tuple[Completion, str | None, Finish]:
    """What the client's own limit and its stop texts leave of a completion; the text before a stop text,
    None without one.

    What is left is what the policy would have written had it been stopped there: tokens are only ever cut from the end.
    """
    most = request.max_tokens
    cut_off = most is not None and len(completion.tokens) > most
    tokens = completion.tokens[:most] if cut_off else completion.tokens
    finish: Finish = "length" if cut_off else completion.finish_reason
    text, shown = chat.read(context, tokens), None
    found = [text.index(stop) for stop in request.stop if stop in text]
    if found:
        shown, finish = text[: min(found)], "stop"

        def stopped(count: int) -> bool:
            read = chat.read(context, tokens[:count])
            return any(stop in read for stop in request.stop)

        tokens = tokens[: bisect_left(range(len(tokens)), True, key=stopped)]
    reason: FinishReason = "length" if finish == "length" else "stop"
    return Completion(tokens, completion.logprobs[: len(tokens)], reason), shown, finish


def chosen(
    engine: PolicyEngine,
    chat: Chat,
    context: tuple[int, ...],
    kept: Completion,
    shown: str | None,
    finish: Finish,
    request: ChatRequest,
) -> tuple[Choice, list[str]]:
    """What the client gets of what `cut` left, and what was wrong with calls that cannot be read."""
    text = shown if shown is not None else chat.read(context, kept.tokens, request.tools)
    beside, calls, wrong = split_calls(text) if request.tools else (text, (), [])
    pieces = [engine.decode((token,)) for token in kept.tokens] if request.logprobs else [""] * len(kept.tokens)
    reason: Finish = "tool_calls" if calls and finish == "stop" else finish
    return Choice(beside, calls, reason, tuple(zip(pieces, kept.logprobs, strict=True))), wrong
