"""What traps a prompt search: exact rewards without partial credit, a floor of lucky hits, a population gone stale."""

import random
from collections.abc import Sequence

import pytest
from worlds import Appender, World, children, evolve, make_problems

from fastslow.fast.gepa.optimiser import GepaOptimiser, has_paid
from fastslow.fast.optimiser import Evaluation, Evolution
from fastslow.fast.pareto import mean_score, paired_gain
from fastslow.fast.proposers.lesson import LessonProposer
from fastslow.types import Completion, Problem, Prompt, Rollout, Turn

RULES = ("Sort them.", "Use tags.", "Use commas.", "Say done.")
OTHERS = ("Turn it around.", "Add one.", "Use brackets.", "Say hello.")
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
            problem.id,
            prompt.hash,
            (Turn((1,), Completion((1,), (0.0,), "stop"), "x"),),
            reward,
            feedback,
            None,
            0,
            "gepa",
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


class MixedWorld(ExactWorld):
    """Two kinds of problems, each with rules of its own; `told` says whether the search is told which is which."""

    def __init__(self, told: bool) -> None:
        super().__init__(())
        self.told = told

    def problems(self, count: int) -> list[Problem]:
        return [
            Problem(
                f"p{index}",
                ({"role": "user", "content": "?"},),
                kind=("north", "south")[index % 2] if self.told else "",
            )
            for index in range(count)
        ]

    def _one(self, prompt: Prompt, problem: Problem) -> Evaluation:
        self.hidden = (RULES, OTHERS)[int(problem.id[1:]) % 2]
        return super()._one(prompt, problem)


def search_in_cycles(world: MixedWorld, seed: int, cycles: int = 4) -> Evolution:
    """Each cycle goes on from the population before."""
    optimiser = GepaOptimiser(
        LessonProposer(), SEED, metric_calls=400, reflection_minibatch=8, proposals_per_iteration=2
    )
    population, previous = [SEED], {}
    for cycle in range(cycles):
        evolution = optimiser.evolve(
            population, world.problems(32), world.evaluate, size=4, seed=100 * seed + cycle, previous_scores=previous
        )
        population = list(evolution.population)
        previous = {c.prompt.hash: mean_score(c.scores) for c in evolution.candidates if c.scores}
    return evolution


def serves_both(evolution: Evolution) -> bool:
    said = [set(prompt.system.splitlines()[1:]) for prompt in evolution.population]
    return set(RULES) in said and set(OTHERS) in said


def solves(evolution: Evolution) -> bool:
    return set(evolution.population[0].system.splitlines()[1:]) == set(RULES)


@pytest.mark.parametrize("lucky", [(), ("p3",), ("p3", "p17")])
def test_all_rules_are_found_although_no_single_one_earns_anything(lucky: tuple[str, ...]) -> None:
    found = [solves(search(ExactWorld(RULES, lucky), seed=seed)) for seed in range(10)]
    assert sum(found) >= 9


def test_lucky_hits_would_trap_a_search_that_takes_them_for_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("hooks", "kinds"):
        monkeypatch.setattr(f"fastslow.fast.gepa.{module}.is_luck", lambda rewards: not any(rewards))
    found = [solves(search(ExactWorld(RULES, ("p3", "p17")), seed=seed)) for seed in range(10)]
    assert sum(found) <= 3


@pytest.mark.parametrize("lucky", [(), ("p5",)])
def test_after_a_task_switch_a_stale_population_gives_way_to_the_new_rules(lucky: tuple[str, ...]) -> None:
    old = Prompt.of("\n".join(["seed", "Turn it around.", "Add one.", "Use brackets."]))
    found = [solves(search(ExactWorld(RULES, lucky), [old], seed=seed, previous={old.hash: 0.9})) for seed in range(10)]
    assert sum(found) >= 9


def test_with_two_kinds_of_problems_each_gets_a_prompt_of_its_own() -> None:
    ends = [search_in_cycles(MixedWorld(told=True), seed) for seed in range(10)]
    assert sum(map(serves_both, ends)) >= 9
    for end in filter(serves_both, ends):
        assert {kind: set(prompt.system.splitlines()[1:]) for kind, prompt in end.by_kind.items()} == {
            "north": set(RULES), "south": set(OTHERS)
        }  # fmt: skip


def test_a_search_that_mixes_the_kinds_does_not_find_both() -> None:
    ends = [search_in_cycles(MixedWorld(told=False), seed) for seed in range(10)]
    assert sum(map(serves_both, ends)) <= 3
    assert not any(end.by_kind for end in ends)


def test_a_kind_that_nothing_serves_keeps_a_slot_for_its_newest_edit() -> None:
    north = Prompt.of("\n".join(["seed", *RULES]))
    optimiser = GepaOptimiser(LessonProposer(), SEED, metric_calls=110, reflection_minibatch=8)
    world = MixedWorld(told=True)
    evolution = optimiser.evolve([north], world.problems(32), world.evaluate, size=4, seed=0, previous_scores={})
    said = [set(prompt.system.splitlines()[1:]) for prompt in evolution.population]
    assert evolution.population[0] == north
    assert any(0 < len(lines) < 4 and lines < set(OTHERS) for lines in said)
    assert evolution.paid


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
