"""From a config to the parts of a run. Everything that can be checked without the model is checked before it loads."""

from dataclasses import dataclass
from pathlib import Path

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.fast.optimiser import PromptOptimiser
from fastslow.run_dir import RunDirectory
from fastslow.slow.engine import PolicyEngine
from fastslow.tasks.base import Task, check_splits


@dataclass(frozen=True)
class Parts:
    """What a training session is made of."""

    task: Task
    engine: PolicyEngine
    optimiser: PromptOptimiser
    run: RunDirectory


def check(config: Config) -> Task:
    """The task of a config, after every check that needs no model. Raises ConfigError or TaskError."""
    from fastslow.fast.proposers import check_proposer
    from fastslow.slow.losses import check_loss
    from fastslow.tasks.registry import build_task
    from fastslow.tracking import check_tracker

    check_loss(config.slow.loss)
    check_tracker(config.tracker)
    task = build_task(config.task)
    check_splits(task)
    _check_stages(config, task)
    if config.method != "rl" and config.fast.optimiser == "gepa":
        check_proposer(config.fast.proposer)
    return task


def _check_stages(config: Config, task: Task) -> None:
    """Raises ConfigError where a task would change in the middle of a cycle."""
    steps, cycle = task.stage(0).steps, config.loop.steps_per_cycle
    if steps is not None and steps % cycle:
        raise ConfigError(
            f"task.options.steps: {steps} steps a task are no whole number of cycles: take a multiple of "
            f"loop.steps_per_cycle, {cycle}"
        )


def prepare(config: Config, *, resume: Path | None = None) -> Parts:
    """Check, load, connect. A new run directory is made only when everything else stands."""
    from fastslow.fast.registry import build_optimiser
    from fastslow.slow.local import LocalEngine

    task = check(config)
    run = RunDirectory(resume if resume is not None else Path(config.output))
    if resume is None:
        run.check_free()
    else:
        run.open(config)
    try:
        engine = LocalEngine(config.model, config.slow, seed=config.seed, threads=config.threads)
        optimiser = build_optimiser(config, engine, task.seed_prompt)
    except BaseException:
        run.close()
        raise
    if resume is None:
        run.create(config)
    return Parts(task, engine, optimiser, run)
