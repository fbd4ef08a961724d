"""From a config to the proposer. A new proposer is one file with `check` and `build`, and one entry here."""

from importlib import import_module
from types import ModuleType

from fastslow.config import ProposerConfig
from fastslow.errors import ConfigError
from fastslow.fast.proposer import Proposer
from fastslow.slow.engine import PolicyEngine

MODULES = {
    "lesson": "fastslow.fast.lesson",
    "litellm": "fastslow.fast.litellm_proposer",
    "openai": "fastslow.fast.openai_proposer",
    "policy": "fastslow.fast.policy_proposer",
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
