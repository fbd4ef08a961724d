"""What can be known about `engine: tinker` before a run: config, checkpoints, the server's model and context."""

import json
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.local import loading
from fastslow.slow.settings import ModelConfig
from fastslow.slow.tinker.datums import server_loss
from fastslow.slow.tinker.server import check_server, context_length
from fastslow.slow.tinker.settings import TinkerConfig

STATE = "tinker.json"


def server_name(model: ModelConfig, tinker: TinkerConfig) -> str:
    """What the server calls the model."""
    return tinker.base_model or loading.source_of(model)[0]


def server_limit(model: ModelConfig, tinker: TinkerConfig, own: int | None) -> int | None:
    """Positions of the context there: what the config gives, or else the smaller of what server and model say."""
    if tinker.context_limit is not None:
        return tinker.context_limit
    said = [limit for limit in (context_length(tinker, server_name(model, tinker)), own) if limit]
    return min(said, default=None)


def check_remote(config: Config) -> None:
    """Everything about `engine: tinker` that can be known before the run. Raises ConfigError."""
    tinker, model = config.tinker, config.model
    if tinker is None:
        raise ConfigError("tinker: is missing: engine 'tinker' needs tinker.base_url and tinker.backend")
    if model.name.endswith(".gguf"):
        raise ConfigError(f"model.name: {model.name!r} is a .gguf file, which servers do not load: use engine: local")
    _check_start(model)
    if model.lora is not None and model.lora.targets != "all-linear":
        raise ConfigError(
            "model.lora.targets: the Tinker API trains every linear layer of attention and MLP: leave it at all-linear"
        )
    if model.lora is None and tinker.backend in ("hosted", "jax"):
        raise ConfigError(f"model.lora: is missing: tinker.backend {tinker.backend!r} trains LoRA adapters alone")
    server_loss(config.slow.loss)
    check_no_correction(config.slow.mismatch_correction)
    check_entropy(config.slow.entropy_coefficient)
    here_alone = {"optimiser": "adamw", "freeze": (), "memory_gib": None}
    for key, plain in here_alone.items():
        value = getattr(config.slow, key)
        if value != plain:
            raise ConfigError(
                f"slow.{key}: {value!r} is for engine: local, the Tinker API has no such thing: leave it out"
            )
    measures = config.slow.kl_coefficient > 0 or (config.evaluation.every > 0 and config.evaluation.kl_problems > 0)
    if model.lora is None and measures:
        raise ConfigError(
            "slow.kl_coefficient, evaluation.kl_problems: a server that trains every parameter has no base weights "
            "left to compare with: set both to 0, or add model.lora"
        )
    check_server(tinker, server_name(model, tinker))


def check_entropy(coefficient: float) -> None:
    """Raises ConfigError for an entropy bonus: no loss of the Tinker API has one."""
    if coefficient:
        raise ConfigError(
            f"slow.entropy_coefficient: {coefficient:g} with engine: tinker: the Tinker API gives no entropy, and none "
            "of its losses has a bonus for it. Set it to 0, or use engine: local"
        )


def check_temperature(temperature: float) -> None:
    """Raises ConfigError where training rollouts would be sampled at another temperature than the server trains at."""
    if temperature != 1.0:
        raise ConfigError(
            f"sampling.temperature: {temperature:g} with engine: tinker: the server's training log-probabilities "
            "are those of temperature 1, so the importance ratio of a fresh rollout would not be 1. Set it to 1.0, "
            "or use engine: local"
        )


def check_no_correction(kind: str) -> None:
    """Raises ConfigError for a correction of the mismatch: the server's learner speaks with its update, not before."""
    if kind != "none":
        raise ConfigError(
            f"slow.mismatch_correction: {kind!r} with engine: tinker: it needs the learner's log-probabilities before "
            "the update, and the Tinker API gives them with it. Leave it out and take slow.loss: cispo, whose weight "
            "the server truncates at 1 + slow.clip_high, or use engine: local"
        )


def _check_start(model: ModelConfig) -> None:
    """Raises ConfigError where `model.name` is an adapter, or a state kept by a server: servers start from models."""
    # Of a name on the hub the server is asked.
    if Path(model.name).is_dir() and (loading.adapter_of(model) is not None or (Path(model.name) / STATE).is_file()):
        raise ConfigError(
            f"model.name: {model.name!r} is a checkpoint with an adapter, and a server starts a run from a model: take "
            "the adapter's base, or run with engine: local, which goes on from a downloaded adapter"
        )


def read_state(directory: Path) -> dict[str, Any]:
    """What a checkpoint says about the server's state. Raises ConfigError for a checkpoint of another engine."""
    path = directory / STATE
    if not path.is_file():
        raise ConfigError(f"engine: {str(directory)!r} was not written by engine 'tinker': use engine: local")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
