"""From a config to the proposer. A new proposer is one file with `check` and `build`, and one entry here."""

from importlib import import_module
from types import ModuleType

from fastslow.config import ProposerConfig
from fastslow.errors import ConfigError
from fastslow.fast.proposers.base import Proposer
from fastslow.slow.engine import PolicyEngine

MODULES = {
    "lesson": "fastslow.fast.proposers.lesson",
    "litellm": "fastslow.fast.proposers.litellm",
    "openai": "fastslow.fast.proposers.openai",
    "policy": "fastslow.fast.proposers.policy",
}


def check_proposer(config: ProposerConfig) -> None:
    """Raises ConfigError for what can be known to fail before any model loads."""
    _module(config.kind).check(config)


def build_proposer(config: ProposerConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config."""
    proposer: Proposer = _module(config.kind).build(config, engine)
    return proposer


def _module(kind: str) -> ModuleType:
    if kind not in MODULES:
        raise ConfigError(f"fast.proposer.kind: {kind!r} is not known: take one of {', '.join(MODULES)}")
    return import_module(MODULES[kind])
