"""Sending a run's numbers to TensorBoard, wandb or trackio. None is a dependency; one key of the config names it."""

import hashlib
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.runs.metrics import STEP
from fastslow.training.observer import Observer

PROJECT = "fastslow"


def check_tracker(name: str) -> None:
    """Raises ConfigError where the package that a tracker needs is not installed."""
    if name != "none" and find_spec(name) is None:
        raise ConfigError(f"tracker: {name!r} is not installed: pip install 'fastslow[{name}]', or set tracker to none")


def make_tracker(config: Config) -> Observer:
    """An observer that sends every number of every step."""
    check_tracker(config.tracker)
    return TensorBoardObserver(config) if config.tracker == "tensorboard" else WandbObserver(config)


class TensorBoardObserver:
    """Writes to `tensorboard/` in the run directory; a resumed run purges what lies after its checkpoint."""

    def __init__(self, config: Config) -> None:
        self.directory = Path(config.output) / "tensorboard"
        self.writer: Any = None

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if kind == "start":
            resumed_at = payload["step"] + 1 if payload["step"] else None
            self.writer = SummaryWriter(str(self.directory), purge_step=resumed_at)
        elif kind == "step":
            for name, value in scalars(payload).items():
                self.writer.add_scalar(name, value, payload[STEP.name])
        elif kind in ("end", "abort"):
            self.writer.close()


class WandbObserver:
    """wandb, or trackio, which has the same calls. The run's id is its directory, so that a resumed run goes on."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.client: Any = None

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "start":
            self._start()
        elif kind == "step":
            self.client.log(scalars(payload), step=payload[STEP.name])
        elif kind in ("end", "abort"):
            self.client.finish()

    def _start(self) -> None:
        output = Path(self.config.output)
        settings: dict[str, Any] = {"project": PROJECT, "name": output.name, "config": self.config.model_dump()}
        if self.config.tracker == "wandb":
            name = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]
            settings |= {"id": name, "dir": str(output), "resume": "allow"}
        self.client = importlib.import_module(self.config.tracker)
        self.client.init(**settings)


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a metrics line; what was not measured in a step is left out."""
    return {name: value for name, value in record.items() if isinstance(value, int | float) and name != STEP.name}
