"""Which of the K prompts each problem of a step is rolled out under, where that is not all of them (ours)."""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

from fastslow.seeding import derive_seed

T = TypeVar("T")


def dealt(population: Sequence[T], each: int, first: int, problems: int, seed: int) -> list[list[T]]:
    """The members that each of `problems` sees, in the order of the population;
    `first` is the number of the first problem, counted over the run.

    Members are dealt in turn, so that no two of them are ever dealt a different number of times by more than one over
    all problems so far. The turn has a new order after every lcm(K, `each`) deals, where all stand level: who meets
    whom changes. From seed and number alone, so that nothing needs saving.
    Raises: ValueError where `each` is not 1 to K.
    """
    size = len(population)
    if not 0 < each <= size:
        raise ValueError(f"{each} of {size} prompts cannot be dealt to a problem")
    lap = math.lcm(size, each)
    hands = []
    for number in range(first, first + problems):
        turn, start = divmod(number * each, lap)
        order = list(range(size))
        random.Random(derive_seed(seed, "deal", turn)).shuffle(order)
        places = sorted(order[(start + deal) % size] for deal in range(each))
        hands.append([population[place] for place in places])
    return hands
