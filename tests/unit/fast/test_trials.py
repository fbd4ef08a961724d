"""A search that samples nothing: members are scored by what RL rolled out, children wait for the steps that follow."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from worlds import SEED, Appender, World, make_problems, plus_signs

from fastslow.errors import ReflectionError
from fastslow.fast.gepa.trials import ON_TRIAL, TrialOptimiser
from fastslow.fast.optimiser import Evaluation, Evolution, Usage
from fastslow.types import Problem, Prompt


class Store(World):
    """What RL has rolled out: a pair that it knows nothing of must not be asked for."""

    def __init__(self, reward: Any, members: Sequence[Prompt], feedback: str = "Do better.") -> None:
        super().__init__(reward, feedback)
        self.members = members

    def evaluate(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        assert {prompt for prompt, _ in pairs} <= set(self.members)
        return super().evaluate(pairs)


class Complaining(Store):
    """What the verifier says depends on the prompt and the problem."""

    def __init__(self, reward: Any, members: Sequence[Prompt], says: Callable[[Prompt, Problem], str]) -> None:
        super().__init__(reward, members)
        self.says = says

    def evaluate(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        found = []
        for prompt, problem in pairs:
            self.feedback = self.says(prompt, problem)
            found += super().evaluate([(prompt, problem)])
        return found


def evolve(
    store: Store,
    proposer: Any,
    *,
    problems: int = 6,
    size: int = 4,
    trials: int = 1,
    calls: int = 60,
    previous: Any = None,
) -> Evolution:
    optimiser = TrialOptimiser(
        proposer, SEED, metric_calls=calls, reflection_minibatch=2, proposals_per_iteration=trials
    )
    evolution = optimiser.evolve(
        store.members,
        make_problems(problems),
        store.evaluate,
        size=size,
        seed=0,
        previous_scores=previous or {},
    )
    assert len(evolution.population) == size and evolution.metric_calls == store.calls <= calls
    return evolution


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_children_take_the_last_places_and_nothing_else_is_asked_for(trials: int) -> None:
    store = Store(plus_signs, [SEED])
    evolution = evolve(store, Appender(), trials=trials)
    children = evolution.population[4 - trials :]
    assert evolution.population[: 4 - trials] == (SEED,) * (4 - trials)
    assert [child.system for child in children] == [f"seed+{number}" for number in range(1, trials + 1)]
    assert store.calls == 6 and len(store.batches) == 1
    records = {candidate.prompt: candidate for candidate in evolution.candidates}
    assert all(records[child].accepted and records[child].reason == ON_TRIAL for child in children)
    assert records[children[0]].parent_hash == SEED.hash and records[children[0]].scores == {}


def test_a_child_that_was_worse_on_the_same_problems_gives_its_place_up() -> None:
    good, bad = Prompt.of("good"), Prompt.of("bad")
    store = Store(lambda prompt, problem: float(prompt == good or problem.id == "p0"), [good, SEED, bad])
    evolution = evolve(store, Appender(), size=3)
    assert evolution.population[0] == good and bad not in evolution.population
    reasons = {candidate.prompt: candidate.reason for candidate in evolution.candidates}
    assert reasons[bad] == "member of the population, which gives its place up"
    assert reasons[good] == "member of the population, which stays"


def test_a_prompt_that_alone_solves_a_problem_stays_though_its_mean_is_low() -> None:
    """The selection is GEPA's: the per-instance frontier, not the mean."""
    wide, narrow, dull = Prompt.of("wide"), Prompt.of("narrow"), Prompt.of("dull")
    solves = {wide: {"p0", "p1", "p2", "p3", "p4"}, narrow: {"p5"}, dull: {"p0", "p1", "p2", "p3"}}
    store = Store(lambda prompt, problem: float(problem.id in solves[prompt]), [wide, dull, narrow])
    evolution = evolve(store, Appender(), size=3)
    assert evolution.population[:2] == (wide, narrow)
    assert evolution.population[2] not in solves


def test_while_nothing_scores_the_prompt_with_the_fewest_complaints_is_the_parent() -> None:
    best = Prompt.of("best")

    proposer = Appender()
    members = [SEED, best, Prompt.of("other")]
    store = Complaining(
        lambda prompt, problem: 0.0, members, lambda prompt, problem: "one" if prompt == best else "one\ntwo\nthree"
    )
    evolution = evolve(store, proposer, size=3)
    assert evolution.population[0] == best
    assert [request.parent for request in proposer.batches[0]] == [best]


def test_the_first_place_is_for_the_highest_mean_though_it_may_be_luck() -> None:
    """It is measured and exported. The parent is the one with the fewest complaints all the same."""
    once = Prompt.of("once")

    proposer = Appender()
    store = Complaining(
        lambda prompt, problem: float(prompt == once and problem.id == "p3"),
        [SEED, once],
        lambda prompt, problem: "one" if prompt == SEED else f"{problem.id} is wrong",
    )
    evolution = evolve(store, proposer, problems=10)
    assert evolution.population[:3] == (once, SEED, SEED)
    assert [request.parent for request in proposer.batches[0]] == [SEED]


def test_a_stale_population_gets_the_seed_prompt_on_trial() -> None:
    old = Prompt.of("old")
    evolution = evolve(Store(lambda prompt, problem: 0.0, [old]), Appender(), previous={old.hash: 1.0})
    assert evolution.population == (old, old, old, SEED) and evolution.info["restarted"]
    assert next(c for c in evolution.candidates if c.prompt == SEED).reason == ON_TRIAL


def test_reflection_that_is_down_leaves_the_members() -> None:
    failing = Appender(lambda number: ReflectionError("no connection", Usage(calls=1, failures=1)))
    evolution = evolve(Store(plus_signs, [SEED]), failing)
    assert evolution.population == (SEED,) * 4
    assert evolution.error is not None and "no connection" in evolution.error


def test_the_ceiling_of_metric_calls_limits_the_problems_that_members_are_compared_on() -> None:
    store = Store(plus_signs, [SEED, Prompt.of("b+")])
    assert evolve(store, Appender(), problems=20, calls=11).info["anchors"] == 5
