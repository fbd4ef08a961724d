"""Merge with the real gepa: two prompts that each learned one thing become one that has both."""

from collections.abc import Sequence
from typing import Any

import pytest
from worlds import World, make_problems

from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Candidate, Evolution, Usage
from fastslow.fast.proposers.base import Example, Proposal
from fastslow.types import Problem, Prompt

SEED = Prompt.from_dict({"system": "seed", "skill": "seed"})


class Fixer:
    """Improves the component that it is asked for, once: gepa asks for one component after the other."""

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        return Proposal(f"fixed {component} {seed % 1000}", Usage(calls=1))


def halves(prompt: Prompt, problem: Problem) -> float:
    """Even problems need the one component, odd ones the other; the seed solves none."""
    needed = "system" if int(problem.id[1:]) % 2 == 0 else "skill"
    both = prompt.as_dict()
    return float(both[needed].startswith("fixed"))


def evolve(merges: int, *, seed: int = 0, calls: int = 120, reward: Any = halves) -> tuple[Evolution, World]:
    world = World(reward)
    optimiser = GepaOptimiser(
        Fixer(), SEED, metric_calls=calls, reflection_minibatch=4, proposals_per_iteration=2, merges=merges
    )
    evolution = optimiser.evolve([SEED], make_problems(8), world.evaluate, size=2, seed=seed, previous_scores={})
    assert evolution.metric_calls == world.calls <= calls
    return evolution, world


def merged(evolution: Evolution) -> list[Candidate]:
    return [candidate for candidate in evolution.candidates if candidate.reason.startswith("merged from")]


def found(merges: int) -> list[Evolution]:
    return [evolve(merges, seed=seed)[0] for seed in range(8)]


def test_two_parents_that_each_learned_one_thing_make_a_child_that_has_both() -> None:
    accepted = [one for evolution in found(5) for one in merged(evolution) if one.accepted]
    assert accepted
    for child in accepted:
        assert all(text.startswith("fixed") for text in child.prompt.as_dict().values())
        assert set(child.scores.values()) == {1.0}
        assert len(child.scores) == 8


def test_without_the_option_nothing_is_merged_and_nothing_is_counted() -> None:
    for evolution in found(0):
        assert merged(evolution) == []
        assert "merges" not in evolution.info


def test_what_is_tried_and_what_is_accepted_is_counted() -> None:
    tried = 0
    for evolution in found(5):
        counts = evolution.info["merges"]
        assert counts == (len(merged(evolution)), sum(one.accepted for one in merged(evolution)))
        tried += counts[0]
    assert tried
    assert all(evolution.info["merges"][1] <= 1 for evolution in found(1))


def test_a_merge_that_is_worse_than_its_better_parent_is_not_accepted() -> None:
    def apart(prompt: Prompt, problem: Problem) -> float:
        """Both at once do harm."""
        both = all(text.startswith("fixed") for text in prompt.as_dict().values())
        return 0.0 if both else halves(prompt, problem)

    tried = [one for seed in range(8) for one in merged(evolve(5, seed=seed, reward=apart)[0])]
    assert tried
    assert not any(one.accepted for one in tried)
    assert all("worse than its better parent" in one.reason for one in tried)


def test_the_same_seed_merges_the_same() -> None:
    first, second = (evolve(5, seed=3)[0] for _ in range(2))
    assert first.candidates == second.candidates
    assert first.population == second.population


@pytest.mark.parametrize("calls", [9, 17, 23, 31, 48])
def test_no_merge_exceeds_the_budget(calls: int) -> None:
    for seed in range(4):
        evolve(5, seed=seed, calls=calls)
