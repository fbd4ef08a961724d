"""LoRA through PEFT: fresh adapters, and adapters to start from.

Where `model.name` is an adapter (the checkpoint of a run with LoRA), a run goes on from its weights:

- with a `model.lora` section the adapter itself is trained on, so that what is saved is an adapter of the same base,
  which PEFT loads. Rank, alpha and layers must be the adapter's: nothing is padded, cut or put on top of it in silence.
- without the section the adapter is merged into its base, and every parameter is trained.

Either way the base policy, which KL is measured against and a distilled prompt's teacher has, is what
`model.name` names: base and adapter, as the run found them. A frozen copy of the adapter stands for it (arXiv
2605.12484 does not say).
"""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from fastslow.errors import ConfigError
from fastslow.slow.finite import check_finite
from fastslow.slow.local.adapter_files import CONFIG
from fastslow.slow.settings import LoraConfig, ModelConfig
from fastslow.text import shortened, shown

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

TRAINED, BASE = "default", "base"
"""PEFT's names of the adapter that is trained, and of the frozen one that a run has started from."""
# What may differ between two adapters that compute the same: where they come from and how they were trained. Rank,
# alpha and layers are compared by themselves.
INDIFFERENT = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "r",
    "revision",
    "target_modules",
    "task_type",
}
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk or on the hub, and the model that it was trained on. `name` is what PEFT takes."""

    name: str
    revision: str | None
    base: str
    base_revision: str | None
    settings: dict[str, Any]


def told(error: Exception) -> str:
    """An exception of a library in words."""
    return f"{type(error).__name__}: {error}"


def find_adapter(config: ModelConfig, name: str) -> Adapter | None:
    """The adapter of that name, or None where there is none: then the name may be a model's. Raises ConfigError."""
    local = Path(name) / CONFIG
    try:
        path = (local if local.is_file() else None) if Path(name).is_dir() else _on_hub(name, config.revision)
        settings = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"model.name: {CONFIG} of {config.name!r} is no JSON: {told(error)}") from error
    except Exception:  # there is no such name, or no network: the loader says so
        return None
    if settings is None:
        return None
    if (Path(name) / "config.json").is_file():
        raise ConfigError(
            f"model.name: {config.name!r} holds a model and an adapter: take {CONFIG} or config.json "
            "away, so that it is one"
        )
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"model.name: {config.name!r} is an adapter that does not name its model: set "
            f"base_model_name_or_path in its {CONFIG}"
        )
    return Adapter(name, config.revision, str(base), settings.get("revision"), settings)


@cache
def _on_hub(name: str, revision: str | None) -> str | None:
    """Path of an adapter's config in the hub's cache; asked once: without a network each question takes its time."""
    from transformers.utils import find_adapter_config_file

    return find_adapter_config_file(name, revision=revision)


def add_lora(model: "PreTrainedModel", config: LoraConfig, seed: int) -> "PeftModel":
    """The model with a fresh adapter, which starts as the identity; its float32 weights are all that is trained.

    Raises: ConfigError where the targets name no layer of the model.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    torch.manual_seed(seed)
    settings = PeftLoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=config.targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    try:
        return get_peft_model(model, settings).eval()
    except ValueError as error:
        raise ConfigError(
            f"model.lora.targets: {shown(config.targets)} does not fit this model: {shortened(str(error), 500)}"
        ) from error


def continue_lora(model: "PreTrainedModel", config: LoraConfig, adapter: Adapter, seed: int) -> "PeftModel":
    """The model with a trainable adapter that has the weights of a saved one.

    Raises: ConfigError where the saved adapter has another rank, alpha or other layers than `config`.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    check_settings(config, adapter)
    policy = add_lora(model, config, seed)
    saved = load_peft_weights(adapter.name, device=str(model.device), revision=adapter.revision)
    check_finite(saved, f"model.name: the weights of the adapter {adapter.name!r}")
    wanted = get_peft_model_state_dict(policy, save_embedding_layers=False)
    if set(saved) != set(wanted):
        raise _other(
            adapter,
            f"model.lora.targets: {shown(config.targets)} names the layers {_layers(wanted)} ({len(wanted)} matrices)",
            f"{_layers(saved)} ({len(saved)} matrices)",
        )
    set_peft_model_state_dict(policy, saved)
    return policy


def check_settings(config: LoraConfig, adapter: Adapter) -> None:
    """Raises ConfigError where a saved adapter cannot be continued with these settings; its layers need the model."""
    settings = adapter.settings
    if settings.get("peft_type") != "LORA":
        raise _other(adapter, "model.lora: trains LoRA", f"the type {settings.get('peft_type')}")
    for key, field, wanted in (("r", "rank", config.rank), ("lora_alpha", "alpha", config.alpha)):
        if settings.get(key) != wanted:
            raise _other(adapter, f"model.lora.{field}: is {wanted}", f"{field} {settings.get(key)}")
    strange = strange_settings(settings)
    if strange:
        raise _other(adapter, "model.lora: trains plain LoRA", ", ".join(f"{k} {v!r}" for k, v in strange.items()))


def strange_settings(settings: dict[str, object]) -> dict[str, Any]:
    """What a saved adapter has that makes it another function than plain LoRA of its rank, alpha and layers."""
    from peft import LoraConfig as PeftLoraConfig

    plain = PeftLoraConfig().to_dict()
    return {
        key: value
        for key, value in settings.items()
        if key not in INDIFFERENT
        and (value not in PLAIN_STARTS if key == "init_lora_weights" else bool(value) and value != plain.get(key))
    }


def _other(adapter: Adapter, wanted: str, found: str) -> ConfigError:
    return ConfigError(
        f"{wanted}, but the adapter {adapter.name!r} (model.name) that the run would start from has {found}. Give "
        "model.lora as the adapter has it, or leave the section out: then the adapter is merged into its base and "
        "every parameter is trained"
    )


def _layers(weights: dict[str, object]) -> str:
    return ", ".join(sorted({key.split(".lora_")[0].rsplit(".", 1)[-1] for key in weights})) or "none"


def load_adapter(model: "PreTrainedModel", directory: Path) -> "PeftModel":
    """The model with a saved adapter, trainable. Raises ConfigError where the directory holds none that fits."""
    return _with_saved(model, str(directory), None)


def merge(model: "PreTrainedModel", adapter: Adapter) -> "PreTrainedModel":
    """The model with an adapter in its own weights, which can be trained. Raises ConfigError where they do not fit."""
    merged: PreTrainedModel = _with_saved(model, adapter.name, adapter.revision).merge_and_unload().eval()
    for parameter in merged.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # PEFT had frozen them
    return merged


def _with_saved(model: "PreTrainedModel", name: str, revision: str | None) -> "PeftModel":
    from peft import PeftModel

    try:
        policy = PeftModel.from_pretrained(model, name, is_trainable=True, revision=revision).eval()
    except Exception as error:  # loaders raise what they like for a damaged or foreign file
        raise ConfigError(f"no LoRA adapter for this model could be loaded from {name!r}: {told(error)}") from error
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    check_finite(trained, f"model.name: the weights of the adapter {name!r}")
    return policy


def is_adapted(model: object) -> bool:
    """Whether a model that was given has a PEFT adapter already."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


def without_wrapper(model: Any) -> Any:
    """The model inside a PEFT model; its layers still have their adapters."""
    return model.get_base_model() if is_adapted(model) else model


def take_adapter(policy: Any, saved: Path | None, *, trains: bool) -> "PeftModel":
    """A PEFT model that was given, its adapter trainable and in float32, with the weights of `saved` where a
    checkpoint is measured. `trains`: where its adapter has learnt something already, a frozen copy of it is
    kept for the base policy.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    learnt = any(bool(p.any()) for name, p in policy.named_parameters() if ".lora_B." in name)
    if trains and learnt and BASE not in policy.peft_config:
        weights = {name: p.detach().clone() for name, p in policy.named_parameters() if f".{TRAINED}." in name}
        policy.add_adapter(BASE, copy.copy(policy.peft_config[TRAINED]))
        for name, parameter in policy.named_parameters():
            original = weights.get(name.replace(f".{BASE}.", f".{TRAINED}."))
            if f".{BASE}." in name and original is not None:
                parameter.data = original
    policy.set_adapter(TRAINED)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(f".{TRAINED}." in name)
        if f".{TRAINED}." in name:
            parameter.data = parameter.data.float()
    if saved is not None:
        set_peft_model_state_dict(policy, load_peft_weights(str(saved), device=str(policy.device)))
    return cast("PeftModel", policy.eval())


def keep_base(policy: "PeftModel", adapter: Adapter) -> None:
    """Keep the adapter that a run starts from, frozen, beside the one that it trains: with the model it is the base."""
    policy.load_adapter(adapter.name, adapter_name=BASE, is_trainable=False, revision=adapter.revision)
    policy.eval()


@contextmanager
def base_weights(policy: "PeftModel") -> Iterator[None]:
    """Inside, the policy computes with its base weights: without an adapter, or with the one that it started from."""
    if BASE not in policy.peft_config:
        with policy.disable_adapter():
            yield
        return
    policy.set_adapter(BASE, inference_mode=True)
    try:
        yield
    finally:
        policy.set_adapter(TRAINED)


def rank_of(policy: "PeftModel") -> int:
    """The rank of the adapter that is trained."""
    from peft import LoraConfig as PeftLoraConfig

    return cast(PeftLoraConfig, policy.peft_config[TRAINED]).r


def save_lora(policy: "PeftModel", directory: Path, model: ModelConfig) -> None:
    """Write the trained adapter as PEFT does; it names its base so that it is found, revision and .gguf included."""
    settings = policy.peft_config[TRAINED]
    settings.revision = model.revision
    if model.name.endswith(".gguf"):
        settings.base_model_name_or_path = model.name
    policy.save_pretrained(str(directory), selected_adapters=[TRAINED])
