"""The learner of the local engine: log-probabilities, the KL to the base, and updates, over packed forests.

Deviations from the paper: gradients are clipped to norm 1 (the paper is silent); an update without any datum leaves
weights, optimiser state and policy version as they are, and so does one whose loss or gradient is NaN or infinite.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from fastslow.errors import DivergedError
from fastslow.slow.engine import (
    NAN,
    NO_UPDATE,
    Datum,
    DistillDatum,
    LossSettings,
    TokenSequence,
    UpdateMetrics,
    Weights,
)
from fastslow.slow.finite import check_logprobs
from fastslow.slow.limits import check_lengths
from fastslow.slow.local.adamw import MasterAdamW
from fastslow.slow.local.head import outputs
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.local.scoring import MicroBatch
from fastslow.slow.local.sliced import backward_reverse_kl, output_divergences, output_logprobs
from fastslow.slow.losses import Loss, LossInputs, find_loss, importance_ratio, kl_penalty
from fastslow.slow.mismatch import Mismatch, correct


class LocalLearner:
    """A `Learner` of the policy's network."""

    kl_is_exact = True

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.policy_version = 0
        self._optimiser: MasterAdamW | None = None

    @property
    def intact(self) -> bool:
        """False where an optimiser step has broken off."""
        return self._optimiser is None or not self._optimiser.moving

    @property
    def optimiser(self) -> MasterAdamW:
        """Made when it is first asked for: whoever only measures pays for no moments."""
        if self._optimiser is None:
            self._optimiser = MasterAdamW(self.policy.model, self.policy.slow)
        return self._optimiser

    # -- measuring -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logprobs(
        self, sequences: Sequence[TokenSequence], weights: Weights = "current", temperature: float = 1.0
    ) -> list[list[float]]:
        """As `Learner.logprobs`; at another `temperature` where one is given."""
        results: list[list[float]] = [[] for _ in sequences]
        with self.policy.weights(weights) as model:
            for batch in self.policy.micro_batches(sequences):
                values, _ = output_logprobs(outputs(model, batch.forward), batch, sequences, temperature)
                for member, part in zip(batch.members, values.split([len(rows) for rows in batch.rows]), strict=True):
                    results[member] = part.tolist()
        check_logprobs(results, f"log-probabilities under the {weights} weights")
        return results

    @torch.no_grad()
    def kl_to_base(self, sequences: Sequence[TokenSequence]) -> list[list[float]]:
        """As `Learner.kl_to_base`, over the full vocabulary."""
        results: list[list[float]] = [[] for _ in sequences]
        for batch in self.policy.micro_batches(sequences):
            current = outputs(self.policy.model, batch.forward)
            with self.policy.weights("base") as model:
                base = outputs(model, batch.forward)
            divergences = output_divergences(current, base, self._base_weights)
            for member, rows in zip(batch.members, batch.rows, strict=True):
                results[member] = divergences[torch.tensor(rows, device=self.policy.device)].tolist()
        check_logprobs(results, "divergences of the current from the base weights")
        return results

    # -- training ------------------------------------------------------------------------------------------------------

    def train_step(self, datums: Sequence[Datum], loss: LossSettings, learning_rate: float) -> UpdateMetrics:
        """As `Learner.train_step`; any loss that `find_loss` finds."""
        function = find_loss(loss.name)
        if not datums:
            return NO_UPDATE
        _ = self.optimiser  # its hooks sum gradients from the first backward pass on
        sequences = [TokenSequence(datum.context_tokens, datum.completion_tokens) for datum in datums]
        sums = _Sums()
        for batch in self.policy.micro_batches(sequences):
            self._backward(batch, datums, sequences, function, loss, sums)
        return sums.metrics(*self._update(sums.loss, learning_rate))

    def _update(self, loss: float, learning_rate: float) -> tuple[float, str | None]:
        """Apply gradients: their norm, and what of loss and gradient is not finite, for which they are not applied."""
        if not math.isfinite(loss):
            self.optimiser.discard()
            return NAN, "loss"
        self.policy.moved = True
        try:
            norm = self.optimiser.step(learning_rate)
        except DivergedError:
            self.policy_version += 1  # these are other weights
            raise
        if not math.isfinite(norm):
            return norm, "gradient"
        self.policy_version += 1
        return norm, None

    def _backward(
        self,
        batch: MicroBatch,
        datums: Sequence[Datum],
        sequences: Sequence[TokenSequence],
        loss: Loss,
        settings: LossSettings,
        sums: "_Sums",
    ) -> None:
        base_logprobs = None
        if settings.kl_coefficient:
            with torch.no_grad(), self.policy.weights("base") as base:
                # Not kept by a name: their logits are gone before those of the current weights are there.
                base_logprobs, _ = output_logprobs(outputs(base, batch.forward), batch, sequences, settings.temperature)
        current = outputs(self.policy.model, batch.forward)
        learner, entropy = output_logprobs(current, batch, sequences, settings.temperature)
        members = [datums[index] for index in batch.members]
        inputs = LossInputs(
            learner,
            self._flat([value for datum in members for value in datum.sampler_logprobs]),
            self._flat([datum.advantage for datum in members for _ in datum.completion_tokens]),
            self._flat([datum.token_weight for datum in members for _ in datum.completion_tokens]),
            torch.tensor([len(datum.completion_tokens) for datum in members], device=self.policy.device),
            settings,
        )
        fresh = torch.tensor([datum.fresh for datum in members], device=self.policy.device)
        corrected = correct(inputs, fresh)
        output = loss(corrected.inputs)
        penalty = torch.zeros_like(learner) if base_logprobs is None else kl_penalty(learner, base_logprobs)
        policy_loss = corrected.factor_N * output.loss
        total = (corrected.inputs.token_weights_N * (policy_loss + settings.kl_coefficient * penalty)).sum()
        if settings.entropy_coefficient:
            total = total - settings.entropy_coefficient * (corrected.inputs.token_weights_N * entropy).sum()
        ratio = importance_ratio(learner, inputs.sampler_logprobs_N)
        # Places, not a mask, whose number of tokens a GPU would have to be asked for.
        fresh_tokens = [at for at, datum in enumerate(d for d in members for _ in d.completion_tokens) if datum.fresh]
        places = torch.tensor(fresh_tokens, dtype=torch.long, device=self.policy.device)
        sums.mismatch.add((learner.detach() - inputs.sampler_logprobs_N)[places])
        sums.masked += corrected.masked
        total.backward()
        sums.add(total, ratio, output.metrics, entropy.detach(), penalty, batch.computed_tokens)

    def distill_step(
        self, datums: Sequence[DistillDatum], learning_rate: float, temperature: float = 1.0
    ) -> UpdateMetrics:
        """As `Learner.distill_step`."""
        if not datums:
            return NO_UPDATE
        longest = max(len(datum.completion_tokens) for datum in datums)
        check_lengths(self.policy.context_limit, [datum.teacher_context_tokens for datum in datums], longest)
        _ = self.optimiser
        # The teacher's contexts hold the long prompt, so they say what is computed together.
        taught = [TokenSequence(datum.teacher_context_tokens, datum.completion_tokens) for datum in datums]
        parts = [
            self._backward_distilled(batch, [datums[index] for index in batch.members], temperature)
            for batch in self.policy.micro_batches(taught)
        ]
        loss, entropy, tokens, computed = (sum(values) for values in zip(*parts, strict=True))
        norm, bad = self._update(loss, learning_rate)
        return UpdateMetrics(loss, norm, NAN, NAN, NAN, entropy / tokens, NAN, int(tokens), int(computed), bad)

    def _backward_distilled(
        self, teacher: MicroBatch, datums: Sequence[DistillDatum], temperature: float
    ) -> tuple[float, float, int, int]:
        """Gradients from a micro-batch of the teacher's datums; sums of loss and entropy, tokens, computed tokens."""
        with torch.no_grad(), self.policy.weights("base") as base:
            taught = outputs(base, teacher.forward)
        loss = entropy = 0.0
        tokens, computed = 0, teacher.computed_tokens
        for batch in self.policy.micro_batches([TokenSequence(d.context_tokens, d.completion_tokens) for d in datums]):
            members = [datums[index] for index in batch.members]
            weights = self._flat([datum.token_weight for datum in members for _ in datum.completion_tokens])
            teacher_rows = [teacher.rows[index] for index in batch.members]
            divergences, entropies = backward_reverse_kl(
                outputs(self.policy.model, batch.forward),
                taught,
                self._base_weights,
                self._indices(batch.rows),
                self._indices(teacher_rows),
                weights,
                temperature,
            )
            loss += float((weights * divergences).sum())
            entropy += float(entropies.sum())
            tokens += len(divergences)
            computed += batch.computed_tokens
        return loss, entropy, tokens, computed

    def _base_weights(self) -> AbstractContextManager[Any]:
        return self.policy.weights("base")

    # -- inside --------------------------------------------------------------------------------------------------------

    def _flat(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.policy.device)

    def _indices(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor([index for row in rows for index in row], device=self.policy.device)


class _Sums:
    """Running sums over the tokens of one update."""

    def __init__(self) -> None:
        self.loss = self.ratio = self.ratio_max = self.entropy = self.penalty = 0.0
        self.tokens = self.computed_tokens = self.masked = 0
        self.mismatch = Mismatch()
        self.measured: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def add(
        self,
        loss: torch.Tensor,
        ratio: torch.Tensor,
        measured: Mapping[str, torch.Tensor],
        entropy: torch.Tensor,
        penalty: torch.Tensor,
        computed_tokens: int,
    ) -> None:
        """Count one micro-batch. `measured` are the loss's own metrics, of each token or completion."""
        self.loss += float(loss.detach())
        self.ratio += float(ratio.sum())
        self.ratio_max = max(self.ratio_max, float(ratio.max()))
        self.entropy += float(entropy.detach().sum())
        self.penalty += float(penalty.detach().sum())
        self.tokens += len(ratio)
        self.computed_tokens += computed_tokens
        for name, values in measured.items():
            total, count = self.measured[name]
            self.measured[name] = total + float(values.detach().sum()), count + len(values)

    def metrics(self, grad_norm: float, not_finite: str | None) -> UpdateMetrics:
        """The means."""
        n = self.tokens
        own = {name: total / count for name, (total, count) in self.measured.items()}
        clipped = own.pop("clip_fraction", NAN)
        return UpdateMetrics(
            self.loss,
            grad_norm,
            self.ratio / n,
            self.ratio_max,
            clipped,
            self.entropy / n,
            self.penalty / n,
            n,
            self.computed_tokens,
            not_finite,
            own,
            self.mismatch.kl,
            self.mismatch.max,
            self.masked,
        )
