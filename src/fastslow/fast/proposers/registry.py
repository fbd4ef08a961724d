"""From a config to the proposer. A new one is one class with `propose`, anywhere, named as `package.module:Class`.

Those that come with the package are one file each, with `check(config)` and `build(config, engine)`,
and one entry here.
"""

from importlib import import_module
from types import ModuleType

from fastslow.errors import ConfigError
from fastslow.extension import can_make, construct
from fastslow.fast.proposers.base import Proposer
from fastslow.fast.proposers.settings import OwnProposerConfig, ProposerConfig, RemoteConfig
from fastslow.slow.engine import PolicyEngine

MODULES = {
    "lesson": "fastslow.fast.proposers.lesson",
    "litellm": "fastslow.fast.proposers.litellm",
    "openai": "fastslow.fast.proposers.openai",
    "policy": "fastslow.fast.proposers.policy",
}
FIELD = "fast.proposer"


def check_proposer(config: ProposerConfig) -> None:
    """Raises ConfigError for what can be known to fail before any model loads."""
    if isinstance(config, OwnProposerConfig):
        if not can_make(config.kind, f"{FIELD}.kind"):
            raise ConfigError(f"{FIELD}.kind: {config.kind!r} cannot be called: name a class with `propose`")
        return
    _module(config).check(config)


def build_proposer(config: ProposerConfig, engine: PolicyEngine) -> Proposer:
    """The proposer of a config. One of your own gets the engine where its constructor has a parameter of that name."""
    if isinstance(config, OwnProposerConfig):
        made = construct(config.kind, config.options, FIELD, key="kind", given={"engine": engine})
        if not callable(getattr(made, "propose", None)):
            raise ConfigError(
                f"{FIELD}.kind: {config.kind!r} gave {made!r}, which has no `propose`: see docs/prompts.md"
            )
        own: Proposer = made
        return own
    proposer: Proposer = _module(config).build(config, engine)
    return proposer


def price_of(config: RemoteConfig) -> tuple[tuple[float, float] | None, str]:
    """USD for a million tokens read, and for as many written, None where nobody knows; and whose prices they are."""
    read, written = config.usd_per_million_input_tokens, config.usd_per_million_output_tokens
    if read is not None and written is not None:
        return (read, written), "the config's prices"
    found: tuple[tuple[float, float] | None, str] = _module(config).list_price(config)
    return found


def _module(config: ProposerConfig) -> ModuleType:
    return import_module(MODULES[getattr(config, "kind", "")])
