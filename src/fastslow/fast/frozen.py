"""A prompt optimiser that leaves the prompts as they are: plain RL is FST with this one and K = 1."""

from collections.abc import Mapping, Sequence

from fastslow.fast.optimiser import Evaluate, Evolution, Usage
from fastslow.types import Problem, Prompt


class FrozenOptimiser:
    """Returns the population, repeated to its size, without a single metric call."""

    def evolve(
        self,
        population: Sequence[Prompt],
        problems: Sequence[Problem],
        evaluate: Evaluate,
        *,
        size: int,
        seed: int,
        previous_scores: Mapping[str, float],
    ) -> Evolution:
        """The population as it is, repeated to `size`; nothing is asked and nothing is paid for."""
        members = tuple(population[index % len(population)] for index in range(size))
        return Evolution(members, (), 0, Usage())
