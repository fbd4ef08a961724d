"""From a config to the parts of a run. Everything that can be checked without the model is checked before it loads."""

from dataclasses import dataclass
from pathlib import Path

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.fast.optimiser import PromptOptimiser
from fastslow.runs.directory import RunDirectory, read_population
from fastslow.slow.context_room import ContextRoom, context_room
from fastslow.slow.engine import PolicyEngine
from fastslow.tasks.base import Task, check_splits
from fastslow.training.resume import check_complete
from fastslow.types import Prompt


@dataclass(frozen=True)
class Parts:
    """What a training session is made of. In `config` a teacher's prompt stands as its text."""

    config: Config
    task: Task
    engine: PolicyEngine
    optimiser: PromptOptimiser
    run: RunDirectory
    room: ContextRoom


def check(config: Config) -> tuple[Config, Task]:
    """The config as resolved, and its task, after every check that needs no model. Raises ConfigError or TaskError."""
    from fastslow.fast.proposers.registry import check_proposer
    from fastslow.fast.registry import check_optimiser
    from fastslow.slow.losses import check_loss
    from fastslow.tasks.registry import build_task
    from fastslow.training.tracking import check_tracker

    check_loss(config.slow.loss)
    check_tracker(config.tracker)
    task = build_task(config.task)
    check_splits(task)
    _check_stages(config, task)
    check_optimiser(config.fast.optimiser)
    if config.method != "prompt":
        _check_sampling(config)
    if config.searches:
        check_proposer(config.fast.proposer)
    if config.engine == "tinker":
        from fastslow.slow.tinker.engine import check_remote

        check_remote(config)
    else:
        _check_start(config)
    return _with_teacher(config, task), task


def check_lengths(config: Config, task: Task, room: ContextRoom) -> None:
    """Raises ConfigError where the problems of a new run do not fit under the prompts that it begins with."""
    room.check_problems("the seed prompt", task.seed_prompt)
    if isinstance(config.distill.prompt, dict) and config.teacher_is_given:
        room.check_problems("distill.prompt", Prompt.from_dict(config.distill.prompt))


def _check_sampling(config: Config) -> None:
    """Raises ConfigError where the learner could not speak of the distribution that training rollouts come from."""
    if config.sampling.top_p < 1.0:
        raise ConfigError(
            f"sampling.top_p: {config.sampling.top_p:g} cuts unlikely tokens out of the training rollouts, and the learner "
            "does not know which, so every importance ratio would be biased. Set it to 1.0 (evaluation.top_p is a key of "
            "its own), or take method: prompt, which trains no weights"
        )
    if config.engine == "tinker":
        from fastslow.slow.tinker.engine import check_temperature

        check_temperature(config.sampling.temperature)


def _check_start(config: Config) -> None:
    """Raises ConfigError where the adapter that a run starts from is not the one that its `model.lora` describes."""
    from fastslow.slow.local.loading import adapter_of, without_adapter
    from fastslow.slow.local.lora import check_settings

    if not Path(config.model.name).is_dir():
        return  # nothing on this machine: loading will tell
    adapter = adapter_of(config.model)
    if adapter is not None:
        without_adapter(config.model)
        if config.model.lora is not None:
            check_settings(config.model.lora, adapter)


def _check_stages(config: Config, task: Task) -> None:
    """Raises ConfigError where a task would change in the middle of a cycle."""
    steps, cycle = task.stage(0).steps, config.loop.steps_per_cycle
    if steps is not None and config.method == "distill":
        raise ConfigError(
            f"method: 'distill' takes one task, and {task.name!r} is several in turn: distil the prompt of one of them"
        )
    if steps is not None and steps % cycle:
        raise ConfigError(
            f"task.options.steps: {steps} steps a task are no whole number of cycles: take a multiple of "
            f"loop.steps_per_cycle, {cycle}"
        )


def _with_teacher(config: Config, task: Task) -> Config:
    """The config with the teacher's prompt as its text, wherever it came from: a run that is resumed needs it unchanged."""
    if not config.teacher_is_given:
        return config
    prompt = _teacher(config.distill.prompt, task)
    wanted, given = sorted(task.seed_prompt.as_dict()), sorted(prompt.as_dict())
    if wanted != given:
        raise ConfigError(
            f"distill.prompt: has the components {given}, those of task {task.name!r} are {wanted}: name each of them"
        )
    if not any(text.strip() for _, text in prompt.components):
        raise ConfigError(f"distill.prompt: {config.distill.prompt!r} is empty: the teacher needs a prompt")
    if prompt == task.seed_prompt:
        raise ConfigError(
            "distill.prompt: is the task's seed prompt, which the student has as well: there is nothing to distil. Give "
            "the prompt of a run that found a better one"
        )
    return config.model_copy(update={"distill": config.distill.model_copy(update={"prompt": prompt.as_dict()})})


def _teacher(named: str | dict[str, str], task: Task) -> Prompt:
    """The prompt that `distill.prompt` names. Raises ConfigError for what does not exist."""
    if isinstance(named, dict):
        return Prompt.from_dict(named)
    if named.startswith("@"):
        path = Path(named[1:])
        if not path.is_file():
            raise ConfigError(f"distill.prompt: the file {str(path)!r} does not exist")
        return Prompt.of(path.read_text(encoding="utf-8").strip())
    if _is_run(named):
        population = read_population(Path(named))
        if not population:
            raise ConfigError(f"distill.prompt: {named!r} has no population yet: its first cycle has not ended")
        return population[0]
    if len(named.split()) < 2:
        raise ConfigError(
            f"distill.prompt: {named!r} is neither evolve, @FILE, the directory of a run nor a text of several words"
        )
    return Prompt.of(named)


def _is_run(name: str) -> bool:
    try:
        return (Path(name) / "config.yaml").is_file()
    except (OSError, ValueError):  # a text that no path could be
        return False


def build_engine(config: Config) -> PolicyEngine:
    """The slow side of a run, on this machine or on a server."""
    if config.engine == "tinker" and config.tinker is not None:
        from fastslow.slow.tinker.engine import TinkerEngine

        return TinkerEngine(config.model, config.slow, config.tinker, seed=config.seed)
    from fastslow.slow.local.engine import LocalEngine

    return LocalEngine(config.model, config.slow, seed=config.seed, threads=config.threads)


def _check_engine(config: Config, task: Task, engine: PolicyEngine) -> None:
    """Raises ConfigError where the engine's sampler and its learner do not agree on this model."""
    from fastslow.slow.local.engine import LocalEngine

    if isinstance(engine, LocalEngine):
        from fastslow.slow.local.agreement import check_agreement, longest_sequence

        check_agreement(engine, longest_sequence(config, task, engine), trains=config.method != "prompt")


def prepare(config: Config, *, resume: Path | None = None) -> Parts:
    """Check, load, connect. A new run directory is made only when everything else stands."""
    from fastslow.fast.registry import build_optimiser

    config, task = check(config)
    room = context_room(config, task)
    run = RunDirectory(resume if resume is not None else Path(config.output))
    if resume is None:
        run.check_free()
        check_lengths(config, task, room)
    else:
        check_complete(run)
        run.open(config)
    try:
        engine = build_engine(config)
        _check_engine(config, task, engine)
        optimiser = build_optimiser(config, engine, task.seed_prompt, room)
    except BaseException:
        run.close()
        raise
    if resume is None:
        run.create(config)
    return Parts(config, task, engine, optimiser, run, room)
