"""One cycle in worlds that break: masked rollouts, scorers and reflection that are down, replies that are refused."""

from typing import Any

import pytest
from worlds import SEED, Appender, World, children, evolve, plus_signs

from fastslow.errors import InfrastructureError, ReflectionError
from fastslow.fast.optimiser import Usage
from fastslow.types import Problem, Prompt

# -- masked rollouts ---------------------------------------------------------------------------------------------------


def test_a_masked_rollout_is_asked_once_more_and_then_counts_as_the_mean_of_the_others() -> None:
    def reward(prompt: Prompt, problem: Problem) -> float | None:
        return {"p0": None, "p1": 1.0, "p2": 0.5}[problem.id]

    world = World(reward)
    evolution = evolve(world, Appender(), problems=3, metric_calls=6, minibatch=2)
    assert evolution.candidates[0].scores == {"p0": 0.75, "p1": 1.0, "p2": 0.5}
    assert [problem.id for _, problem in world.batches[1]] == ["p0"]
    assert evolution.info["masked"] >= 1


def test_a_masked_rollout_that_works_the_second_time_has_its_own_score() -> None:
    seen: set[tuple[str, str]] = set()

    def reward(prompt: Prompt, problem: Problem) -> float | None:
        first = (prompt.hash, problem.id) not in seen
        seen.add((prompt.hash, problem.id))
        return None if first and problem.id == "p0" else 0.25

    evolution = evolve(World(reward), Appender(), problems=3, metric_calls=6, minibatch=2)
    assert evolution.candidates[0].scores == {"p0": 0.25, "p1": 0.25, "p2": 0.25}


def test_a_minibatch_that_is_all_masked_takes_the_mean_of_what_is_known_of_the_prompt() -> None:
    def reward(prompt: Prompt, problem: Problem) -> float | None:
        return None if prompt == SEED and problem.id != "p0" else 0.5

    evolution = evolve(World(reward), Appender(), problems=6, metric_calls=60)
    # The seed counts as 0.5 everywhere, so that a child at 0.5 is no improvement over nothing.
    assert children(evolution)
    assert not any(child.accepted for child in children(evolution))
    assert all("0.500 -> 0.500" in child.reason for child in children(evolution))


def test_a_child_that_cannot_be_scored_is_not_accepted_and_one_that_can_is() -> None:
    def reward(prompt: Prompt, problem: Problem) -> float | None:
        return None if prompt.system == "seed+1" else plus_signs(prompt, problem)

    evolution = evolve(World(reward), Appender())
    first, *others = children(evolution)
    assert (first.accepted, first.reason, first.scores) == (False, "none of its rollouts could be scored", {})
    assert any(child.accepted for child in others)
    assert first.prompt not in evolution.population


def test_a_member_that_cannot_be_scored_has_no_score_instead_of_a_zero() -> None:
    a, b = Prompt.of("a"), Prompt.of("b")
    evolution = evolve(World(lambda prompt, problem: None if prompt == a else 0.5), Appender(), [a, b])
    assert evolution.candidates[0].scores == {}
    assert evolution.population == (b, b)


def test_a_scorer_that_is_down_ends_the_cycle_at_once_and_one_that_dies_after_three_batches() -> None:
    world = World(lambda prompt, problem: None)
    with pytest.raises(InfrastructureError, match=r"none of 6 rollouts .* the scorer crashed"):
        evolve(world, Appender())
    assert world.calls == 12
    dying = World(lambda prompt, problem: 0.5 if prompt == SEED else None)
    with pytest.raises(InfrastructureError, match="the scorer crashed"):
        evolve(dying, Appender(), metric_calls=600)
    assert dying.calls == 6 + 3 * 4


# -- reflection --------------------------------------------------------------------------------------------------------


def down(number: int) -> ReflectionError:
    return ReflectionError("connection refused", Usage(calls=2, failures=2))


def test_reflection_that_is_down_keeps_the_population_and_says_so() -> None:
    population = [Prompt.of("a"), Prompt.of("b"), Prompt.of("c")]
    evolution = evolve(World(plus_signs), Appender(down), population, size=4)
    assert evolution.population == (*population, population[0])
    assert evolution.error == "reflection failed, the previous population is kept: connection refused"
    assert evolution.usage == Usage(calls=6, failures=6)


def test_reflection_that_fails_now_and_then_costs_children_only() -> None:
    proposer = Appender(lambda number: down(number) if number % 2 else None)
    evolution = evolve(World(plus_signs), proposer)
    succeeded = proposer.number // 2
    assert evolution.error is None
    assert len(children(evolution)) == succeeded
    assert evolution.usage.failures == 2 * (proposer.number - succeeded)
    assert evolution.usage.usd == 0.5 * succeeded
    assert evolution.usage.input_tokens == 10 * succeeded


def test_refused_replies_are_counted_recorded_with_their_feedback_and_never_adopted() -> None:
    spent = Usage(calls=2, failures=1, refused=1, input_tokens=7, usd=0.25)
    proposer = Appender(lambda number: ReflectionError("the reply is truncated", spent, "seed, but"))
    evolution = evolve(World(plus_signs), proposer)
    refused = children(evolution)
    assert len(refused) == proposer.number > 3
    assert {(c.prompt.system, c.accepted, c.feedback) for c in refused} == {("seed, but", False, ("Do better.",))}
    assert refused[0].reason == "refused: the reply is truncated"
    assert evolution.usage.refused == evolution.usage.failures == proposer.number
    # The server answered: nothing is down, the population is what scored best.
    assert evolution.error is None
    assert evolution.population == (SEED, SEED)


def test_a_proposer_that_repeats_itself_ends_the_cycle() -> None:
    class Same(Appender):
        def _one(self, request: Any) -> Any:
            self.number = 0
            return super()._one(request)

    evolution = evolve(World(lambda prompt, problem: 0.5), Same(), metric_calls=10_000)
    assert evolution.metric_calls == 6 + 2
    assert "duplicate of a known prompt" in children(evolution)[-1].reason


def test_a_defect_in_a_proposer_is_not_taken_for_a_cycle_without_progress() -> None:
    class Broken(Appender):
        def propose_batch(self, requests: Any) -> Any:
            self.batches.append(requests)
            raise KeyError("a defect")

    proposer = Broken()
    with pytest.raises(KeyError, match="a defect"):
        evolve(World(plus_signs), proposer)
    assert len(proposer.batches) == 1
