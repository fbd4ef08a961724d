"""What a model's context holds."""

from collections.abc import Sequence

from fastslow.errors import ConfigError


def check_lengths(limit: int | None, contexts: Sequence[Sequence[int]], max_tokens: int) -> None:
    """Raises ConfigError where a context and `max_tokens` more exceed the model's `limit`; None: there is none."""
    longest = max((len(context) for context in contexts), default=0)
    if limit and longest + max_tokens > limit:
        raise ConfigError(
            f"sampling.max_tokens: {max_tokens} tokens after a context of {longest} exceed the model's "
            f"{limit} positions: lower it, or shorten the prompts (fast.proposer.max_prompt_chars)"
        )
