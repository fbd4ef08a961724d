"""From a config to the prompt optimiser."""

from fastslow.config import Config
from fastslow.context_room import ContextRoom
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.fast.optimiser import PromptOptimiser
from fastslow.slow.engine import PolicyEngine
from fastslow.types import Prompt


def build_optimiser(
    config: Config, engine: PolicyEngine, seed_prompt: Prompt, room: ContextRoom | None = None
) -> PromptOptimiser:
    """The fast side of a run; plain RL leaves its one prompt as it is. `room` says which prompts are too long."""
    if not config.searches:
        return FrozenOptimiser()
    from fastslow.fast.gepa_optimiser import GepaOptimiser
    from fastslow.fast.proposers import build_proposer

    fast = config.fast
    return GepaOptimiser(
        build_proposer(fast.proposer, engine),
        seed_prompt,
        metric_calls=fast.metric_calls,
        reflection_minibatch=fast.reflection_minibatch,
        proposals_per_iteration=fast.proposals_per_iteration,
        room=room,
    )
