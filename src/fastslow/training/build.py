"""From a config to the parts of a run. Everything that can be checked without the model is checked before it loads."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.fast.optimiser import PromptOptimiser
from fastslow.fast.registry import build_optimiser, check_optimiser
from fastslow.given import check_lent
from fastslow.methods.registry import find_method
from fastslow.runs.directory import RunDirectory
from fastslow.slow.bare import check_bare
from fastslow.slow.build import build_engine, check_engine
from fastslow.slow.context_room import ContextRoom, context_room
from fastslow.slow.engine import PolicyEngine
from fastslow.slow.losses import check_loss
from fastslow.slow.mismatch import check_correction
from fastslow.slow.schedule import check_schedule
from fastslow.tasks.base import Task, check_splits
from fastslow.tasks.registry import build_task
from fastslow.training.observer import Observer
from fastslow.training.resume import Found, find_checkpoint
from fastslow.training.tracking import check_tracker, make_tracker

if TYPE_CHECKING:
    from fastslow.slow.agreement import Agreement

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a training session is made of. In `config` a teacher's prompt stands as its text. `longest_tokens`: of the
    longest sequence that may come. `agreement`: how far sampler and learner are apart; None where no weights train, and
    of a resumed run, whose weights are yet to be loaded. `found`: where a resumed run goes on.
    """

    config: Config
    task: Task
    engine: PolicyEngine
    optimiser: PromptOptimiser
    run: RunDirectory
    room: ContextRoom
    tracker: Observer
    longest_tokens: int
    agreement: "Agreement | None"
    found: Found | None = None


def check(config: Config) -> tuple[Config, Task]:
    """The config as resolved, and its task, after every check that needs no model. Raises ConfigError or TaskError."""
    check_loss(config.slow)
    check_tracker(config.tracker)
    task = build_task(config.task)
    check_splits(task)
    method = find_method(config.method)
    config = method.prepare(config, task)
    reinforces = method.moves_weights and not method.needs_distributions
    check_correction(config.slow, config.method, reinforces=reinforces)
    check_bare(config, reinforces=reinforces, searches=method.searches(config))
    if method.moves_weights:
        _check_sampling(config)
        check_schedule(config.slow, config.steps - method.search_steps(config))
    if method.needs_distributions and config.slow.entropy_coefficient:
        raise ConfigError(
            f"slow.entropy_coefficient: {config.slow.entropy_coefficient:g} is for a policy loss, and method "
            f"{config.method!r} has none: set it to 0"
        )
    if method.searches(config):
        check_optimiser(config.fast)
    check_engine(config, moves_weights=method.moves_weights, needs_distributions=method.needs_distributions)
    _tell_what_is_clipped(config, task)
    return config, task


def _tell_what_is_clipped(config: Config, task: Task) -> None:
    """Say where fewer problems are there than an option asks for; what is at its default asks for nothing."""
    settings = config.evaluation
    there = min(len(part.problems("validation")) for part in task.parts)
    for name in ("problems", "kl_problems") if settings.every else ():
        asked = getattr(settings, name)
        if asked > there and asked != type(settings).model_fields[name].default:
            logger.warning("evaluation.%s: %d are asked for, and there are %d validation problems", name, asked, there)


def check_lengths(config: Config, task: Task, room: ContextRoom) -> None:
    """Raises ConfigError where the problems of a new run do not fit under the prompts that it begins with."""
    room.check_problems("the seed prompt", task.seed_prompt)
    for field, prompt in find_method(config.method).given_prompts(config).items():
        room.check_problems(field, prompt)


def _check_sampling(config: Config) -> None:
    """Raises ConfigError where the learner could not speak of the distribution that training rollouts come from."""
    if config.sampling.top_p < 1.0:
        raise ConfigError(
            f"sampling.top_p: {config.sampling.top_p:g} cuts unlikely tokens out of the training rollouts, and the "
            "learner does not know which, so every importance ratio would be biased. Set it to 1.0 (evaluation.top_p "
            "is a key of its own), or take method: prompt, which trains no weights"
        )


def _check_model(config: Config, engine: PolicyEngine, longest_tokens: int) -> None:
    """Raises ConfigError where an update on the longest sequence outgrows `slow.memory_gib`, or where cached sampling
    and whole sequences do not give the same policy of this model.
    """
    from fastslow.slow.local.engine import LocalEngine

    if isinstance(engine, LocalEngine):
        from fastslow.slow.local.agreement import check_agreement

        method = find_method(config.method)
        measures = config.evaluation.every > 0 and config.evaluation.kl_problems > 0
        if measures or config.slow.kl_coefficient or method.needs_distributions:
            engine.policy.keep_base()
        plan = engine.policy.memory(keeps_base=measures, distils=method.needs_distributions)
        if plan is not None and method.moves_weights:
            plan.check(longest_tokens)
        check_agreement(engine, longest_tokens, trains=method.moves_weights)


def measure(config: Config, task: Task, engine: PolicyEngine, longest_tokens: int) -> "Agreement | None":
    """How far the engine's sampler and its learner are apart; None where no weights train."""
    from fastslow.slow.agreement import measure_agreement

    trains = find_method(config.method).moves_weights
    return measure_agreement(config, task, engine, longest_tokens) if trains else None


def _longest(config: Config, task: Task, engine: PolicyEngine) -> int:
    from fastslow.slow.agreement import longest_sequence

    method = find_method(config.method)
    prompts = [task.seed_prompt, *method.given_prompts(config).values()]
    return longest_sequence(config, task, engine, prompts=prompts, searches=method.searches(config))


def prepare(config: Config, *, resume: Path | None = None) -> Parts:
    """Check, load, connect. A new run directory is made only when everything else stands."""
    check_lent(config.model_dump(mode="json"), config.output if resume is None else resume)
    config, task = check(config)
    room = context_room(config, task)
    run = RunDirectory(resume if resume is not None else Path(config.output))
    found = None
    if resume is None:
        run.check_free()
        check_lengths(config, task, room)
    else:
        found = find_checkpoint(run)
        run.open(config)
    try:
        tracker = make_tracker(config)
        engine = build_engine(config)
        longest = _longest(config, task, engine)
        _check_model(config, engine, longest)
        agreement = measure(config, task, engine, longest) if resume is None else None
        if agreement is not None and agreement.complaint is not None:
            raise ConfigError(agreement.complaint)
        searches = find_method(config.method).searches(config)
        optimiser = build_optimiser(config.fast, engine, task.seed_prompt, room) if searches else FrozenOptimiser()
    except BaseException:
        run.close()
        raise
    if resume is None:
        run.create(config)
    return Parts(config, task, engine, optimiser, run, room, tracker, longest, agreement, found)
