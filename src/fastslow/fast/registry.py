"""From a config to the prompt optimiser. A new one is a class with `evolve`, named as `package.module:Class`."""

from fastslow.errors import ConfigError
from fastslow.extension import can_make, construct
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.fast.optimiser import PromptOptimiser
from fastslow.fast.proposers.registry import build_proposer, check_proposer
from fastslow.fast.settings import FastConfig, GepaConfig, OwnOptimiserConfig
from fastslow.slow.context_room import ContextRoom
from fastslow.slow.engine import PolicyEngine
from fastslow.types import Prompt


def check_optimiser(config: FastConfig) -> None:
    """Raises ConfigError for what can be known to fail before any model loads."""
    check_proposer(config.proposer)
    if isinstance(config, OwnOptimiserConfig) and not can_make(config.optimiser, "fast.optimiser"):
        raise ConfigError(f"fast.optimiser: {config.optimiser!r} cannot be called: name a class with `evolve`")


def build_optimiser(
    config: FastConfig, engine: PolicyEngine, seed_prompt: Prompt, room: ContextRoom | None = None
) -> PromptOptimiser:
    """The fast side of a run that searches. `room` says which prompts are too long.

    One of your own gets `seed_prompt`, `metric_calls`,
    `room` and a `proposer` where its constructor has parameters of these names.
    """
    if isinstance(config, OwnOptimiserConfig):
        given = {
            "seed_prompt": seed_prompt,
            "metric_calls": config.metric_calls,
            "room": room,
            "proposer": lambda: build_proposer(config.proposer, engine),
        }
        made = construct(config.optimiser, config.options, "fast", key="optimiser", given=given)
        if not callable(getattr(made, "evolve", None)):
            raise ConfigError(
                f"fast.optimiser: {config.optimiser!r} gave {made!r}, which has no `evolve`: see docs/prompts.md"
            )
        own: PromptOptimiser = made
        return own
    if not isinstance(config, GepaConfig) or config.optimiser != "gepa":
        return FrozenOptimiser()
    # gepa takes a second to import, which `--help` need not wait for.
    from fastslow.fast.gepa.optimiser import GepaOptimiser
    from fastslow.fast.gepa.trials import TrialOptimiser

    kind = TrialOptimiser if config.scores == "rollouts" else GepaOptimiser
    return kind(
        build_proposer(config.proposer, engine),
        seed_prompt,
        metric_calls=config.metric_calls,
        reflection_minibatch=config.reflection_minibatch,
        proposals_per_iteration=config.trials if config.scores == "rollouts" else config.proposals_per_iteration,
        held_out=config.held_out,
        ties=config.ties,
        room=room,
        merges=config.max_merges if config.use_merge else 0,
    )
