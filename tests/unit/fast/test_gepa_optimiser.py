"""One cycle of prompt evolution in worlds whose rewards are known: the ceiling, the seeds, ties, restarts."""

import random
from pathlib import Path

import pytest
from worlds import SEED, Appender, World, children, evolve, make_problems, plus_signs

from fastslow.errors import InfrastructureError
from fastslow.fast.proposers.lesson import LessonProposer
from fastslow.types import Problem, Prompt


def test_the_budget_is_never_exceeded_whatever_the_sizes() -> None:
    rng = random.Random(0)
    for trial in range(150):
        population = [Prompt.of(f"member {i}") for i in range(rng.randint(1, 9))]
        masked, top = rng.choice([0.0, 0.0, 0.3]), rng.choice([0.0, 0.5, 1.0])

        def reward(prompt: Prompt, problem: Problem, masked: float = masked, top: float = top) -> float | None:
            draw = rng.random()
            return None if draw < masked else round(rng.random() * top, 1)

        world = World(reward)
        try:
            evolve(
                world,
                rng.choice([Appender(), LessonProposer()]),
                population,
                problems=rng.randint(1, 20),
                metric_calls=rng.randint(1, 120),
                minibatch=rng.randint(1, 8),
                size=rng.randint(1, 6),
                proposals=rng.randint(1, 5),
                seed=trial,
                previous=dict.fromkeys((prompt.hash for prompt in population), rng.choice([0.0, 0.5])),
            )
        except InfrastructureError:
            assert masked > 0.0


def test_the_budget_is_used_and_evolution_climbs() -> None:
    world = World(plus_signs)
    evolution = evolve(world, Appender())
    # 6 for the seed, then 6 for each child, which is always better: 60 // 6 - 1 children.
    assert len(children(evolution)) == 9
    assert evolution.metric_calls == 60
    assert evolution.population[0].system.count("+") == max(c.prompt.system.count("+") for c in children(evolution))
    assert evolution.info["best_mean"] == pytest.approx(plus_signs(evolution.population[0], make_problems(1)[0]))


def test_a_population_that_is_larger_than_the_budget_is_kept_and_nothing_is_asked() -> None:
    world = World(plus_signs)
    population = [Prompt.of(f"member {i}") for i in range(5)]
    evolution = evolve(world, Appender(), population, metric_calls=4, size=6)
    assert world.batches == []
    assert evolution.population == (*population, population[0])
    assert evolution.error is not None
    assert "fast.metric_calls: 4" in evolution.error


def test_the_whole_population_is_scored_first_in_one_batch_on_half_of_the_budget() -> None:
    world = World(plus_signs)
    population = [Prompt.of(name) for name in ("a", "b", "c", "b")]
    evolution = evolve(world, Appender(), population, problems=20, metric_calls=60)
    # Three distinct prompts in half of 60 calls: 10 anchors each.
    assert len(world.batches[0]) == 30
    assert evolution.info["anchors"] == 10
    assert {prompt.system for prompt, _ in world.batches[0]} == {"a", "b", "c"}
    seeds = [candidate for candidate in evolution.candidates if candidate.parent_hash is None]
    assert [len(candidate.scores) for candidate in seeds] == [10, 10, 10]


def test_every_member_of_the_population_can_become_a_parent() -> None:
    def specialist(prompt: Prompt, problem: Problem) -> float:
        return float(problem.id == {"a": "p0", "b": "p1", "c": "p2"}.get(prompt.system))

    parents = set()
    for seed in range(12):
        evolution = evolve(
            World(specialist), Appender(), [Prompt.of(n) for n in "abc"], problems=3, metric_calls=60, seed=seed
        )
        parents |= {c.parent_hash for c in children(evolution)}
    assert parents == {Prompt.of(n).hash for n in "abc"}


def test_a_pair_is_asked_once_a_cycle() -> None:
    world = World(plus_signs)
    evolve(world, Appender(), metric_calls=200)
    asked = [(prompt.hash, problem.id) for batch in world.batches for prompt, problem in batch]
    assert len(asked) == len(set(asked))


def test_children_of_one_iteration_are_proposed_and_evaluated_in_one_batch_each() -> None:
    world, proposer = World(plus_signs), Appender()
    evolve(world, proposer, problems=8, metric_calls=120, minibatch=2, proposals=4)
    assert [len(batch) for batch in proposer.batches][:1] == [4]
    # The seed on 8 anchors; four children on 2 problems each; the same four on the 6 others: 24.
    assert [len(batch) for batch in world.batches[:3]] == [8, 8, 24]


def test_proposals_that_the_budget_cannot_test_are_not_asked_for() -> None:
    proposer = Appender()
    # 8 for the seed, 6 left: three minibatches of 2 and not eight.
    evolve(World(lambda prompt, problem: 0.5), proposer, problems=8, metric_calls=16, minibatch=2, proposals=8)
    assert [len(batch) for batch in proposer.batches] == [4]


def test_a_better_child_is_scored_on_all_anchors_beside_a_tie_at_zero() -> None:
    def reward(prompt: Prompt, problem: Problem) -> float:
        return float(prompt.system == "seed+1")

    for order in range(4):
        world = World(reward)
        evolution = evolve(world, Appender(), problems=8, metric_calls=40, minibatch=2, proposals=3, seed=order)
        scored = {candidate.prompt.system: len(candidate.scores) for candidate in children(evolution)}
        assert (scored["seed+1"], scored["seed+2"], scored["seed+3"]) == (8, 2, 2)


def test_ties_are_accepted_at_zero_only() -> None:
    at_zero = evolve(World(lambda prompt, problem: 0.0), Appender(), problems=8, metric_calls=30)
    assert all(child.accepted for child in children(at_zero))
    assert "a tie while nothing scores" in children(at_zero)[0].reason
    above = evolve(World(lambda prompt, problem: 0.5), Appender(), problems=8, metric_calls=30)
    assert children(above)
    assert not any(child.accepted for child in children(above))
    assert "not better on its minibatch: 0.500 -> 0.500 of 2" in children(above)[0].reason
    # The minibatch is zero for both, but the parent scores elsewhere, and more than luck.
    some = evolve(
        World(lambda prompt, problem: float(problem.id in ("p0", "p1"))), Appender(), problems=8, metric_calls=60
    )
    ties = [child for child in children(some) if "0.000 -> 0.000" in child.reason]
    assert ties
    assert not any(child.accepted for child in ties)


def test_while_nothing_scores_edits_build_on_the_newest() -> None:
    evolution = evolve(World(lambda prompt, problem: 0.0), Appender(), problems=8, metric_calls=30)
    newest = children(evolution)[-1].prompt.system
    assert newest.startswith("seed+1+2+3")
    assert evolution.population[0].system.startswith("seed+1+2+3")


def test_a_child_that_the_budget_cannot_score_on_the_anchors_is_not_accepted() -> None:
    # 6 for the seed, 2 for the child's minibatch, and 4 more would be 12 > 11.
    evolution = evolve(World(plus_signs), Appender(), metric_calls=12, problems=6)
    assert [child.accepted for child in children(evolution)] == [True]
    evolution = evolve(World(plus_signs), Appender(), metric_calls=11, problems=5, minibatch=2)
    last = children(evolution)[-1]
    assert evolution.metric_calls == 10
    evolution = evolve(World(plus_signs), Appender(), metric_calls=13, problems=5, minibatch=2)
    last = children(evolution)[-1]
    assert (last.accepted, last.scores) == (False, {})
    assert "the budget ended before its anchors" in last.reason
    assert last.prompt not in evolution.population


# -- stale populations -------------------------------------------------------------------------------------------------


def test_a_population_that_scored_before_and_scores_nothing_now_restarts_from_the_seed_prompt() -> None:
    old = [Prompt.of("old a"), Prompt.of("old b")]

    def reward(prompt: Prompt, problem: Problem) -> float:
        return 0.5 if prompt.system.startswith("seed") else 0.0

    evolution = evolve(World(reward), Appender(), old, previous={old[0].hash: 0.4})
    assert evolution.info["restarted"]
    assert all(prompt.system.startswith("seed") for prompt in evolution.population)
    assert {c.parent_hash for c in children(evolution)} <= {SEED.hash, *(c.prompt.hash for c in children(evolution))}


@pytest.mark.parametrize(("before", "now"), [(0.0, 0.0), (0.4, 0.2)])
def test_a_population_that_never_scored_or_still_does_goes_on(before: float, now: float) -> None:
    old = Prompt.of("old")
    evolution = evolve(World(lambda prompt, problem: now), Appender(), [old], previous={old.hash: before})
    assert not evolution.info["restarted"]
    assert SEED not in [candidate.prompt for candidate in evolution.candidates]


def test_a_restart_that_the_budget_has_no_room_for_is_left_out() -> None:
    old = Prompt.of("old")
    tries: dict[str, int] = {}

    def reward(prompt: Prompt, problem: Problem) -> float | None:
        tries[problem.id] = tries.get(problem.id, 0) + 1
        return 0.0 if tries[problem.id] > 1 or problem.id in ("p0", "p1") else None

    # 5 anchors, 3 of them asked twice: 8 of 11 calls; 5 more for the seed prompt do not fit.
    evolution = evolve(
        World(reward), Appender(), [old], problems=5, metric_calls=11, minibatch=4, previous={old.hash: 0.4}
    )
    assert not evolution.info["restarted"]
    assert evolution.info["masked"] == 3
    assert evolution.population == (old, old)


def test_components_take_turns_and_each_keeps_the_others() -> None:
    def reward(prompt: Prompt, problem: Problem) -> float:
        return min(1.0, 0.05 * sum(text.count("+") for text in prompt.as_dict().values()))

    proposer, world = Appender(), World(reward)
    prompt = Prompt.from_dict({"system": "help", "tools": "none"})
    evolution = evolve(world, proposer, [prompt], metric_calls=60)
    assert {request.component for batch in proposer.batches for request in batch} == {"system", "tools"}
    best = evolution.population[0].as_dict()
    assert set(best) == {"system", "tools"}
    assert "+" in best["system"]
    assert "+" in best["tools"]
    for child in children(evolution):
        parent = next(c.prompt for c in evolution.candidates if c.prompt.hash == child.parent_hash).as_dict()
        changed = [name for name, text in child.prompt.as_dict().items() if text != parent[name]]
        assert len(changed) == 1


def test_the_same_seed_gives_the_same_evolution_and_another_seed_another() -> None:
    def noisy(prompt: Prompt, problem: Problem) -> float:
        return random.Random(f"{prompt.hash} {problem.id}").randint(0, 1) / 1.0

    runs = [evolve(World(noisy), Appender(), seed=seed, problems=12, metric_calls=120) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].candidates != runs[2].candidates


def test_gepa_neither_prints_nor_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("DEBUG"):
        evolve(World(plus_signs), Appender(), [SEED, Prompt.of("b")])
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert [record.message for record in caplog.records if record.name.startswith("gepa")] == []
