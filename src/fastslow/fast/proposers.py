"""From a config to the proposer. A new proposer is one file and one entry here."""

from fastslow.config import ProposerConfig
from fastslow.errors import ConfigError
from fastslow.fast.lesson import LessonProposer
from fastslow.fast.proposer import Proposer
from fastslow.slow.engine import PolicyEngine


def check_proposer(config: ProposerConfig) -> None:
    """Raises ConfigError for what can be known to fail before any model loads."""


def build_proposer(config: ProposerConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config."""
    if config.kind == "lesson":
        return LessonProposer(config.max_prompt_chars)
    raise ConfigError(config.kind)
