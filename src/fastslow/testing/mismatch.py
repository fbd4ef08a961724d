"""The part of an engine's contract about sampler and learner: how far apart they are, and corrections of that."""

import math
from dataclasses import replace

from fastslow.errors import ConfigError
from fastslow.slow.engine import Correction, Datum
from fastslow.testing.contract import require
from fastslow.testing.engine_case import NO_RATE, Case


def an_update_says_how_far_sampler_and_learner_are_apart(case: Case) -> None:
    """On fresh datums alone, by the log-probabilities that they hold; NaN where it is not known."""
    honest = case.trained.metrics
    require(not honest.mismatch_kl > case.tolerance, "mismatch_kl of fresh rollouts is 0 within rounding, or NaN")
    require(not honest.mismatch_max > case.tolerance, "mismatch_max of fresh rollouts is 0 within rounding, or NaN")
    engine = case.make()
    lies = [
        replace(datum, sampler_logprobs=_moved(datum, -0.5 if i else -3.0))
        for i, datum in enumerate(case.datums(engine))
    ]
    lies[0] = replace(lies[0], fresh=False)
    metrics = engine.train_step(lies, case.loss, NO_RATE)
    if math.isnan(metrics.mismatch_kl):
        return
    require(
        abs(metrics.mismatch_kl - (math.expm1(0.5) - 0.5)) <= 10 * case.tolerance,
        "mismatch_kl is the mean of exp(d) - d - 1 over the tokens of fresh datums, d = log "
        "pi_learner - log pi_sampler",
    )
    require(abs(metrics.mismatch_max - 0.5) <= 2 * case.tolerance, "mismatch_max is the largest |d| of fresh datums")


def a_correction_is_made_or_refused(case: Case) -> None:
    """A mask leaves out the completion whose ratio is out of bounds; an engine that cannot do that says so."""
    engine = case.make()
    datums = case.datums(engine)
    datums[0] = replace(datums[0], sampler_logprobs=_moved(datums[0], -40.0))
    loss = replace(case.loss, correction=Correction("mask", 0.0, math.exp(20.0)))
    try:
        metrics = engine.train_step(datums, loss, NO_RATE)
    except ConfigError as error:
        require("mask" in str(error), "the error names the correction")
        require(engine.policy_version == 0, "a refused update moves nothing")
        return
    require(metrics.masked == 1, "masked counts the completions that the correction left out")
    pairs = list(zip(datums, case.trained.logprobs, strict=True))[1:]
    expected = -sum(datum.token_weight * datum.advantage * sum(row) for datum, row in pairs)
    require(
        abs(metrics.loss - expected) <= 10 * case.tolerance, "a completion that is left out adds nothing to the loss"
    )


def _moved(datum: Datum, shift: float) -> tuple[float, ...]:
    return tuple(value + shift for value in datum.sampler_logprobs)
