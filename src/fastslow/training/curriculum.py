"""Which problems come when: shuffled epochs, computed from the seed and the step alone, so nothing needs saving."""

import random
from collections.abc import Sequence

from fastslow.seeding import derive_seed
from fastslow.types import Problem


class Curriculum:
    """Minibatches of problems. Each epoch is a new shuffle; a minibatch never holds a problem twice."""

    def __init__(self, problems: Sequence[Problem], problems_per_step: int, seed: int) -> None:
        self.problems, self.seed = problems, seed
        self.size = min(problems_per_step, len(problems))
        self.steps_per_epoch = len(problems) // self.size
        self._epoch: tuple[int, list[int]] = (-1, [])

    def minibatch(self, step: int) -> list[Problem]:
        """The problems of one step, counted from 0. What an epoch leaves over waits for the next shuffle."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        return [self.problems[index] for index in order[position * self.size : (position + 1) * self.size]]

    def lookahead(self, step: int, count: int) -> list[list[Problem]]:
        """The next `count` minibatches: Algorithm 1's look-ahead batch, before it is joined."""
        return [self.minibatch(step + offset) for offset in range(count)]

    def _order(self, epoch: int) -> list[int]:
        if self._epoch[0] != epoch:
            order = list(range(len(self.problems)))
            random.Random(derive_seed(self.seed, "curriculum", epoch)).shuffle(order)
            self._epoch = (epoch, order)
        return self._epoch[1]


def union(minibatches: Sequence[Sequence[Problem]]) -> list[Problem]:
    """The problems of several minibatches, each once, in order."""
    return list({problem.id: problem for minibatch in minibatches for problem in minibatch}.values())
