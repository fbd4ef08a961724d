"""The part of an engine's contract that is about the entropy bonus."""

from dataclasses import replace

from fastslow.errors import ConfigError
from fastslow.testing.contract import require
from fastslow.testing.engine_case import NO_RATE, Case


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
