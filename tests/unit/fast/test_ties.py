"""Which children that tie with their parent are taken while nothing scores: `fast.ties`."""

import pytest
from worlds import SEED, Appender, World, children, make_problems, rollout_of

from fastslow.fast.gepa.hooks import Ties
from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Evaluation, Evolution
from fastslow.fast.proposers.lesson import LessonProposer
from fastslow.types import Problem, Prompt

FORM = "Use the form."


class HardWorld(World):
    """No answer is right. Feedback asks for the form, or, under a prompt that names it, quotes each answer."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, problem: 0.0)

    def _evaluation(self, prompt: Prompt, problem: Problem) -> Evaluation:
        told = FORM in prompt.system
        said = f"The answer was {problem.id}, which is wrong." if told else FORM
        return Evaluation(prompt, problem, (rollout_of(prompt, problem, 0.0, said),))


class Nagging(World):
    """No answer is right. Edits add a complaint on the first `more` of eight problems, end one on the next `fewer`."""

    def __init__(self, more: int, fewer: int) -> None:
        super().__init__(lambda prompt, problem: 0.0)
        self.more, self.fewer = more, fewer

    def _evaluation(self, prompt: Prompt, problem: Problem) -> Evaluation:
        place, said = int(problem.id[1:]), ["One.", "Two."]
        if prompt != SEED and place < self.more:
            said.append("Three.")
        elif prompt != SEED and place < self.more + self.fewer:
            said.pop()
        return Evaluation(prompt, problem, (rollout_of(prompt, problem, 0.0, "\n".join(said)),))


def evolve(world: World, proposer: LessonProposer | Appender, ties: Ties) -> Evolution:
    optimiser = GepaOptimiser(proposer, SEED, metric_calls=40, reflection_minibatch=8, ties=ties)
    return optimiser.evolve([SEED], make_problems(8), world.evaluate, size=2, seed=0, previous_scores={})


def test_a_child_that_gets_the_form_right_is_lost_where_different_complaints_count() -> None:
    """Eight wrong answers are eight complaints, where the missing form was one."""
    evolution = evolve(HardWorld(), LessonProposer(), "different")
    assert children(evolution) and not any(child.accepted for child in children(evolution))
    assert evolution.population == (SEED, SEED)


def test_a_child_that_gets_the_form_right_is_taken_where_ties_go_by_problem() -> None:
    evolution = evolve(HardWorld(), LessonProposer(), "problems")
    taken = [child for child in children(evolution) if child.accepted]
    assert FORM in taken[0].prompt.system
    assert "a tie while nothing scores" in taken[0].reason
    assert FORM in evolution.population[0].system


@pytest.mark.parametrize(
    ("more", "fewer", "taken"), [(3, 2, False), (1, 0, False), (2, 2, True), (0, 0, True), (2, 5, True)]
)
def test_by_problem_a_child_may_not_have_more_complaints_on_more_problems_than_fewer(
    more: int, fewer: int, taken: bool
) -> None:
    first = children(evolve(Nagging(more, fewer), Appender(), "problems"))[0]
    assert first.accepted is taken
    assert first.reason.startswith("a tie while" if taken else "a tie, but with more complaints")
