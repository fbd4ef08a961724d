"""The local engine: PyTorch and transformers, on a CPU or one GPU.

It is a learner (`learner.py`), checkpoints (`checkpoints.py`) and a sampler (`slow.sampler`: ours is
`samplers/forest.py`) around one network (`policy.py`).

It is fast because it does no needless work. Sampling and training both run on packed forests, so a context is computed
once for its n samples and a system prompt once for all problems under it; finished sequences leave the batch; logits
are computed at completion positions only; the sampler's own log-probabilities are the behaviour policy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from fastslow.slow.chat import ChatRenderer
from fastslow.slow.engine import (
    Datum,
    DistillDatum,
    LossSettings,
    Sampler,
    SampleRequest,
    SamplingParams,
    TokenSequence,
    UpdateMetrics,
    Weights,
)
from fastslow.slow.limits import check_lengths
from fastslow.slow.local.checkpoints import LocalCheckpoints
from fastslow.slow.local.learner import LocalLearner
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.samplers.registry import build_sampler
from fastslow.slow.samplers.settings import sampling_limit
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion, Message


class LocalEngine:
    """A `PolicyEngine` on this machine.

    `adapter` is a saved LoRA adapter to start from. `base` is the model that KL is measured against where it is not
    `model` itself (the run's original model, when `model` is a checkpoint of it).
    """

    kl_is_exact = LocalLearner.kl_is_exact

    def __init__(
        self,
        model: ModelConfig,
        slow: SlowConfig | None = None,
        *,
        seed: int = 0,
        threads: int | None = None,
        adapter: Path | None = None,
        base: ModelConfig | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        slow = slow or SlowConfig()
        self.policy = LocalPolicy(model, slow, seed=seed, adapter=adapter, base=base)
        self.renderer = ChatRenderer(
            self.policy.tokenizer, model.chat_template_kwargs, parse_special=model.special_tokens_in_text
        )
        self.learner = LocalLearner(self.policy)
        self.checkpoints = LocalCheckpoints(self.learner)
        self.sampler: Sampler = build_sampler(slow.sampler, self.policy)

    @property
    def model(self) -> Any:
        """The network, with the current weights."""
        return self.policy.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own."""
        return self.policy.tokenizer

    @property
    def context_limit(self) -> int | None:
        """Positions of the model's context, or fewer where the sampler has fewer."""
        return sampling_limit(self.policy.slow.sampler, self.policy.context_limit)

    @property
    def policy_version(self) -> int:
        """Number of updates that the weights have had."""
        return self.learner.policy_version

    @property
    def intact(self) -> bool:
        """False where an update has broken off."""
        return self.learner.intact

    def describe(self) -> str:
        """Precision, device, whether prefixes are shared, and what a sampler says of itself."""
        told = getattr(self.sampler, "describe", None)
        return str(self.policy) if told is None else f"{self.policy}; {told()}"

    # -- text ----------------------------------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """As `PolicyEngine.encode`."""
        return self.renderer.encode(messages)

    def decode(self, tokens: Sequence[int]) -> str:
        """As `PolicyEngine.decode`."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    # -- sampling ------------------------------------------------------------------------------------------------------

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        """As `Sampler.sample`."""
        check_lengths(self.context_limit, [request.context_tokens for request in requests], params.max_tokens)
        return self.sampler.sample(requests, params)

    def sync(self) -> None:
        """As `Sampler.sync`."""
        self.sampler.sync()

    def release(self, sequences: Sequence[tuple[int, ...]]) -> None:
        """Nothing continues these sequences any more: see `SampleRequest.keep`."""
        release = getattr(self.sampler, "release", None)
        if release is not None:
            release(sequences)

    def _make_room(self) -> None:
        """A sampler with a `rest` gives memory back until it is synced."""
        rest = getattr(self.sampler, "rest", None)
        if rest is not None:
            rest()

    # -- learning ------------------------------------------------------------------------------------------------------

    def logprobs(self, sequences: Sequence[TokenSequence], weights: Weights = "current") -> list[list[float]]:
        """As `Learner.logprobs`."""
        return self.learner.logprobs(sequences, weights)

    def kl_to_base(self, sequences: Sequence[TokenSequence]) -> list[list[float]]:
        """As `Learner.kl_to_base`."""
        return self.learner.kl_to_base(sequences)

    def train_step(self, datums: Sequence[Datum], loss: LossSettings, learning_rate: float) -> UpdateMetrics:
        """As `Learner.train_step`."""
        self._make_room()
        with self.policy.watched():
            metrics = self.learner.train_step(datums, loss, learning_rate)
        self.sync()
        return metrics

    def distill_step(
        self, datums: Sequence[DistillDatum], learning_rate: float, temperature: float = 1.0
    ) -> UpdateMetrics:
        """As `Learner.distill_step`."""
        self._make_room()
        with self.policy.watched():
            metrics = self.learner.distill_step(datums, learning_rate, temperature)
        self.sync()
        return metrics

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, directory: Path, *, resumable: bool) -> None:
        """As `Checkpoints.save`."""
        self.checkpoints.save(directory, resumable=resumable)

    def load(self, directory: Path) -> None:
        """As `Checkpoints.load`."""
        self.checkpoints.load(directory)
        self.sync()
