"""The config of Algorithm 1, and which trackers come with the package."""

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fastslow.section import FROM_LIST, NonNegative, Positive, Section, option

NO_TRACKER = "none"
TRACKERS = {
    "tensorboard": "fastslow.training.trackers:TensorBoardObserver",
    "wandb": "fastslow.training.trackers:WandbObserver",
    "trackio": "fastslow.training.trackers:TrackioObserver",
}
"""Import paths by the names that `tracker` takes besides `none`. Each name is that of the package which it needs."""


def _known_tracker(name: str) -> str:
    """The name. Raises ValueError for one that is neither listed nor an import path; nothing is imported."""
    if name == NO_TRACKER or name in TRACKERS or ":" in name:
        return name
    close = difflib.get_close_matches(name, [NO_TRACKER, *TRACKERS], n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"{name!r} is unknown. {hint}Known: {', '.join([NO_TRACKER, *TRACKERS])}, and package.module:Class"
    )


Tracker = Annotated[str, AfterValidator(_known_tracker)]
"""What the option `tracker` holds."""


class TrackingConfig(Section):
    """What a run is called in wandb or trackio. The run's id lies in tracker.json; a resumed run goes on under it."""

    project: str | None = option(
        None,
        "the project; null: `WANDB_PROJECT` or `TRACKIO_PROJECT`, else `fastslow`",
        unit="a name",
    )
    group: str | None = option(None, "the group of runs; null: `WANDB_RUN_GROUP` or `TRACKIO_RUN_GROUP`", unit="a name")
    name: str | None = option(
        None,
        "the run; null: `WANDB_NAME` or `TRACKIO_NAME`, else the last part of `output`",
        unit="a name",
        more="trackio tells runs apart by their names, so a few characters of the id stand behind it.",
    )
    tags: Annotated[tuple[str, ...], FROM_LIST] = option(
        (), "labels of the run; empty: `WANDB_TAGS` or `TRACKIO_TAGS`, separated by commas", unit="names"
    )


class LoopConfig(Section):
    """Algorithm 1: T, K, G and B of the paper."""

    steps_per_cycle: Positive = option(
        6, "T: 192 anchor problems / 32 problems a step", unit="steps, T", source="algorithm 1; the number is ours"
    )
    population_size: Positive = option(8, "K; divides G", unit="prompts, K", source="settings: 8 or 4")
    group_size: Annotated[int, Field(gt=0, le=65_536)] = option(
        8,
        "G rollouts a problem, G/K under each prompt",
        unit="rollouts a problem, G",
        source="settings: 8",
        more="1 is refused with `fst` and `rl`: its advantage is always 0.",
    )
    prompts_per_problem: Positive | None = option(
        None,
        "M: a problem sees M of the K prompts, G/M rollouts each; null: all",
        unit="prompts, M",
        more="it divides G, and K then need not. Prompts are dealt in turn: over a run each is used as often as any "
        "other.",
    )
    problems_per_step: Positive = option(32, "B", unit="problems, B", source="settings: 32, Math 64")
    baseline: Literal["problem", "prompt"] = option(
        "problem",
        "one mean and deviation a problem, or one a (problem, `prompt`)",
        unit="a name",
        source="3.2 and the ablation on it",
        more="`prompt` needs G/K of 2 or more.",
    )
    divide_by_std: bool = option(
        True, "the paper's Math runs set it to false", unit="yes or no", source="3.2; settings: no for Math"
    )
    batch_normalisation: bool = option(
        True,
        "advantages over their root mean square in the batch",
        unit="yes or no",
        source="ScaleRL, arXiv 2510.13786",
    )
    reuse_max_age: NonNegative = option(
        6,
        "policy versions for which a rollout is reused; 0 turns reuse off",
        unit="policy versions",
        source="appendix F: at most T steps old",
    )
