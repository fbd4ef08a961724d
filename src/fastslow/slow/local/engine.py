"""The local engine: PyTorch and transformers, on a CPU or one GPU.

It is fast because it does no needless work. Sampling and training both run on packed forests, so a context is computed
once for its n samples and a system prompt once for all problems under it; finished sequences leave the batch; logits
are computed at completion positions only; the sampler's own log-probabilities are the behaviour policy.

Deviations from the paper: gradients are clipped to norm 1 (the paper is silent); an update without any datum leaves
weights, optimiser state and policy version as they are, and so does one whose loss or gradient is NaN or infinite.
"""

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fastslow.errors import DivergedError
from fastslow.slow.chat import ChatRenderer
from fastslow.slow.distillation import reverse_kl
from fastslow.slow.engine import (
    NAN,
    NO_UPDATE,
    Datum,
    DistillDatum,
    LossSettings,
    SampleRequest,
    SamplingParams,
    TokenSequence,
    UpdateMetrics,
    Weights,
)
from fastslow.slow.finite import check_finite, check_logprobs
from fastslow.slow.limits import check_lengths
from fastslow.slow.local import attention, loading, lora
from fastslow.slow.local.cpu_memory import keep_freed_memory
from fastslow.slow.local.optimizer import MasterAdamW
from fastslow.slow.local.probe import Sharing, decide_sharing
from fastslow.slow.local.scoring import (
    ForestScorer,
    MicroBatch,
    PlainScorer,
    Scorer,
    kl_divergences,
    token_logprobs,
)
from fastslow.slow.losses import LOSSES, check_loss, importance_ratio, kl_penalty
from fastslow.slow.samplers.decoders import Decoder, ForestDecoder, PlainDecoder
from fastslow.slow.samplers.drawing import sample_rows
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion, Message

logger = logging.getLogger(__name__)


class LocalEngine:
    """A `PolicyEngine` on this machine.

    `adapter` is a saved LoRA adapter to start from. `base` is the model that KL is measured against where it is not
    `model` itself (the run's original model, when `model` is a checkpoint of it).
    """

    kl_is_exact = True

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
        self.config, self.slow, self.base_config = model, slow or SlowConfig(), base or model
        self.device = loading.pick_device(model.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.dtype = loading.compute_dtype(model, self.device)
        self.tokenizer = loading.load_tokenizer(model)
        self.renderer = ChatRenderer(self.tokenizer, model.chat_template_kwargs)
        start = loading.adapter_of(model)
        self._plain = loading.without_adapter(model)
        merged = model.lora is None and adapter is None
        network = loading.load_model(model, self.device, self.dtype, merge_adapter=merged)
        self.context_limit = loading.context_limit(network.config.get_text_config())
        self.stop = loading.stop_tokens(network, self.tokenizer)
        self.sharing = self._choose_layout(network)
        self.model: Any = self._with_adapter(network, adapter, start, seed)
        self.policy_version = 0
        self.sampled_tokens = self.computed_tokens = 0
        self._optimizer: MasterAdamW | None = None
        self._base: Any = None

    @property
    def intact(self) -> bool:
        return self._optimizer is None or not self._optimizer.moving

    def describe(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}, {self.sharing}"

    # -- text ----------------------------------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.renderer.encode(messages)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    # -- sampling ------------------------------------------------------------------------------------------------------

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        check_lengths(self.context_limit, [request.context_tokens for request in requests], params.max_tokens)
        order = sorted(range(len(requests)), key=lambda index: (requests[index].context_tokens, index))
        results: list[list[Completion]] = [[] for _ in requests]
        for chunk in self._chunks(requests, order):
            chosen = [requests[index] for index in chunk]
            for index, completions in zip(chunk, self._sample_chunk(chosen, params), strict=True):
                results[index] += completions
        return results

    def _chunks(self, requests: Sequence[SampleRequest], order: Sequence[int]) -> Iterator[list[int]]:
        """Requests in batches of about `sample_rows` rows, neighbours in the forest together."""
        chunk: list[int] = []
        for index in order:
            if chunk and sum(requests[i].n for i in chunk) + requests[index].n > self.slow.sample_rows:
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk

    def _sample_chunk(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        decoders: list[Decoder] = []

        def make_decoder(requests: Sequence[SampleRequest]) -> Decoder:
            decoders.append(self.decoder([r.context_tokens for r in requests], [r.n for r in requests]))
            return decoders[-1]

        completions = sample_rows(requests, params, make_decoder, self.stop)
        self.computed_tokens += sum(decoder.computed_tokens for decoder in decoders)
        self.sampled_tokens += sum(len(c.tokens) for row in completions for c in row)
        return completions

    # -- measuring -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logprobs(self, sequences: Sequence[TokenSequence], weights: Weights = "current") -> list[list[float]]:
        results: list[list[float]] = [[] for _ in sequences]
        with self._weights(weights) as model:
            for batch in self._micro_batches(sequences):
                values, _ = token_logprobs(batch.forward(model), batch, sequences)
                for member, part in zip(batch.members, values.split([len(rows) for rows in batch.rows]), strict=True):
                    results[member] = part.tolist()
        check_logprobs(results, f"log-probabilities under the {weights} weights")
        return results

    @torch.no_grad()
    def kl_to_base(self, sequences: Sequence[TokenSequence]) -> list[list[float]]:
        results: list[list[float]] = [[] for _ in sequences]
        for batch in self._micro_batches(sequences):
            logits = batch.forward(self.model)
            with self._weights("base") as base:
                divergences = kl_divergences(logits, batch.forward(base))
            for member, rows in zip(batch.members, batch.rows, strict=True):
                results[member] = divergences[torch.tensor(rows, device=self.device)].tolist()
        check_logprobs(results, "divergences of the current from the base weights")
        return results

    # -- training ------------------------------------------------------------------------------------------------------

    def train_step(self, datums: Sequence[Datum], loss: LossSettings, learning_rate: float) -> UpdateMetrics:
        check_loss(loss.name)
        if not datums:
            return NO_UPDATE
        self._optimizer_ready()
        sequences = [TokenSequence(datum.context_tokens, datum.completion_tokens) for datum in datums]
        sums = _Sums()
        for batch in self._micro_batches(sequences):
            self._backward(batch, datums, sequences, loss, sums)
        return sums.metrics(*self._update(sums.loss, learning_rate))

    def _update(self, loss: float, learning_rate: float) -> tuple[float, str | None]:
        """Apply the gradients: their norm, and what of loss and gradient is not finite, for which they are not applied."""
        optimizer = self._optimizer_ready()
        if not math.isfinite(loss):
            optimizer.discard()
            return NAN, "loss"
        try:
            norm = optimizer.step(learning_rate)
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
        settings: LossSettings,
        sums: "_Sums",
    ) -> None:
        base_logprobs = None
        if settings.kl_coefficient:
            with torch.no_grad(), self._weights("base") as base:
                base_logprobs, _ = token_logprobs(batch.forward(base), batch, sequences, settings.temperature)
        logits = batch.forward(self.model)
        learner, entropy = token_logprobs(logits, batch, sequences, settings.temperature)
        members = [datums[index] for index in batch.members]
        sampler = self._flat([value for datum in members for value in datum.sampler_logprobs])
        advantages = self._flat([datum.advantage for datum in members for _ in datum.completion_tokens])
        weights = self._flat([datum.token_weight for datum in members for _ in datum.completion_tokens])
        per_token = LOSSES[settings.name](learner, sampler, advantages, settings.tau)
        penalty = torch.zeros_like(learner) if base_logprobs is None else kl_penalty(learner, base_logprobs)
        total = (weights * (per_token + settings.kl_coefficient * penalty)).sum()
        ratio = importance_ratio(learner, sampler)
        total.backward()
        sums.add(total, ratio, settings.tau, entropy, penalty, batch.computed_tokens)

    def distill_step(
        self, datums: Sequence[DistillDatum], learning_rate: float, temperature: float = 1.0
    ) -> UpdateMetrics:
        if not datums:
            return NO_UPDATE
        longest = max(len(datum.completion_tokens) for datum in datums)
        check_lengths(self.context_limit, [datum.teacher_context_tokens for datum in datums], longest)
        self._optimizer_ready()
        # The teacher's contexts hold the long prompt, so they say what is computed together.
        taught = [TokenSequence(datum.teacher_context_tokens, datum.completion_tokens) for datum in datums]
        parts = [
            self._backward_distilled(batch, [datums[index] for index in batch.members], temperature)
            for batch in self._micro_batches(taught)
        ]
        loss, entropy, tokens, computed = (sum(values) for values in zip(*parts, strict=True))
        norm, bad = self._update(loss, learning_rate)
        return UpdateMetrics(loss, norm, NAN, NAN, NAN, entropy / tokens, NAN, int(tokens), int(computed), bad)

    def _backward_distilled(
        self, teacher: MicroBatch, datums: Sequence[DistillDatum], temperature: float
    ) -> tuple[float, float, int, int]:
        """Gradients from the datums of one micro-batch of the teacher; sums of loss and entropy, tokens, computed tokens."""
        with torch.no_grad(), self._weights("base") as base:
            teacher_logits = teacher.forward(base)
        loss = entropy = 0.0
        tokens, computed = 0, teacher.computed_tokens
        for batch in self._micro_batches([TokenSequence(d.context_tokens, d.completion_tokens) for d in datums]):
            members = [datums[index] for index in batch.members]
            weights = self._flat([datum.token_weight for datum in members for _ in datum.completion_tokens])
            teacher_rows = [teacher.rows[index] for index in batch.members]
            logits = batch.forward(self.model)
            divergences, entropies = reverse_kl(
                logits.detach(),
                teacher_logits,
                self._indices(batch.rows),
                self._indices(teacher_rows),
                weights,
                temperature,
            )
            logits.backward(logits.detach())
            loss += float((weights * divergences).sum())
            entropy += float(entropies.sum())
            tokens += len(divergences)
            computed += batch.computed_tokens
        return loss, entropy, tokens, computed

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, directory: Path, *, resumable: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if self._has_adapter:
            lora.save_lora(self.model, directory, self._plain)
        else:
            self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        if resumable:
            state = directory / "resume"
            state.mkdir(exist_ok=True)
            self._optimizer_ready().save(state)
            (state / "engine.json").write_text(json.dumps({"policy_version": self.policy_version}), encoding="utf-8")

    def load(self, directory: Path) -> None:
        state = directory / "resume"
        self._load_weights(directory)
        self._optimizer_ready().load(state)
        self.policy_version = json.loads((state / "engine.json").read_text(encoding="utf-8"))["policy_version"]

    def _load_weights(self, directory: Path) -> None:
        from peft import load_peft_weights, set_peft_model_state_dict

        if self.config.lora is not None:
            weights = load_peft_weights(str(directory), device=str(self.device))
            check_finite(weights, f"the weights of the adapter {str(directory)!r}")
            set_peft_model_state_dict(self.model, weights)
            return
        self._base_model()  # the frozen copy is taken from the original weights, before they are replaced
        saved = ModelConfig(
            name=str(directory), dtype=self.config.dtype, trust_remote_code=self.config.trust_remote_code
        )
        self.model.load_state_dict(loading.load_model(saved, self.device, self.dtype).state_dict())

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _pad_token(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.stop)

    @property
    def _has_adapter(self) -> bool:
        return hasattr(self.model, "disable_adapter")

    def decoder(self, contexts: Sequence[Sequence[int]], counts: Sequence[int]) -> Decoder:
        """What samples, in the layout that was chosen for this model."""
        if self.unshared_reason is None:
            return ForestDecoder(self.model, contexts, counts, self.slow.microbatch_tokens)
        return PlainDecoder(self.model, contexts, counts, self._pad_token)

    def scorer(self, dtype: torch.dtype) -> Scorer:
        """What measures and trains, in the layout that was chosen for this model."""
        if self.unshared_reason is None:
            return ForestScorer(self.device, dtype)
        return PlainScorer(self.device, self._pad_token)

    @property
    def unshared_reason(self) -> str | None:
        return self.sharing.reason

    def _choose_layout(self, network: Any) -> Sharing:
        if not self.slow.prefix_sharing:
            return Sharing("slow.prefix_sharing is off")
        sharing = decide_sharing(network, self.tokenizer, self.context_limit or 0)
        if sharing.reason is not None:
            logger.warning("this model is sampled and trained without prefix sharing: %s", sharing.reason)
        return sharing

    def _with_adapter(self, network: Any, saved: Path | None, start: lora.Adapter | None, seed: int) -> Any:
        """The network with the adapter that is trained, and where the run starts from one, that one beside it, frozen."""
        settings = self.config.lora
        if saved is not None:
            policy = lora.load_adapter(network, saved)
        elif settings is None:
            return network
        elif start is None:
            policy = lora.add_lora(network, settings, seed)
        else:
            policy = lora.continue_lora(network, settings, start, seed)
        if start is not None:
            lora.keep_base(policy, start)
        return policy

    def _micro_batches(self, sequences: Sequence[TokenSequence]) -> list[MicroBatch]:
        return self.scorer(self.dtype).micro_batches(sequences, self.slow.microbatch_tokens) if sequences else []

    def _optimizer_ready(self) -> MasterAdamW:
        if self._optimizer is None:
            self._optimizer = MasterAdamW(self.model, self.slow)
        return self._optimizer

    @contextlib.contextmanager
    def _weights(self, weights: Weights) -> Iterator[Any]:
        """The model with its current or with its base weights."""
        if weights == "current":
            yield self.model
        elif self._has_adapter:
            with lora.base_weights(self.model):
                yield self.model
        else:
            yield self._base_model()

    def _base_model(self) -> Any:
        """The frozen copy that full-parameter training needs; loaded when it is first asked for."""
        if self._base is None:
            self._base = loading.load_model(self.base_config, self.device, self.dtype)
            if self.unshared_reason is None:
                self._base.set_attn_implementation(attention.NAME)
        return self._base

    def _flat(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def _indices(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor([index for row in rows for index in row], device=self.device)


class _Sums:
    """Running sums over the tokens of one update."""

    def __init__(self) -> None:
        self.loss = self.ratio = self.ratio_max = self.clipped = self.entropy = self.penalty = 0.0
        self.tokens = self.computed_tokens = 0

    def add(
        self,
        loss: torch.Tensor,
        ratio: torch.Tensor,
        tau: float,
        entropy: torch.Tensor,
        penalty: torch.Tensor,
        computed_tokens: int,
    ) -> None:
        self.loss += float(loss.detach())
        self.ratio += float(ratio.sum())
        self.ratio_max = max(self.ratio_max, float(ratio.max()))
        self.clipped += float((ratio > tau).sum())
        self.entropy += float(entropy.sum())
        self.penalty += float(penalty.detach().sum())
        self.tokens += len(ratio)
        self.computed_tokens += computed_tokens

    def metrics(self, grad_norm: float, not_finite: str | None) -> UpdateMetrics:
        n = self.tokens
        return UpdateMetrics(
            self.loss, grad_norm, self.ratio / n, self.ratio_max, self.clipped / n, self.entropy / n, self.penalty / n,
            n, self.computed_tokens, not_finite,
        )  # fmt: skip
