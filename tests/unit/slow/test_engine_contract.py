"""The contract suite of engines finds what is wrong: each engine here breaks one promise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastslow.slow.engine import Correction, SampleRequest, SamplingParams, TokenSequence, Weights
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import ModelConfig
from fastslow.testing.engines import check_engine
from fastslow.types import Completion


class Deaf(LocalEngine):
    """Ignores the seed."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        return super().sample([replace(request, seed=0) for request in requests], params)


class Stale(LocalEngine):
    """Goes on sampling with the log-probabilities of the base weights after an update."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        groups = super().sample(requests, params)
        return [
            [
                replace(c, logprobs=tuple(self.logprobs([TokenSequence(request.context_tokens, c.tokens)], "base")[0]))
                for c in group
            ]
            for request, group in zip(requests, groups, strict=True)
        ]


class Lying(LocalEngine):
    """Says that what it drew was a little likelier than it was."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        groups = super().sample(requests, params)
        return [[replace(c, logprobs=tuple(0.9 * v for v in c.logprobs)) for c in group] for group in groups]


class Trusting(LocalEngine):
    """Never looks at what the sampler reported."""

    def train_step(self, datums: Any, loss: Any, learning_rate: float) -> Any:
        metrics = super().train_step(datums, loss, learning_rate)
        return replace(metrics, mismatch_kl=0.0, mismatch_max=0.0)


class Careless(LocalEngine):
    """Makes no correction and does not say so."""

    def train_step(self, datums: Any, loss: Any, learning_rate: float) -> Any:
        return super().train_step(datums, replace(loss, correction=Correction()), learning_rate)


class Miscounting(LocalEngine):
    """Counts an update that had no datums."""

    def train_step(self, datums: Any, loss: Any, learning_rate: float) -> Any:
        if not datums:
            self.learner.policy_version += 1
        return super().train_step(datums, loss, learning_rate)


class Drifting(LocalEngine):
    """Has no base weights of its own."""

    def logprobs(self, sequences: Sequence[TokenSequence], weights: Weights = "current") -> list[list[float]]:
        return super().logprobs(sequences)


class Forgetful(LocalEngine):
    """Forgets the optimiser's moments where it loads."""

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.learner.optimiser.adam.state.clear()


class Obliging(LocalEngine):
    """Runs CISPO for a loss that it does not know."""

    def train_step(self, datums: Any, loss: Any, learning_rate: float) -> Any:
        return super().train_step(datums, replace(loss, name="cispo"), learning_rate)


class Sober(LocalEngine):
    """Leaves an entropy bonus out, and does not say so."""

    def train_step(self, datums: Any, loss: Any, learning_rate: float) -> Any:
        return super().train_step(datums, replace(loss, entropy_coefficient=0.0), learning_rate)


BROKEN = {
    Deaf: "another seed gives other completions",
    Stale: "after an update the sampler's log-probabilities are the learner's",
    Lying: "before an update the sampler's log-probabilities are the learner's: they are ",
    Trusting: "mismatch_kl is the mean of exp(d) - d - 1 over the tokens of fresh datums",
    Careless: "masked counts the completions that the correction left out",
    Miscounting: "an update without datums adds nothing to policy_version",
    Drifting: "an update leaves the base weights alone",
    Forgetful: "load brings the optimiser back",
    Sober: "an entropy bonus is taken off the loss of each token",
    Obliging: "train_step raises ConfigError for a loss that it cannot run",
}


def test_our_engine_keeps_the_contract(tiny_model_dir: Path) -> None:
    check_engine(lambda: LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu")))


@pytest.mark.parametrize(("broken", "contract"), BROKEN.items(), ids=[kind.__name__ for kind in BROKEN])
def test_a_broken_promise_is_named(tiny_model_dir: Path, broken: type[LocalEngine], contract: str) -> None:
    with pytest.raises(AssertionError, match="the engine breaks its contract") as caught:
        check_engine(lambda: broken(ModelConfig(name=str(tiny_model_dir), device="cpu")))
    assert contract in str(caught.value)
