"""Loading a model (a hub id, a local directory or a .gguf file), with or without LoRA, and finding out what it can do."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fastslow.config import LoraConfig, ModelConfig
from fastslow.errors import ConfigError
from fastslow.slow import attention

logger = logging.getLogger(__name__)


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"model.device: {name!r} is not a device: use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"model.device: {name!r} is asked for, but no CUDA device is there: use auto or cpu")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def compute_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The arithmetic's type: float32 on CPUs that only emulate bfloat16, which is several times slower."""
    if config.dtype == "float32":
        return torch.float32
    if has_fast_bfloat16(device):
        return torch.bfloat16
    logger.warning("model.dtype: this %s has no bfloat16 arithmetic, so the engine computes in float32", device.type)
    return torch.float32


def _source(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    path = Path(config.name)
    kwargs: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision:
        kwargs["revision"] = config.revision
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ConfigError(f"model.name: the file {config.name!r} does not exist")
        return str(path.parent), {**kwargs, "gguf_file": path.name}
    return config.name, kwargs


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ConfigError where there is none."""
    name, kwargs = _source(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **kwargs)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.name: no tokenizer could be loaded from {config.name!r}: {error}") from error
    return tokenizer


def load_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The model on its device, in evaluation mode (dropout would make sampling and training disagree)."""
    name, kwargs = _source(config)
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **kwargs)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.name: no causal language model could be loaded from {config.name!r}: {error}"
        ) from error
    _forget_gguf(model)
    return model.to(device).eval()


def _forget_gguf(model: PreTrainedModel) -> None:
    """Transformers still counts a de-quantised GGUF model as quantised, and would refuse to save it."""
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def add_lora(model: PreTrainedModel, config: LoraConfig, seed: int) -> Any:
    """The model with a fresh adapter, which starts as the identity; its float32 weights are all that is trained."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    torch.manual_seed(seed)
    settings = PeftLoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=config.targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, settings).eval()


def load_adapter(model: PreTrainedModel, directory: Path) -> Any:
    """The model with a saved adapter, trainable."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(directory), is_trainable=True).eval()


def stop_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's and those of the generation config."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed: Iterable[int | None] = configured if isinstance(configured, list) else [configured]
    found = frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
    if not found:
        raise ConfigError("model.name: neither the tokenizer nor the generation config names an end-of-sequence token")
    return found


def can_share_prefixes(model: Any, longest_tokens: int) -> str | None:
    """None where packed forests give this model's own numbers, otherwise the reason why they do not.

    Models that are not plain attention over all earlier tokens (recurrent layers, sliding windows, soft caps, learned
    sinks) must not be packed. They are found by what their config says and by trying, not by a list of names.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    layer_types = getattr(model.config.get_text_config(), "layer_types", None) or []
    if window and window < longest_tokens and ("sliding_attention" in layer_types or not layer_types):
        return f"its sliding window of {window} tokens is shorter than the sequences"
    original = model.config._attn_implementation
    sequences = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8], [1, 2, 3, 7, 9, 2]]
    try:
        expected = [_plain_logits(model, sequence) for sequence in sequences]
        model.set_attn_implementation(attention.NAME)
        got = _forest_logits(model, sequences)
    except Exception as error:  # whatever a foreign architecture raises, the answer is the same: do not pack it
        model.set_attn_implementation(original)
        return f"{type(error).__name__}: {error}"
    scale = max(float(row.abs().max()) for row in expected)
    worst = max(float((a - b).abs().max()) for a, b in zip(expected, got, strict=True))
    tolerance = scale * (1e-3 if expected[0].dtype == torch.float32 else 5e-2)
    if worst > tolerance:
        model.set_attn_implementation(original)
        return f"packed logits differ by {worst:.2g} (allowed: {tolerance:.2g})"
    return None


@torch.no_grad()
def _plain_logits(model: Any, sequence: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([sequence], device=model.device)).logits[0, -1]


@torch.no_grad()
def _forest_logits(model: Any, sequences: list[list[int]]) -> list[torch.Tensor]:
    from fastslow.slow.decoders import ForestDecoder

    decoder = ForestDecoder(model, [sequence[:-1] for sequence in sequences], [1] * len(sequences), budget_tokens=64)
    decoder.prefill()
    return list(decoder.step([sequence[-1] for sequence in sequences]))
