"""The config of episodes: how long they may be, and how long an environment may take."""

from typing import Annotated

from pydantic import Field

from fastslow.section import Positive, PositiveNumber, Section, option


class EpisodesConfig(Section):
    """Limits of tasks of several turns; see [episodes.md](episodes.md). Tokens a turn are `sampling.max_tokens`.

    A task of one turn has no use for them.
    """

    max_turns: Positive = option(16, "what goes on after them is cut off and scores 0", unit="turns")
    max_tokens: Positive | None = option(
        None, "of all turns of an episode together; null: no limit", unit="tokens",
        more="A turn begins only where a whole one still fits. The environment's tokens do not count.",
    )  # fmt: skip
    step_timeout_s: PositiveNumber = option(
        60.0, "for one answer of the environment; its rollout is masked after it", unit="seconds"
    )
    max_message_chars: Positive = option(
        100_000, "of one answer of the environment; beyond, it is masked", unit="characters"
    )
    workers: Annotated[int, Field(gt=0, le=1024)] = option(
        64, "environments that answer at the same time", unit="threads"
    )
