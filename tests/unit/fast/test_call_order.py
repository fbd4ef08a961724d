"""What a search finds does not hang on the order in which gepa asks about the children of one iteration."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from gepa.core.engine import GEPAEngine
from gepa.strategies.proposal_selection import AllImprovements
from worlds import SEED, Appender, World

from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Evolution
from fastslow.types import Problem, Prompt

KINDS = ("north", "south")


def two_kinds(prompt: Prompt, problem: Problem) -> float:
    """Odd edits serve one kind, edits that three divides solve half of the other, and the rest nothing at all."""
    number = int(prompt.system.rpartition("+")[2]) if "+" in prompt.system else 0
    if problem.kind == "north":
        return float(number % 2 == 1 and int(problem.id[1:]) % 8 != number % 8)
    return float(number % 3 == 0 and number > 0 and int(problem.id[1:]) % 4 == 1)


def search(reward: Callable[[Prompt, Problem], float], kinds: Sequence[str], seed: int) -> tuple[Evolution, World]:
    world = World(reward)
    problems = [Problem(f"p{i}", ({"role": "user", "content": "?"},), kind=kinds[i % len(kinds)]) for i in range(48)]
    optimiser = GepaOptimiser(Appender(), SEED, metric_calls=500, reflection_minibatch=4, proposals_per_iteration=5)
    return optimiser.evolve([SEED], problems, world.evaluate, size=4, seed=seed, previous_scores={}), world


def shuffle_calls(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[str]:
    """Have gepa judge and score the children of an iteration in shuffled orders; what it shuffled."""
    rng, shuffled = random.Random(seed), []
    evaluate, select = GEPAEngine._evaluate_programs_on_valset, AllImprovements.select

    def evaluate_shuffled(self: Any, programs: list[Any], state: Any) -> list[Any]:
        order = rng.sample(range(len(programs)), len(programs))
        shuffled.extend(["scored"] * (order != sorted(order)))
        found = dict(zip(order, evaluate(self, [programs[i] for i in order], state), strict=True))
        return [found[i] for i in range(len(programs))]

    def select_shuffled(self: Any, proposals: list[Any], state: Any, acceptance_criterion: Any) -> list[Any]:
        order = rng.sample(range(len(proposals)), len(proposals))
        shuffled.extend(["judged"] * (order != sorted(order)))
        for position in order:
            acceptance_criterion.should_accept(proposals[position], state)
        return select(self, proposals, state, acceptance_criterion)

    monkeypatch.setattr(GEPAEngine, "_evaluate_programs_on_valset", evaluate_shuffled)
    monkeypatch.setattr(AllImprovements, "select", select_shuffled)
    return shuffled


@pytest.mark.parametrize("kinds", [KINDS, ("north",)], ids=["two kinds", "one kind"])
@pytest.mark.parametrize("seed", range(4))
def test_another_order_of_calls_gives_the_same_search(
    kinds: Sequence[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, world = search(two_kinds, kinds, seed)
    shuffled = shuffle_calls(monkeypatch, seed + 2)
    again, other = search(two_kinds, kinds, seed)
    assert {"judged", "scored"} == set(shuffled)
    assert again == usual
    assert [sorted(map(str, batch)) for batch in other.batches] == [sorted(map(str, batch)) for batch in world.batches]


def test_a_child_that_gepa_drops_after_accepting_it_leaves_the_others_their_own_anchors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    select, dropped = AllImprovements.select, []

    def select_without_the_first(self: Any, proposals: list[Any], state: Any, criterion: Any) -> list[Any]:
        first, *rest = select(self, proposals, state, criterion) or [None]
        dropped.append(first)
        return rest

    def reward(prompt: Prompt, problem: Problem) -> float:
        """Of the children of the seed the first serves nothing; the others serve everything."""
        return float(prompt.system not in ("seed", "seed+1"))

    monkeypatch.setattr(AllImprovements, "select", select_without_the_first)
    evolution, _ = search(reward, ("",), 0)
    assert Prompt.from_dict(dropped[0].candidate).system == "seed+1"
    scored = {c.prompt.system: len(c.scores) for c in evolution.candidates}
    assert scored["seed+1"] == 0
    assert [scored[f"seed+{number}"] for number in (2, 3, 4, 5)] == [48] * 4
