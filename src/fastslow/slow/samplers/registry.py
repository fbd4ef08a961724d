"""From a config to the sampler of the local engine. A new one is a class anywhere, named as `package.module:Class`."""

from fastslow.errors import ConfigError
from fastslow.extension import can_make, construct
from fastslow.slow.engine import Sampler, check_protocol
from fastslow.slow.local.loading import device_of
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.slow.samplers.settings import AnySampler, OwnSamplerConfig, VllmConfig
from fastslow.slow.samplers.vllm import VllmSampler, check_vllm
from fastslow.slow.settings import ModelConfig
from fastslow.text import shown


def check_sampler(config: AnySampler, model: ModelConfig) -> None:
    """Raises ConfigError for what can be known to fail before the model loads."""
    if isinstance(config, VllmConfig):
        check_vllm(config, device_of(model))
    elif isinstance(config, OwnSamplerConfig) and not can_make(config.kind, "slow.sampler.kind"):
        raise ConfigError(
            f"slow.sampler.kind: {shown(config.kind)} cannot be called: name a class with `sample` and `sync`"
        )


def build_sampler(config: AnySampler, policy: LocalPolicy) -> Sampler:
    """The sampler of a policy. One of your own gets `policy` where its constructor has a parameter of that name."""
    if isinstance(config, VllmConfig):
        return VllmSampler(policy, config)
    if not isinstance(config, OwnSamplerConfig):
        return ForestSampler(policy)
    made: Sampler = construct(config.kind, config.options, "slow.sampler", key="kind", given={"policy": policy})
    check_protocol(made, Sampler, f"slow.sampler.kind: {shown(config.kind)}")
    return made
