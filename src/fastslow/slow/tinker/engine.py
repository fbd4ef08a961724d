"""The remote engine: the slow side on any server that speaks the Tinker API, self-hosted (SkyRL) or hosted.

All requests of a batch are submitted before any is waited for. The tokenizer and the chat template run here, the model
there. A checkpoint holds the trained weights as an adapter that PEFT loads, and the name of the state (weights and
optimiser) that the server keeps.

Deviations from the local engine: `kl_to_base` is a Monte-Carlo estimate, since the API gives log-probabilities of
tokens alone, and distillation is not to be had for the same reason; LoRA's alpha and its targets are the server's;
the KL penalty, see `datums.py`; a loss or a gradient norm that is not finite is known only after the server has
taken the step, with or without moving the weights, so the policy version moves. Servers differ in what they take of
AdamW: docs/scale-out.md.
"""

import json
import logging
import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fastslow.errors import ConfigError, ResumeError, ServerError
from fastslow.slow.chat import ChatRenderer
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
from fastslow.slow.finite import check_logprobs
from fastslow.slow.limits import check_lengths
from fastslow.slow.local import loading
from fastslow.slow.local.adapter_files import complete_adapter
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.slow.tinker.checks import (
    STATE,
    check_entropy,
    check_no_correction,
    check_temperature,
    read_state,
    server_limit,
    server_name,
)
from fastslow.slow.tinker.datums import (
    DIALECTS,
    ServerDatum,
    kl_estimates,
    loss_config,
    scoring_datum,
    server_datums,
    server_loss,
    update_metrics,
)
from fastslow.slow.tinker.server import RefusedError, Server
from fastslow.slow.tinker.settings import TinkerConfig
from fastslow.types import Completion, FinishReason, Message

if TYPE_CHECKING:
    from tinker import (
        AdamParams,
        APIFuture,
        ForwardBackwardOutput,
        SampledSequence,
        SamplingClient,
        TrainingClient,
        types,
    )

logger = logging.getLogger(__name__)

SERVER_ALPHA = 32
ADAM_EPSILON = 1e-8
# Servers add the index of a completion to its seed, and may keep seeds in 32 bits.
SEEDS = 2**30


class TinkerEngine:
    """A `PolicyEngine` on a server.

    `checkpoint` is a saved checkpoint to start from, without its optimiser. `train` false: the base weights, which take
    no place for an adapter on the server.
    """

    kl_is_exact = False

    def __init__(
        self,
        model: ModelConfig,
        slow: SlowConfig,
        tinker: TinkerConfig,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        train: bool = True,
    ) -> None:
        self.config, self.slow, self.settings, self.seed = model, slow, tinker, seed
        self.dialect = DIALECTS[tinker.backend]
        self.base_name = server_name(model, tinker)
        self.tokenizer = loading.load_tokenizer(model)
        self.renderer = ChatRenderer(
            self.tokenizer, model.chat_template_kwargs, parse_special=model.special_tokens_in_text
        )
        text, generation = loading.load_settings(model)
        self.context_limit = server_limit(model, tinker, loading.context_limit(text))
        self.intact = True
        self.stop = loading.stop_tokens(SimpleNamespace(generation_config=generation), self.tokenizer)
        self.policy_version = 0
        self.server = Server(tinker)
        self._base: SamplingClient | None = None
        self._sampler: SamplingClient | None = None
        self._trainer: TrainingClient | None = None
        self._untouched = True
        if train or checkpoint is not None:
            self._trainer = self._new_trainer()
        if checkpoint is not None:
            self._load_state(read_state(checkpoint), optimiser=False)

    def describe(self) -> str:
        """Which model, on which server."""
        return f"{self.base_name} on the server at {self.settings.base_url}, taken as {self.settings.backend!r}"

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
        from tinker import types

        check_lengths(self.context_limit, [request.context_tokens for request in requests], params.max_tokens)
        asked = [request for request in requests if request.n]
        if not asked:
            return [[] for _ in requests]
        sampler = self._sampling_client()
        futures = [
            sampler.sample(
                prompt=types.ModelInput.from_ints(list(request.context_tokens)),
                num_samples=request.n,
                sampling_params=types.SamplingParams(
                    max_tokens=params.max_tokens,
                    temperature=params.temperature,
                    top_p=params.top_p,
                    seed=request.seed % SEEDS,
                    stop=sorted(self.stop),
                ),
            )
            for request in asked
        ]
        answers = iter(self.server.wait(futures))
        return [[self._completion(s) for s in next(answers).sequences] if request.n else [] for request in requests]

    def sync(self) -> None:
        """The next completions come from a client of the weights as they are then."""
        self._sampler = None

    def _completion(self, sequence: "SampledSequence") -> Completion:
        if sequence.logprobs is None or not sequence.tokens:
            raise ServerError(f"the server at {self.settings.base_url} sampled without tokens or log-probabilities")
        reason: FinishReason = "stop" if sequence.stop_reason == "stop" else "length"
        check_logprobs(
            [sequence.logprobs], f"log-probabilities that the server at {self.settings.base_url} sampled with"
        )
        return Completion(tuple(sequence.tokens), tuple(sequence.logprobs), reason)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def logprobs(self, sequences: Sequence[TokenSequence], weights: Weights = "current") -> list[list[float]]:
        """As `Learner.logprobs`."""
        (rows,) = self._scored(sequences, [weights])
        return rows

    def kl_to_base(self, sequences: Sequence[TokenSequence]) -> list[list[float]]:
        """As `Learner.kl_to_base`: an estimate."""
        current, base = self._scored(sequences, ["current", "base"])
        return [kl_estimates(c, b) for c, b in zip(current, base, strict=True)]

    def _scored(self, sequences: Sequence[TokenSequence], asked: Sequence[Weights]) -> list[list[list[float]]]:
        """Log-probabilities under each of the weights that are asked for, all requested at once."""
        if not sequences:
            return [[] for _ in asked]
        learner = [weights == "current" and self._trainer is not None for weights in asked]
        submitted = [self._submit_forward(sequences) if own else self._submit_base(sequences) for own in learner]
        answers = iter(self.server.wait([future for futures in submitted for future in futures]))
        found = [
            _learner_rows(next(answers), sequences)
            if own
            else [self._base_row(next(answers), sequence) for sequence in sequences]
            for own in learner
        ]
        for rows in found:
            check_logprobs(rows, f"log-probabilities that the server at {self.settings.base_url} computed")
        return found

    def _submit_forward(self, sequences: Sequence[TokenSequence]) -> "list[APIFuture]":
        self._untouched = False
        return [self._own().forward([_sent(scoring_datum(s)) for s in sequences], "cross_entropy")]

    def _submit_base(self, sequences: Sequence[TokenSequence]) -> "list[APIFuture]":
        from tinker import types

        base = self._base_client()
        contexts = [[*sequence.context_tokens, *sequence.completion_tokens] for sequence in sequences]
        return [base.compute_logprobs(types.ModelInput.from_ints(tokens)) for tokens in contexts]

    def _base_row(self, answer: Sequence[float | None] | None, sequence: TokenSequence) -> list[float]:
        told = [] if answer is None else list(answer)[-len(sequence.completion_tokens) :]
        row = [value for value in told if value is not None]
        if len(row) < len(sequence.completion_tokens):
            raise ConfigError(
                f"slow.kl_coefficient, evaluation.kl_problems: the server at {self.settings.base_url} gives no "
                "log-probabilities of the base model: set both to 0"
            )
        return row

    # -- training ------------------------------------------------------------------------------------------------------

    def train_step(self, datums: Sequence[Datum], loss: LossSettings, learning_rate: float) -> UpdateMetrics:
        """As `Learner.train_step`, of the losses of the Tinker API."""
        name = server_loss(loss.name)
        check_temperature(loss.temperature)
        check_no_correction(loss.correction.kind)
        check_entropy(loss.entropy_coefficient)
        if not datums:
            return NO_UPDATE
        sequences = [TokenSequence(datum.context_tokens, datum.completion_tokens) for datum in datums]
        base = self._scored(sequences, ["base"])[0] if loss.kl_coefficient else None
        sent = [_sent(datum) for datum in server_datums(datums, loss, base, self.dialect.reduction)]
        self._untouched = self.intact = False
        backward = self._own().forward_backward(sent, name, loss_config(self.dialect, loss))
        step = self._own().optim_step(self._adam(learning_rate))
        output, stepped = self.server.wait([backward, step])
        self.intact = True
        self.sync()
        self.policy_version += 1
        norm = _grad_norm(stepped.metrics)
        metrics = update_metrics(datums, _learner_rows(output, sequences), base, loss, NAN if norm is None else norm)
        if not math.isfinite(metrics.loss):
            return replace(metrics, not_finite="loss")
        return metrics if norm is None or math.isfinite(norm) else replace(metrics, not_finite="gradient")

    def _adam(self, learning_rate: float) -> "AdamParams":
        from tinker import types

        beta1, beta2 = self.slow.betas
        return types.AdamParams(
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            eps=ADAM_EPSILON,
            weight_decay=self.slow.weight_decay,
            grad_clip_norm=self.slow.max_grad_norm or 0.0,
        )

    def distill_step(
        self, datums: Sequence[DistillDatum], learning_rate: float, temperature: float = 1.0
    ) -> UpdateMetrics:
        """As `Learner.distill_step`: always refused."""
        raise ConfigError(
            "method: 'distill' needs whole distributions, which the Tinker API does not give: engine: local"
        )

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, directory: Path, *, resumable: bool) -> None:
        """As `Checkpoints.save`; the server keeps the state."""
        directory.mkdir(parents=True, exist_ok=True)
        # A server refuses a name that it knows, and a resumed run comes by the same versions again.
        name = f"v{self.policy_version}-{uuid.uuid4().hex[:8]}"
        self._untouched = False
        state = self._own().save_state(name)
        weights = self._own().save_weights_for_sampler(name)
        saved, exported = self.server.wait([state, weights])
        if self.settings.download_weights:
            self.server.download(exported.path, directory)
            complete_adapter(directory, self.config.name)
        self.tokenizer.save_pretrained(directory)
        record = {"state": saved.path, "policy_version": self.policy_version, "resumable": resumable}
        (directory / STATE).write_text(json.dumps(record) + "\n", encoding="utf-8")

    def load(self, directory: Path) -> None:
        """As `Checkpoints.load`."""
        record = read_state(directory)
        if not self._untouched:
            # Servers take a state as a model's first request only.
            self._trainer = self._new_trainer()
        self._load_state(record, optimiser=True)

    def _load_state(self, record: dict[str, Any], *, optimiser: bool) -> None:
        load = self._own().load_state_with_optimizer if optimiser else self._own().load_state
        try:
            self.server.wait([load(record["state"])])
        except RefusedError as error:
            raise ResumeError(
                f"the server at {self.settings.base_url} does not give the state {record['state']!r} back: it keeps "
                f"states in its database and its checkpoint directory, start it with both. {error}"
            ) from error
        self._untouched = False
        self.sync()
        self.policy_version = int(record["policy_version"])

    # -- inside --------------------------------------------------------------------------------------------------------

    def _new_trainer(self) -> "TrainingClient":
        lora = self.config.lora
        if lora is not None and lora.alpha != SERVER_ALPHA:
            logger.warning("model.lora.alpha: %d is not used: the server has its own, %d", lora.alpha, SERVER_ALPHA)
        try:
            trainer = self.server.call(
                self.server.service.create_lora_training_client,
                base_model=self.base_name,
                rank=0 if lora is None else lora.rank,
                seed=self.seed % SEEDS,
                train_unembed=False,
            )
        except RefusedError as error:
            raise ConfigError(
                f"model.name, model.lora.rank: {self.base_name!r} with rank {0 if lora is None else lora.rank} cannot "
                f"be trained there: {error}"
            ) from error
        self._untouched = True
        return trainer

    def _own(self) -> "TrainingClient":
        if self._trainer is None:
            raise ValueError("this engine was made to sample, not to train")
        return self._trainer

    def _sampling_client(self) -> "SamplingClient":
        """A client of the current weights: a new one after every update."""
        if self._trainer is None:
            return self._base_client()
        if self._sampler is None:
            self._untouched = False
            self._sampler = self.server.call(self._own().save_weights_and_get_sampling_client)
        return self._sampler

    def _base_client(self) -> "SamplingClient":
        if self._base is None:
            self._base = self.server.call(self.server.service.create_sampling_client, base_model=self.base_name)
        return self._base


def _sent(datum: ServerDatum) -> "types.Datum":
    from tinker import types

    return types.Datum(
        model_input=types.ModelInput.from_ints(list(datum.input_tokens)),
        loss_fn_inputs={
            "target_tokens": list(datum.target_tokens),
            "logprobs": list(datum.logprobs),
            "advantages": list(datum.advantages),
        },
    )


def _learner_rows(output: "ForwardBackwardOutput", sequences: Sequence[TokenSequence]) -> list[list[float]]:
    """The learner's log-probabilities of the completion tokens, which are the last targets of each datum."""
    return [
        list(row["logprobs"].data)[-len(sequence.completion_tokens) :]
        for row, sequence in zip(output.loss_fn_outputs, sequences, strict=True)
    ]


def _grad_norm(metrics: dict[str, float] | None) -> float | None:
    """Servers name it `skyrl.ai/grad_norm` and alike; None where it is not told."""
    return next((float(value) for name, value in (metrics or {}).items() if "grad_norm" in name), None)
