"""The order of the problems: every one once an epoch, and from seed and step alone."""

from collections.abc import Iterable

import pytest

from fastslow.seeding import derive_seed
from fastslow.training import curriculum as module
from fastslow.training.curriculum import Curriculum, union
from fastslow.types import Problem

PROBLEMS = [Problem(str(index), ()) for index in range(10)]


def test_an_epoch_holds_every_problem_once() -> None:
    curriculum = Curriculum(PROBLEMS, 5, seed=0)
    first = {problem.id for problem in union([curriculum.minibatch(0), curriculum.minibatch(1)])}
    assert first == {problem.id for problem in PROBLEMS}


def ids(problems: Iterable[Problem]) -> list[str]:
    return [problem.id for problem in problems]


def test_every_epoch_is_a_shuffle_of_its_own() -> None:
    curriculum = Curriculum(PROBLEMS, 10, seed=0)
    orders = {tuple(ids(curriculum.minibatch(epoch))) for epoch in range(8)}
    assert len(orders) == 8
    assert tuple(ids(PROBLEMS)) not in orders


def test_what_does_not_fill_a_minibatch_is_left_to_the_next_shuffle() -> None:
    whole, fours = Curriculum(PROBLEMS, 10, seed=0), Curriculum(PROBLEMS, 4, seed=0)
    seen: set[str] = set()
    for epoch in range(20):
        order = ids(whole.minibatch(epoch))
        assert [ids(fours.minibatch(2 * epoch + half)) for half in (0, 1)] == [order[:4], order[4:8]]
        seen.update(order[:8])
    assert seen == set(ids(PROBLEMS))  # nobody is left out for ever


def test_minibatches_depend_on_seed_and_step_alone() -> None:
    forwards = Curriculum(PROBLEMS, 3, seed=1)
    backwards = Curriculum(PROBLEMS, 3, seed=1)
    expected = [forwards.minibatch(step) for step in range(9)]
    assert [backwards.minibatch(step) for step in reversed(range(9))] == expected[::-1]
    assert [Curriculum(PROBLEMS, 3, seed=2).minibatch(step) for step in range(9)] != expected


def test_lookahead_is_the_minibatches_to_come() -> None:
    curriculum = Curriculum(PROBLEMS, 2, seed=0)
    assert curriculum.lookahead(3, 2) == [curriculum.minibatch(3), curriculum.minibatch(4)]


def test_a_minibatch_is_never_larger_than_the_training_split() -> None:
    assert len(Curriculum(PROBLEMS, 99, seed=0).minibatch(7)) == 10


@pytest.mark.parametrize(("step", "expected"), [(0, "97215"), (1, "34608"), (2, "91053"), (3, "46287")])
def test_a_run_that_starts_at_a_step_draws_what_runs_have_always_drawn_there(step: int, expected: str) -> None:
    assert "".join(ids(Curriculum(PROBLEMS, 5, seed=0).minibatch(step))) == expected


def test_an_epoch_is_shuffled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str | int, ...]] = []

    def counted(*parts: str | int) -> int:
        drawn.append(parts)
        return derive_seed(*parts)

    monkeypatch.setattr(module, "derive_seed", counted)
    Curriculum(PROBLEMS, 2, seed=3).lookahead(0, 7)
    assert drawn == [(3, "curriculum", 0), (3, "curriculum", 1)]
