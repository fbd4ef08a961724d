"""The network on this machine: current and base weights, tokenizer, and how sequences are laid out for this model."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from transformers import PreTrainedModel

from fastslow.errors import ConfigError
from fastslow.slow.engine import TokenSequence, Weights
from fastslow.slow.local import attention, loading, lora
from fastslow.slow.local.cpu_memory import keep_freed_memory
from fastslow.slow.local.frozen import freeze
from fastslow.slow.local.memory import GIB, MemoryPlan, make_plan
from fastslow.slow.local.probe import Sharing, decide_sharing
from fastslow.slow.local.recompute import checkpoint_layers
from fastslow.slow.local.scoring import ForestScorer, MicroBatch, PlainScorer
from fastslow.slow.settings import ModelConfig, SlowConfig

if TYPE_CHECKING:
    from peft import PeftModel

    Network: TypeAlias = PreTrainedModel | PeftModel

logger = logging.getLogger(__name__)


class LocalPolicy:
    """What a learner trains and a sampler draws from. `model` is the network itself, updated in place.

    `adapter` is a saved LoRA adapter to start from. `base` is the model that KL is measured against where it is not
    `config` itself (the run's original model, when `config` names a checkpoint of it).
    """

    _memory: MemoryPlan | None = None
    moved = False
    """Whether the weights have been updated."""

    def __init__(
        self, config: ModelConfig, slow: SlowConfig, *, seed: int, adapter: Path | None, base: ModelConfig | None
    ) -> None:
        self.config, self.slow, self.base_config = config, slow, base or config
        self.device = loading.device_of(config)
        if self.device.type == "cpu":
            keep_freed_memory()
        elif self.device.index is not None:
            torch.cuda.set_device(self.device)  # streams and graphs are made on the current device
        self.dtype = loading.compute_dtype(config, self.device)
        self.tokenizer = loading.load_tokenizer(config)
        start = loading.adapter_of(config)
        self.plain_config = loading.without_adapter(config)
        merged = config.lora is None and adapter is None
        network = loading.load_model(config, self.device, self.dtype, merge_adapter=merged)
        self.context_limit = loading.context_limit(network.config.get_text_config())
        self.stop = loading.stop_tokens(network, self.tokenizer)
        self.sharing = self._choose_layout(lora.without_wrapper(network))
        self.model: Network = self._with_adapter(network, adapter, start, seed)
        if slow.freeze and not self.has_adapter:
            freeze(self.model, slow.freeze)
        if slow.activation_checkpointing:
            checkpoint_layers(self.model)
        self._base: PreTrainedModel | None = None

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device.type}, {self.sharing}"

    @property
    def has_adapter(self) -> bool:
        """Whether a LoRA adapter is trained."""
        return hasattr(self.model, "disable_adapter")

    @property
    def is_given(self) -> bool:
        """Whether the model was given as an object, which is trained in place."""
        return loading.given_model(self.base_config) is not None

    def keep_base(self) -> None:
        """Make sure that there are base weights to compare with later: of a model trained in place, a copy now."""
        if self.is_given and not self.has_adapter:
            self.base_model()

    @property
    def adapted(self) -> "PeftModel":
        """The model of a policy that has an adapter."""
        return cast("PeftModel", self.model)

    @property
    def unshared_reason(self) -> str | None:
        """Why prefixes are not shared; None where they are."""
        return self.sharing.reason

    @property
    def pad_token(self) -> int:
        """What fills the rows of batches that are not packed."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.stop)

    # -- layout --------------------------------------------------------------------------------------------------------

    def scorer(self, dtype: torch.dtype) -> ForestScorer | PlainScorer:
        """What measures and trains, in the layout that was chosen for this model."""
        if self.unshared_reason is None:
            return ForestScorer(self.device, dtype)
        return PlainScorer(self.device, self.pad_token)

    def micro_batches(self, sequences: Sequence[TokenSequence]) -> list[MicroBatch]:
        """Sequences in passes of at most `slow.microbatch_tokens` tokens, or of what `slow.memory_gib` holds."""
        if not sequences:
            return []
        plan = self.memory()
        tokens = self.slow.microbatch_tokens if plan is None else plan.pass_tokens(sequences)
        return self.scorer(self.dtype).micro_batches(sequences, tokens)

    def memory(self, *, keeps_base: bool = False, distils: bool = False) -> MemoryPlan | None:
        """The plan of `slow.memory_gib`, made when it is first asked for; None without one.

        `keeps_base`: something beside the KL penalty will ask for the base weights; `distils`: a teacher is computed,
        too.
        """
        if self._memory is None and self.slow.memory_gib is not None:
            scorer, limit = self.scorer(self.dtype), self.context_limit
            self._memory = make_plan(self.model, self.slow, scorer, limit=limit, keeps_base=keeps_base, distils=distils)
        return self._memory

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, an update: a GPU counts what it took, and a warning says where that is above `slow.memory_gib`."""
        plan = self.memory()
        if plan is None or self.device.type != "cuda":
            yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        yield
        taken = torch.cuda.max_memory_allocated(self.device) / GIB
        if taken > plan.budget_gib:
            logger.warning("slow.memory_gib: %g GiB were planned, and an update took %.2f GiB", plan.budget_gib, taken)

    def _choose_layout(self, network: PreTrainedModel) -> Sharing:
        if not self.slow.prefix_sharing:
            return Sharing("slow.prefix_sharing is off")
        sharing = decide_sharing(network, self.tokenizer, self.context_limit or 0)
        if sharing.reason is not None:
            logger.warning("this model is sampled and trained without prefix sharing: %s", sharing.reason)
        return sharing

    # -- weights -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def weights(self, weights: Weights) -> Iterator["Network"]:
        """The model with its current or with its base weights."""
        if weights == "current":
            yield self.model
        elif self.has_adapter:
            with lora.base_weights(self.adapted):
                yield self.model
        else:
            yield self.base_model()

    def base_model(self) -> PreTrainedModel:
        """The frozen copy that full-parameter training needs; made when it is first asked for."""
        if self._base is None:
            if self.moved and self.is_given:
                raise ConfigError(
                    "model: the base weights of a model that was given are gone: it is trained in place, "
                    "and no copy was made"
                )
            self._base = loading.copy_of_base(self.base_config, self.device, self.dtype)
            if self.unshared_reason is None:
                attention.use(self._base)
        return self._base

    def _with_adapter(
        self, network: PreTrainedModel, saved: Path | None, start: lora.Adapter | None, seed: int
    ) -> "Network":
        """The network with the trained adapter, and where the run starts from one, that one beside it, frozen."""
        settings = self.config.lora
        if lora.is_adapted(network):
            return lora.take_adapter(network, saved, trains=settings is not None)
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
