"""What an experiment is made of: its parts, the config of each, and what tells a part's settings from others."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastslow.config import Config, apply_override, parse_config
from fastslow.errors import ConfigError
from fastslow.experiments.records import Settings


@dataclass(frozen=True)
class Measure:
    """An evaluation of a finished part, as `fastslow evaluate` does it; `settings` override the run's own config.

    `prompt` is seed, best, a text, or population: then the mean is that of each problem under its best prompt. None:
    seed after distillation, otherwise best.
    """

    name: str
    settings: Settings = field(default_factory=dict)
    prompt: str | None = None
    weights: str = "latest"
    kl: bool = False


@dataclass(frozen=True)
class Part:
    """One run. `settings` are dotted keys over the experiment's base config; `start` names the part whose last weights
    it begins with, `prompt` the one whose best prompt is its seed prompt. `labels` say what the part is in the results
    (method, seed, task, what was varied).
    """

    name: str
    settings: Settings
    labels: Mapping[str, object] = field(default_factory=dict)
    start: str | None = None
    measures: tuple[Measure, ...] = ()
    prompt: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts that must have ended before this one begins."""
        return tuple(name for name in (self.start, self.prompt) if name is not None)


@dataclass(frozen=True)
class Experiment:
    """Runs that belong together. `base` is a config as it stands in a YAML file.

    `model_at`: where the model lies that `base` names, if elsewhere. Results do not depend on the place.
    """

    name: str
    base: Mapping[str, Any]
    parts: tuple[Part, ...]
    model_at: str = ""

    @property
    def moved(self) -> dict[str, str]:
        """The name that `base` has for its model, and where that lies; {} where it lies there."""
        return {self.base["model"]["name"]: self.model_at} if self.model_at else {}


def part_config(experiment: Experiment, part: Part, directory: Path) -> Config:
    """The config of a part's run. Raises ConfigError with the part's name in front."""
    tree = json.loads(json.dumps(experiment.base))
    settings = {**part.settings, "output": str(directory / part.name)}
    try:
        for key, value in settings.items():
            apply_override(tree, f"{key}={json.dumps(value)}")
        return _moved(parse_config(tree), experiment.moved)
    except ConfigError as error:
        raise ConfigError(f"part {part.name!r}: {error}") from error


def _moved(config: Config, places: Mapping[str, str]) -> Config:
    """The config with its model where it lies."""
    name = places.get(config.model.name, config.model.name)
    return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})


def fingerprint_of(experiment: Experiment, part: Part, directory: Path) -> str:
    """That of a part's config, wherever the model lies."""
    back = {place: name for name, place in experiment.moved.items()}
    return fingerprint(_moved(part_config(experiment, part, directory), back))


def fingerprint(config: Config) -> str:
    """Of every option that is not at its default: where a run lies and how many threads it has are left out."""
    # Defaults are left out so that an option that is added later does not make old results look foreign.
    tree = config.model_dump(mode="json", exclude={"output", "threads", "tracker", "tracking"}, exclude_defaults=True)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def located(measure: Measure, places: Mapping[str, str]) -> Measure:
    """A measurement that names the model by where it lies."""
    settings = {
        key: places.get(str(value), value) if key == "model.name" else value for key, value in measure.settings.items()
    }
    return replace(measure, settings=settings)
