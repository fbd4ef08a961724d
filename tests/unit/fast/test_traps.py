"""What traps a prompt search: exact rewards without partial credit, a floor of lucky hits, a population gone stale."""

import random
from collections.abc import Sequence

import pytest
from worlds import Appender, World, children, evolve, make_problems

from fastslow.fast.gepa_optimiser import GepaOptimiser, has_paid
from fastslow.fast.lesson import LessonProposer
from fastslow.fast.optimiser import Evaluation, Evolution
from fastslow.fast.pareto import paired_gain
from fastslow.types import Completion, Problem, Prompt, Rollout

RULES = ("Sort them.", "Use tags.", "Use commas.", "Say done.")
SEED = Prompt.of("seed")


class ExactWorld:
    """Reward 1 only where every rule is stated; feedback names one missing rule. `lucky` problems are solved anyway."""

    def __init__(self, hidden: Sequence[str], lucky: Sequence[str] = (), works: float = 1.0) -> None:
        self.hidden, self.lucky, self.works = tuple(hidden), set(lucky), works
        self.calls = 0

    def evaluate(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        self.calls += len(pairs)
        return [self._one(prompt, problem) for prompt, problem in pairs]

    def _one(self, prompt: Prompt, problem: Problem) -> Evaluation:
        rng = random.Random(f"{prompt.hash}{problem.id}")
        lines = prompt.system.splitlines()[1:]
        missing = [rule for rule in self.hidden if rule not in lines]
        wrong = [line for line in lines if line not in self.hidden]
        right = problem.id in self.lucky or (not missing and not wrong and rng.random() < self.works)
        said = rng.choice(missing) if missing else "Do nothing else." if wrong else "The answer was another one."
        reward, feedback = (1.0, "Correct.") if right else (0.0, said)
        rollout = Rollout(
            problem.id, prompt.hash, (1,), Completion((1,), (0.0,), "stop"), "x", reward, feedback, None, 0, "gepa"
        )
        return Evaluation(prompt, problem, (rollout,))


def search(
    world: ExactWorld,
    population: Sequence[Prompt] = (SEED,),
    *,
    seed: int = 0,
    previous: dict[str, float] | None = None,
    metric_calls: int = 400,
) -> Evolution:
    optimiser = GepaOptimiser(
        LessonProposer(), SEED, metric_calls=metric_calls, reflection_minibatch=8, proposals_per_iteration=2
    )
    return optimiser.evolve(
        population, make_problems(32), world.evaluate, size=4, seed=seed, previous_scores=previous or {}
    )


def solves(evolution: Evolution) -> bool:
    return set(evolution.population[0].system.splitlines()[1:]) == set(RULES)


@pytest.mark.parametrize("lucky", [(), ("p3",), ("p3", "p17")])
def test_all_rules_are_found_although_no_single_one_earns_anything(lucky: tuple[str, ...]) -> None:
    found = [solves(search(ExactWorld(RULES, lucky), seed=seed)) for seed in range(10)]
    assert sum(found) >= 9


def test_lucky_hits_would_trap_a_search_that_takes_them_for_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.fast.gepa_hooks.is_luck", lambda rewards: not any(rewards))
    found = [solves(search(ExactWorld(RULES, ("p3", "p17")), seed=seed)) for seed in range(10)]
    assert sum(found) <= 3


def test_after_a_task_switch_a_stale_population_gives_way_to_the_new_rules() -> None:
    old = Prompt.of("\n".join(["seed", "Turn it around.", "Add one.", "Use brackets."]))
    for lucky in ((), ("p5",)):
        found = [
            solves(search(ExactWorld(RULES, lucky), [old], seed=seed, previous={old.hash: 0.9})) for seed in range(10)
        ]
        assert sum(found) >= 9, lucky


def test_a_tie_with_more_complaints_is_not_taken() -> None:
    # The seed's rollouts all complain about one thing; each edit adds a second complaint.
    def feedback(prompt: Prompt, problem: Problem) -> str:
        more = prompt.system != "seed" and int(problem.id[1:]) % 2
        return f"Another thing {problem.id}." if more else "One thing."

    world = World(lambda prompt, problem: 0.0)
    plain = world._evaluation

    def evaluation(prompt: Prompt, problem: Problem) -> Evaluation:
        world.feedback = feedback(prompt, problem)
        return plain(prompt, problem)

    world._evaluation = evaluation  # type: ignore[method-assign]
    evolution = evolve(world, Appender(), problems=8, metric_calls=60, minibatch=6)
    assert children(evolution)
    assert not any(child.accepted for child in children(evolution))
    assert "a tie, but with more complaints" in children(evolution)[0].reason


def test_a_child_that_loses_on_a_quarter_of_the_anchors_is_not_scored_on_the_rest() -> None:
    # The child is better on the first problems, which make its minibatch now and then, and hopeless elsewhere.
    def reward(prompt: Prompt, problem: Problem) -> float:
        number = int(problem.id[1:])
        return (0.9 if number % 8 == 7 else 0.0) if prompt.system != "seed" else (0.2 if number % 8 == 7 else 0.8)

    scored: list[int] = []
    for seed in range(12):
        evolution = evolve(World(reward), Appender(), problems=40, metric_calls=120, minibatch=1, seed=seed)
        scored += [len(child.scores) for child in children(evolution) if child.accepted]
    assert scored
    assert set(scored) <= {10, 40}
    assert 10 in scored


def test_a_child_that_solves_alone_what_nobody_solves_is_scored_on_all() -> None:
    def reward(prompt: Prompt, problem: Problem) -> float:
        even = int(problem.id[1:]) % 4 == 0
        return float(even) if prompt.system != "seed" else float(not even)

    firsts = []
    for seed in range(12):
        evolution = evolve(World(reward), Appender(), problems=40, metric_calls=120, minibatch=1, seed=seed, size=2)
        firsts += [child for child in children(evolution) if child.accepted][:1]
    assert firsts
    assert {len(child.scores) for child in firsts} == {40}


def test_what_pays_is_more_than_noise() -> None:
    old, new = Prompt.of("old"), Prompt.of("new")
    ids = [f"p{index}" for index in range(16)]
    half = {name: float(index % 2) for index, name in enumerate(ids)}
    all_right = dict.fromkeys(ids, 1.0)
    one_more = {**half, "p0": 1.0, "p1": 0.0, "p2": 1.0}
    assert has_paid([(old, half), (new, all_right)], [old])
    assert not has_paid([(old, half), (new, one_more)], [old])
    assert not has_paid([(old, half)], [old])
    assert not has_paid([(old, all_right), (new, half)], [old])
    nothing = dict.fromkeys(ids, 0.0)
    assert has_paid([(old, nothing), (new, nothing)], [old])


def test_paired_gain_by_hand() -> None:
    assert paired_gain([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]) == (0.5, 0.25)
    assert paired_gain([1.0], [1.0]) == (0.0, 0.0)
