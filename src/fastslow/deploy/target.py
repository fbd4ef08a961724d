"""What is served: a run or an export, read and checked before any model loads."""

import logging
from dataclasses import dataclass
from pathlib import Path

from fastslow.config import Config
from fastslow.deploy.prompts import Prompts
from fastslow.deploy.record import read_record
from fastslow.deploy.weights import adapter_settings
from fastslow.errors import ConfigError, FastslowError
from fastslow.methods.registry import find_method
from fastslow.runs.files import EXPORT, is_run, step_of
from fastslow.runs.needed import check_whole, find_weights, needed_population
from fastslow.runs.owner import check_trusted
from fastslow.runs.reader import Run
from fastslow.tasks.base import Task
from fastslow.text import printable
from fastslow.types import Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A trained model: the config that its weights are used with, the directory that holds them, and its prompts."""

    name: str
    config: Config
    checkpoint: Path
    step: int
    prompts: Prompts


def find_target(path: Path, *, weights: str = "latest", trust_code: bool = False) -> Target:
    """The target of a path. `weights`, of a run: `latest` or `step_N`.

    Raises: ConfigError where there is neither a run nor an export, no such checkpoint, or code that is not trusted.
    """
    if is_run(path):
        return _of_run(path, weights, trust_code)
    if not (path / EXPORT).is_file():
        raise ConfigError(
            f"target: {printable(str(path))!r} is neither a run (it has no config.yaml) nor an export (it has no "
            f"{EXPORT}): give a run directory, or what fastslow export wrote"
        )
    if weights != "latest":
        raise ConfigError(f"weights: {weights!r}: an export has the weights of one step alone: leave --weights out")
    record = read_record(path)
    config = record.config
    settings = adapter_settings(path)
    if settings is not None:
        # Who takes an export to another machine writes there where its base is.
        base = {"name": str(settings["base_model_name_or_path"]), "revision": settings.get("revision")}
        config = config.model_copy(update={"model": config.model.model_copy(update=base)})
    check_trusted(path, config, trust_code=trust_code)
    prompts = Prompts(record.prompt, record.members, record.by_kind, _task(config))
    return Target(_name(path), config, path, record.step, prompts)


def best_prompt(config: Config, population: list[Prompt]) -> Prompt:
    """What the weights were trained to answer under: after distillation that is the seed prompt, not the teacher's."""
    from fastslow.tasks.registry import build_task

    bare = find_method(config.method).answers_under_seed_prompt
    return build_task(config.task).seed_prompt if bare else population[0]


def _of_run(path: Path, weights: str, trust_code: bool) -> Target:
    run = Run(path)
    config = run.config
    checkpoint = find_weights(run, weights)
    check_trusted(path, config, trust_code=trust_code)
    check_whole(run, checkpoint, config.engine)
    population = needed_population(run)
    bare = find_method(config.method).answers_under_seed_prompt
    prompts = Prompts(best_prompt(config, population), population, {} if bare else run.by_kind, _task(config))
    return Target(_name(path), config, checkpoint, step_of(checkpoint), prompts)


def _task(config: Config) -> Task | None:
    """The task, where it can be made here: its data may have stayed where it was trained."""
    from fastslow.tasks.registry import build_task

    try:
        return build_task(config.task)
    except FastslowError as error:
        logger.warning(
            "task %s cannot be made here, so the best prompt answers every question: %s",
            printable(config.task.name),
            printable(str(error)),
        )
        return None


def _name(path: Path) -> str:
    return path.resolve().name or "model"
