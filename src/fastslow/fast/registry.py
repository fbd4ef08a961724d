"""From a config to the prompt optimiser. A new one is one file with `build`, and one entry here or its path in a config."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from fastslow.config import FROZEN, Config
from fastslow.errors import ConfigError
from fastslow.fast.optimiser import PromptOptimiser
from fastslow.slow.context_room import ContextRoom
from fastslow.slow.engine import PolicyEngine
from fastslow.tasks.registry import load_object
from fastslow.types import Prompt

MODULES = {
    "gepa": "fastslow.fast.gepa.optimiser",
    FROZEN: "fastslow.fast.frozen",
}

Build = Callable[[Config, PolicyEngine, Prompt], PromptOptimiser]


def check_optimiser(name: str) -> None:
    """Raises ConfigError where no optimiser has this name."""
    _build(name)


def build_optimiser(
    config: Config, engine: PolicyEngine, seed_prompt: Prompt, room: ContextRoom | None = None
) -> PromptOptimiser:
    """The fast side of a run; plain RL leaves its one prompt as it is. `room` says which prompts are too long."""
    optimiser = _build(config.fast.optimiser if config.searches else FROZEN)(config, engine, seed_prompt)
    if room is not None and hasattr(optimiser, "room"):
        optimiser.room = room
    return optimiser


def _build(name: str) -> Build:
    if name in MODULES:
        found: Any = import_module(MODULES[name]).build
    elif ":" in name:
        found = load_object(name, "fast.optimiser")
    else:
        raise ConfigError(
            f"fast.optimiser: {name!r} is unknown: take one of {', '.join(MODULES)}, or package.module:build"
        )
    if not callable(found):
        raise ConfigError(f"fast.optimiser: {name!r} is {found!r}, which cannot be called: name a function build")
    build: Build = found
    return build
