"""Old prompts have several reused rollouts a problem, new ones have one: nobody may win by that."""

import random
from collections.abc import Callable

import pytest
from worlds import Appender, World, make_problems, rollout_of

from fastslow.fast.gepa.adapter import CycleAdapter
from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Evaluation, Evolution
from fastslow.fast.pareto import mean_score, select_population
from fastslow.types import Problem, Prompt, Rollout

OLD = Prompt.of("old")
OLD_VALUE, NEW_VALUE = 0.8, 0.6


class ReuseWorld(World):
    """The old prompt is served with `reused` rollouts a problem; others are sampled once. Rewards are coin flips."""

    def __init__(self, reused: int, seed: int, new_value: float = NEW_VALUE) -> None:
        super().__init__(lambda prompt, problem: 0.0)
        self.reused, self.new_value, self.rng = reused, new_value, random.Random(seed)

    def _evaluation(self, prompt: Prompt, problem: Problem) -> Evaluation:
        value, count = (OLD_VALUE, self.reused) if prompt == OLD else (self.new_value, 1)
        rewards = [float(self.rng.random() < value) for _ in range(count)]
        return Evaluation(prompt, problem, tuple(rollout_of(prompt, problem, reward) for reward in rewards))


def evolve(
    world: World, *, problems: int, metric_calls: int, size: int = 2, minibatch: int = 8, seed: int = 0
) -> Evolution:
    optimiser = GepaOptimiser(Appender(), OLD, metric_calls=metric_calls, reflection_minibatch=minibatch)
    return optimiser.evolve(
        [OLD], make_problems(problems), world.evaluate, size=size, seed=seed, previous_scores={}
    )  # fmt: skip


def thrown_out(reused: int, trials: int = 25) -> int:
    """How many of some cycles lose an old prompt of value 0.8 to new ones of value 0.6."""
    worlds = [ReuseWorld(reused, seed) for seed in range(trials)]
    populations = [evolve(w, problems=32, metric_calls=192, seed=i).population for i, w in enumerate(worlds)]
    return sum(OLD not in population for population in populations)


def selected_without_it(reused: int, trials: int = 300) -> int:
    """The same for one selection among eight new prompts, without a search."""
    rng, lost = random.Random(reused), 0
    for _ in range(trials):
        old = [[float(rng.random() < OLD_VALUE) for _ in range(reused)] for _ in range(32)]
        new = [{f"p{i}": float(rng.random() < NEW_VALUE) for i in range(32)} for _ in range(8)]
        single = {f"p{i}": rewards[0] for i, rewards in enumerate(old)}
        mean = sum(map(sum, old)) / (32 * reused)
        lost += 0 not in select_population([single, *new], 2, means=[mean, *map(mean_score, new)])
    return lost


@pytest.mark.parametrize("lost", [thrown_out, selected_without_it])
def test_reuse_does_not_cost_a_good_prompt_its_place(lost: Callable[[int], int]) -> None:
    once = lost(1)
    assert lost(4) <= once
    assert lost(8) <= once


def test_equal_rollouts_count_as_one() -> None:
    class Copies(World):
        def __init__(self, count: int) -> None:
            super().__init__(lambda prompt, problem: float((len(prompt.system) + int(problem.id[1:])) % 3 == 0))
            self.count = count

        def _evaluation(self, prompt: Prompt, problem: Problem) -> Evaluation:
            one = super()._evaluation(prompt, problem).rollouts
            return Evaluation(prompt, problem, one * (self.count if prompt == OLD else 1))

    assert evolve(Copies(4), problems=24, metric_calls=120) == evolve(Copies(1), problems=24, metric_calls=120)


def test_comparisons_take_one_rollout_and_means_take_all() -> None:
    problem, rewards = make_problems(1)[0], (1.0, 0.0, 0.0, 1.0, 0.0)
    feedback = ("", "Sort.", "Count.", "", "Stop.")

    def evaluate(pairs: object) -> list[Evaluation]:
        made: list[Rollout] = [
            rollout_of(OLD, problem, reward, text) for reward, text in zip(rewards, feedback, strict=True)
        ]
        return [Evaluation(OLD, problem, tuple(made))]

    drawn = set()
    for seed in range(40):
        adapters = [CycleAdapter(Appender(), evaluate, [problem], 1, seed) for _ in range(2)]
        for adapter in adapters:
            adapter.score_seeds([OLD])
        one, again = ((a.single_scores(OLD, [problem]), a.complaints(OLD, [problem])) for a in adapters)
        assert one == again
        assert one[1] == (one[0][problem.id] < 1.0)
        adapter = adapters[0]
        assert adapter.scores(OLD, [problem]) == adapter.candidates()[0].scores == {problem.id: 0.4}
        assert adapter.scores_by_position(OLD) == {0: one[0][problem.id]}
        drawn.add(one[0][problem.id])
    assert drawn == {0.0, 1.0}


def test_the_first_prompt_was_scored_on_every_anchor() -> None:
    """A child that was dropped after a quarter of the anchors has a high mean by luck there."""
    dropped_but_better = 0
    for seed in range(40):
        evolution = evolve(ReuseWorld(1, seed, new_value=0.75), problems=48, metric_calls=240, seed=seed)
        scores = {candidate.prompt: candidate.scores for candidate in evolution.candidates}
        assert len(scores[evolution.population[0]]) == 48
        partial = [s for prompt, s in scores.items() if prompt in evolution.population and 0 < len(s) < 48]
        dropped_but_better += any(mean_score(s) > mean_score(scores[evolution.population[0]]) for s in partial)
    assert dropped_but_better > 0
