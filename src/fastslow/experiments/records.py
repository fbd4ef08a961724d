"""The lines of `results.jsonl`: what is kept of each part of an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from fastslow.measuring.statistics import Curve

Settings = Mapping[str, object]
"""Options of a config by their dotted keys."""
Interval = Sequence[float]


class Measured(TypedDict):
    """One evaluation of a finished part: a row of `fastslow evaluate --json`, and what a whole population brings.

    Rewards are in [0, 1]. `members` are the means under each prompt of the population; `by_kind` is the mean with each
    kind of problems under its own prompt.
    """

    mean: float
    mean_interval: Interval
    problems: NotRequired[int]
    best: NotRequired[float]
    kl: NotRequired[Mapping[str, Any] | None]
    by_kind: NotRequired[float]
    by_kind_interval: NotRequired[Interval]
    members: NotRequired[list[float]]


class Outcome(TypedDict):
    """What a part gave. `prompt` is the best system prompt; `totals` count rollouts, steps and seconds of the run."""

    interrupted: bool
    curve: Curve
    totals: Mapping[str, float]
    prompt: str | None
    measures: Mapping[str, Measured]


class Line(Outcome):
    """A part and what it brought. `fingerprint` tells its settings; lines of before it was written have none."""

    part: str
    labels: Mapping[str, object]
    settings: Settings
    start: str | None
    fingerprint: NotRequired[str]
