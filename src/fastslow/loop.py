"""`fastslow.train`: opens a session and hands it to the method that the config names (`methods/`)."""

from pathlib import Path

from fastslow.config import Config
from fastslow.training.observer import Observer
from fastslow.training.session import TrainingSession, TrainResult


def train(config: Config, *, resume: Path | None = None, observer: Observer | None = None) -> TrainResult:
    """Run, or resume, one training run.

    Raises: ConfigError and TaskError before any model loads; InfrastructureError when too many rollouts fail, after the
    last good step has been saved.
    """
    with TrainingSession.open(config, resume=resume, observer=observer) as session:
        return session.train()
