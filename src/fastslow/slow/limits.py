"""What a model's context holds."""

from collections.abc import Sequence

from fastslow.errors import TooLongError


def fits(limit: int | None, context_tokens: int, max_tokens: int) -> bool:
    """Whether a context and `max_tokens` more are within the model's `limit`; None: there is none."""
    return not limit or context_tokens + max_tokens <= limit


def check_lengths(limit: int | None, contexts: Sequence[Sequence[int]], max_tokens: int) -> None:
    """Raises TooLongError where a context and `max_tokens` more exceed the model's `limit`; None: there is none."""
    longest = max((len(context) for context in contexts), default=0)
    if not fits(limit, longest, max_tokens):
        raise TooLongError(
            f"sampling.max_tokens: {excess(limit, longest, max_tokens)}: lower it, or shorten the prompts"
        )


def excess(limit: int | None, context_tokens: int, max_tokens: int) -> str:
    """By how much a context is too long, in words."""
    return f"{max_tokens} tokens after a context of {context_tokens} exceed the model's {limit} positions"
