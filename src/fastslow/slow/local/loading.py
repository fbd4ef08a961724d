"""Loading a model (a hub id, a local directory, a .gguf file or an adapter), and finding out what it can do.

`model.name` may be a PEFT adapter, such as the checkpoint of a run with LoRA: see `lora.py`. From Python it may stand
for a model that is loaded already: that object itself is trained, and the base policy is a copy of it.
"""

import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fastslow import given
from fastslow.errors import ConfigError
from fastslow.resources import PREFIX, resolve_path
from fastslow.slow.finite import check_finite
from fastslow.slow.local import lora
from fastslow.slow.settings import ModelConfig
from fastslow.text import shown

logger = logging.getLogger(__name__)


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"model.device: {shown(name)} is not a device: use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"model.device: {shown(name)} is not supported: use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"model.device: {shown(name)} is asked for, but no such CUDA device is there: use auto or cpu"
        )
    return device


def given_model(config: ModelConfig) -> Any:
    """The loaded model, of transformers or of PEFT, that `model.name` stands for; None where it is a name."""
    if not (given.is_lent(config.name) or given.is_placeholder(config.name)):
        return None
    return given.find(config.name, "model.name")


def device_of(config: ModelConfig) -> torch.device:
    """Where a model computes: a loaded one where it is, or as the config says. Raises ConfigError as `pick_device`."""
    found = given_model(config)
    if found is not None and config.device == "auto":
        return torch.device(found.device)
    return pick_device(config.device)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def compute_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The arithmetic's type: float32 on CPUs that only emulate bfloat16, which is several times slower;
    of a loaded model its own.
    """
    found = given_model(config)
    if found is not None:
        own: torch.dtype = torch.float32 if found.dtype == torch.float16 else found.dtype
        if str(own) != f"torch.{config.dtype}":
            raise ConfigError(
                f"model.dtype: {config.dtype!r}, and the model that was given computes in {own}: leave it out"
            )
        return own
    if config.dtype == "float32":
        return torch.float32
    if has_fast_bfloat16(device):
        return torch.bfloat16
    logger.warning("model.dtype: this %s has no bfloat16 arithmetic, so the engine computes in float32", device.type)
    return torch.float32


def source_of(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes for a model: its name and keywords. Raises ConfigError where a .gguf is missing."""
    path = Path(resolve_path(config.name, "model.name"))
    kwargs: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision:
        kwargs["revision"] = config.revision
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ConfigError(f"model.name: the file {config.name!r} does not exist")
        return str(path.parent), {**kwargs, "gguf_file": path.name}
    return str(path) if config.name.startswith(PREFIX) else config.name, kwargs


def adapter_of(config: ModelConfig) -> lora.Adapter | None:
    """The adapter that `model.name` is, or None where it is a model. Raises ConfigError where its base is not named."""
    if given_model(config) is not None:
        return None
    name, kwargs = source_of(config)
    return None if "gguf_file" in kwargs else lora.find_adapter(config, name)


def without_adapter(config: ModelConfig) -> ModelConfig:
    """The config of the model that an adapter was trained on; the config itself where `model.name` is a model."""
    adapter = adapter_of(config)
    if adapter is None:
        return config
    base = config.model_copy(update={"name": adapter.base, "revision": adapter.base_revision})
    if adapter_of(base) is not None:
        raise ConfigError(
            f"model.name: the base of the adapter {config.name!r} is an adapter itself, {adapter.base!r}: merge that "
            "one into its base first (PEFT: merge_and_unload)"
        )
    return base


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """That of `model.tokenizer`, or the model's; of an adapter that has none, its base's. Raises ConfigError."""
    if config.tokenizer is not None:
        return _named_tokenizer(config, config.tokenizer)
    found = given_model(config)
    if found is not None:
        return _tokenizer_of(found)
    name, kwargs = source_of(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **kwargs)
    except Exception as error:  # loaders raise what they like for a damaged or foreign file
        if (base := without_adapter(config)) != config:
            return load_tokenizer(base)
        raise ConfigError(
            f"model.name: no tokenizer could be loaded from {config.name!r}: {lora.told(error)}"
        ) from error
    return tokenizer


def _named_tokenizer(config: ModelConfig, name: str) -> PreTrainedTokenizerBase:
    if given.is_lent(name) or given.is_placeholder(name):
        found: PreTrainedTokenizerBase = given.find(name, "model.tokenizer")
        return found
    path = resolve_path(name, "model.tokenizer")
    try:
        named: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=config.trust_remote_code)
    except Exception as error:  # loaders raise what they like for a damaged or foreign file
        raise ConfigError(f"model.tokenizer: none could be loaded from {name!r}: {lora.told(error)}") from error
    return named


def _tokenizer_of(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer that lies where a loaded model came from."""
    name = getattr(model, "name_or_path", "")
    try:
        if not name:
            raise OSError("it was not loaded by a name")
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # loaders raise what they like for a damaged or foreign file
        raise ConfigError(
            f"tokenizer: is missing, and none could be loaded for the model that was given: {lora.told(error)}. Give "
            "the tokenizer beside the model"
        ) from error
    return found


def load_text_config(config: ModelConfig) -> Any:
    """The text model's config, without any weights. Raises ConfigError where there is none."""
    return _load_config(config).get_text_config()


def _load_config(config: ModelConfig) -> Any:
    found = given_model(config)
    if found is not None:
        return found.config
    name, kwargs = source_of(without_adapter(config))
    try:
        return AutoConfig.from_pretrained(name, **kwargs)
    except Exception as error:  # loaders raise what they like for a damaged or foreign file
        raise ConfigError(
            f"model.name: no model config could be loaded from {config.name!r}: {lora.told(error)}"
        ) from error


def load_settings(config: ModelConfig) -> tuple[Any, Any]:
    """The text model's config and the generation config, without any weights. Raises ConfigError without."""
    settings = _load_config(config)
    found = given_model(config)
    if found is not None:
        return settings.get_text_config(), found.generation_config
    name, kwargs = source_of(without_adapter(config))
    try:
        generation = GenerationConfig.from_pretrained(name, **kwargs)
    except OSError:
        generation = GenerationConfig.from_model_config(settings)
    return settings.get_text_config(), generation


def context_limit(settings: object) -> int | None:
    """Positions of a text model's context; None where its config does not say."""
    limit: int | None = getattr(settings, "max_position_embeddings", None)
    return limit


def load_model(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, *, merge_adapter: bool = True
) -> PreTrainedModel:
    """The model on its device, in evaluation mode (dropout would make sampling and training disagree).
    Where `model.name` is an adapter: its base, with the adapter merged into it or without. Where it is a
    loaded model: that object.

    Raises: ConfigError where it cannot be loaded, or where a weight is not finite.
    """
    found = given_model(config)
    if found is not None:
        return _as_given(found, device, dtype)
    base, adapter = without_adapter(config), adapter_of(config)
    name, kwargs = source_of(base)
    origin = "" if adapter is None else f", the base of the adapter {config.name!r}"
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **kwargs)
    except Exception as error:  # loaders raise what they like for a damaged or foreign file
        raise ConfigError(
            f"model.name: no causal language model could be loaded from {base.name!r}{origin}: {lora.told(error)}"
        ) from error
    _forget_gguf(model)
    torch.nn.Module.to(model, device)
    check_finite(dict(model.named_parameters()), f"model.name: the weights of {base.name!r}")
    model.eval()
    return lora.merge(model, adapter) if adapter is not None and merge_adapter else model


def copy_of_base(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The base policy as a model of its own: loaded by its name, or copied from a loaded model,
    whose weights must not have moved yet.
    """
    found = given_model(config)
    return load_model(config, device, dtype) if found is None else copy.deepcopy(found).eval()


def _as_given(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A loaded model, made ready in place."""
    if model.dtype != dtype:
        logger.warning("model: was given in %s and is trained in %s", model.dtype, dtype)
        torch.nn.Module.to(model, dtype)
    torch.nn.Module.to(model, device)
    floats = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    check_finite(floats, "model: the weights of the model that was given")
    model.eval()
    return model


def _forget_gguf(model: PreTrainedModel) -> None:
    """Transformers still counts a de-quantised GGUF model as quantised, and would refuse to save it."""
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def stop_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's and those of the generation config."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed: Iterable[int | None] = configured if isinstance(configured, list) else [configured]
    found = frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
    if not found:
        raise ConfigError("model.name: neither the tokenizer nor the generation config names an end-of-sequence token")
    return found
