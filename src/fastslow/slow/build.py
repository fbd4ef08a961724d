"""From a config to the engine: on this machine, on a server, or one of your own; checked before it loads."""

import inspect
from pathlib import Path

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.extension import can_make, construct, load_object
from fastslow.given import is_lent, is_placeholder
from fastslow.slow.engine import PolicyEngine, check_protocol
from fastslow.slow.samplers.settings import ForestConfig

ADAPTER = "adapter_config.json"


def check_engine(config: Config, *, moves_weights: bool, needs_distributions: bool) -> None:
    """Everything about a run's engine and sampler that can be known before a model loads. Raises ConfigError.

    `moves_weights`, `needs_distributions`: what the run's method asks of it.
    """
    if config.engine != "local" and not isinstance(config.slow.sampler, ForestConfig):
        raise ConfigError(
            f"slow.sampler.kind: {config.slow.sampler.kind!r} draws for engine: local, and engine {config.engine!r} "
            "samples by itself: leave slow.sampler out"
        )
    if config.engine != "local" and is_placeholder(config.model.name):
        raise ConfigError(
            f"model: engine {config.engine!r} loads its model by a name: give the name in the place of the object"
        )
    if config.engine == "tinker":
        _check_remote(config, moves_weights, needs_distributions)
    elif config.engine == "local":
        _check_local(config)
        if moves_weights:
            _check_training(config)
    elif not can_make(config.engine, "engine"):
        raise ConfigError(f"engine: {config.engine!r} cannot be called: name a class, see docs/engine.md")


def build_engine(config: Config, *, checkpoint: Path | None = None, trains: bool = True) -> PolicyEngine:
    """The slow side of a run, or, where `trains` is false, of a measurement: of a checkpoint's weights,
    or of the base weights.

    An engine of your own gets `model`, `slow`, `seed`, `threads`, `checkpoint` and `trains` where its constructor has
    parameters of these names; without `checkpoint`, it is asked to `load` one.
    """
    if config.engine == "tinker":
        return _remote(config, checkpoint, trains)
    if config.engine == "local":
        return _local(config, checkpoint, trains)
    return _own(config, checkpoint, trains)


def _own(config: Config, checkpoint: Path | None, trains: bool) -> PolicyEngine:
    given = {
        "model": config.model,
        "slow": config.slow,
        "seed": config.seed,
        "threads": config.threads,
        "checkpoint": checkpoint,
        "trains": trains,
    }
    try:
        made: PolicyEngine = construct(config.engine, config.engine_options, "engine", key="name", given=given)
    except ConfigError as error:
        raise ConfigError(str(error).replace("engine.options.", "engine_options.")) from error
    check_protocol(made, PolicyEngine, f"engine: {config.engine!r}")
    factory = load_object(config.engine, "engine")
    if checkpoint is not None and (made is factory or "checkpoint" not in inspect.signature(factory).parameters):
        made.load(checkpoint)
    return made


def _local(config: Config, checkpoint: Path | None, trains: bool) -> PolicyEngine:
    from fastslow.slow.local.engine import LocalEngine

    model, slow, seed, threads = config.model, config.slow, config.seed, config.threads
    if trains:
        return LocalEngine(model, slow, seed=seed, threads=threads, adapter=checkpoint)
    if checkpoint is None:
        plain = model.model_copy(update={"lora": None})
        return LocalEngine(plain, slow, seed=seed, threads=threads)
    if is_placeholder(model.tokenizer) and not is_lent(model.tokenizer):
        model = model.model_copy(update={"tokenizer": str(checkpoint)})
    if (checkpoint / ADAPTER).is_file():
        return LocalEngine(model, slow, seed=seed, threads=threads, adapter=checkpoint)
    trained = model.model_copy(update={"name": str(checkpoint), "revision": None, "tokenizer": None})
    return LocalEngine(trained, slow, seed=seed, threads=threads, base=model)


def _check_local(config: Config) -> None:
    """Raises ConfigError where the sampler is none, or where the adapter that a run starts from is not the one that its
    `model.lora` describes.
    """
    from fastslow.slow.local.loading import adapter_of, without_adapter
    from fastslow.slow.local.lora import check_settings
    from fastslow.slow.samplers.registry import check_sampler

    check_sampler(config.slow.sampler, config.model)
    if not Path(config.model.name).is_dir():
        return  # nothing on this machine: loading will tell
    adapter = adapter_of(config.model)
    if adapter is not None:
        without_adapter(config.model)
        if config.model.lora is not None:
            check_settings(config.model.lora, adapter)


def _check_training(config: Config) -> None:
    """Raises ConfigError where this machine cannot train as the config says,
    or where `slow.freeze` names what is not there.
    """
    from fastslow.slow.local.frozen import empty_model, frozen_parameters
    from fastslow.slow.local.loading import device_of
    from fastslow.slow.local.moments import check_optimiser

    check_optimiser(config.slow, device_of(config.model))
    if config.slow.freeze and config.model.lora is not None:
        raise ConfigError(
            f"slow.freeze: {list(config.slow.freeze)} with model.lora: the adapter alone is trained, and the model's "
            "own parameters stay: leave it out, and choose layers with model.lora.targets"
        )
    if config.slow.freeze:
        frozen_parameters(empty_model(config.model), config.slow.freeze)


def _remote(config: Config, checkpoint: Path | None, trains: bool) -> PolicyEngine:
    """The weights as the server keeps them; `--set engine=local` takes the downloaded ones of a checkpoint instead."""
    from fastslow.slow.tinker.checks import check_remote, read_state
    from fastslow.slow.tinker.engine import TinkerEngine

    if config.tinker is None:
        raise ConfigError("tinker: is missing")
    if not trains:
        check_remote(config)
    if checkpoint is not None:
        read_state(checkpoint)
    return TinkerEngine(
        config.model,
        config.slow,
        config.tinker,
        seed=config.seed,
        checkpoint=checkpoint,
        train=trains or checkpoint is not None,
    )


def _check_remote(config: Config, moves_weights: bool, needs_distributions: bool) -> None:
    from fastslow.slow.tinker.checks import check_remote, check_temperature

    if moves_weights:
        check_temperature(config.sampling.temperature)
    if needs_distributions:
        raise ConfigError(
            f"method: {config.method!r} compares whole distributions, and the Tinker API gives log-probabilities of "
            "tokens alone: run it with engine: local"
        )
    check_remote(config)
