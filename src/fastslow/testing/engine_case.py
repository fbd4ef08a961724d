"""What the checks of updates, which have files of their own, know of the engine under test."""

from collections.abc import Callable
from typing import Protocol

from fastslow.slow.engine import Datum, LossSettings, PolicyEngine, UpdateMetrics

NO_RATE = 1e-30
"""A learning rate that moves nothing."""


class Trained(Protocol):
    """What an update on fresh, honest rollouts gave, and the log-probabilities before it."""

    @property
    def logprobs(self) -> list[list[float]]:
        """One row a datum."""
        ...

    @property
    def metrics(self) -> UpdateMetrics:
        """Those of the first update."""
        ...


class Case(Protocol):
    """What the checks of updates ask of an `EngineCase`."""

    @property
    def make(self) -> Callable[[], PolicyEngine]:
        """Gives a new engine."""
        ...

    @property
    def tolerance(self) -> float:
        """Nats."""
        ...

    @property
    def loss(self) -> LossSettings:
        """The loss of the updates."""
        ...

    @property
    def trained(self) -> Trained:
        """After updates on the datums of another engine with the same weights."""
        ...

    def datums(self, engine: PolicyEngine) -> list[Datum]:
        """Fresh rollouts, the same for engines with the same weights; each token weighs the same."""
        ...
