"""The part of an engine's contract that is about the entropy bonus."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from fastslow.errors import ConfigError
from fastslow.slow.engine import Datum, LossSettings, PolicyEngine, UpdateMetrics
from fastslow.testing.contract import require

NO_RATE = 1e-30
"""A learning rate that moves nothing."""


class Trained(Protocol):
    """What an update without a bonus gave."""

    @property
    def metrics(self) -> UpdateMetrics:
        """Those of the first update."""
        ...


class Case(Protocol):
    """What this check asks of an `EngineCase`."""

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


def an_entropy_bonus_is_taken_or_refused(case: Case) -> None:
    """It is taken off the loss of each token; an engine that cannot do that says so."""
    engine = case.make()
    datums = case.datums(engine)
    try:
        metrics = engine.train_step(datums, replace(case.loss, entropy_coefficient=0.5), NO_RATE)
    except ConfigError as error:
        require("entropy" in str(error), "the error names the entropy bonus")
        require(engine.policy_version == 0, "a refused update moves nothing")
        return
    weight = sum(datum.token_weight * len(datum.completion_tokens) for datum in datums)
    expected = case.trained.metrics.loss - 0.5 * weight * metrics.entropy
    require(abs(metrics.loss - expected) <= 10 * case.tolerance, "an entropy bonus is taken off the loss of each token")
