"""What is kept of the rollouts, for whom and for how long."""

from collections.abc import Iterable

import pytest

from fastslow.rollouts.store import RolloutStore
from fastslow.types import Completion, Rollout, RolloutSource, Turn


def rollout(
    problem: str = "p", *, version: int = 0, source: RolloutSource = "gepa", reward: float | None = 1.0, token: int = 7
) -> Rollout:
    failure = "crashed" if reward is None else None
    completion = Completion((token,), (-0.5,), "stop")
    return Rollout(problem, "h", (Turn((1, 2), completion, "x"),), reward, "", failure, version, source)


def test_a_gepa_rollout_serves_one_rl_slot_and_any_number_of_scores() -> None:
    store = RolloutStore(max_age=2)
    store.add([rollout(token=1), rollout(token=2)])
    assert [r.turns[0].completion.tokens for r in store.take("p", "h", 1, 1)] == [(1,)]
    assert [r.turns[0].completion.tokens for r in store.take("p", "h", 1, 8)] == [(2,)]
    assert store.take("p", "h", 1, 8) == []
    assert len(store.fresh("p", "h", 1)) == 2


def test_rl_rollouts_score_prompts_but_are_never_trained_on_twice() -> None:
    store = RolloutStore(max_age=2)
    store.add([rollout(source="rl", token=3), rollout(token=4), rollout(source="rl", token=5)])
    assert [r.turns[0].completion.tokens for r in store.take("p", "h", 0, 3)] == [(4,)]
    assert len(store.fresh("p", "h", 2)) == 3


@pytest.mark.parametrize(("version", "served"), [(3, 1), (5, 1), (6, 0)])
def test_the_staleness_limit_counts_policy_versions(version: int, served: int) -> None:
    store = RolloutStore(max_age=2)
    store.add([rollout(version=3)])
    assert len(store.fresh("p", "h", version)) == served
    assert len(store.take("p", "h", version, 1)) == served


def test_an_age_of_zero_turns_reuse_off() -> None:
    store = RolloutStore(max_age=0)
    store.add([rollout()])
    assert len(store) == 0
    assert store.fresh("p", "h", 0) == ()


def test_masked_rollouts_are_not_kept() -> None:
    store = RolloutStore(max_age=2)
    store.add([rollout(reward=None)])
    assert len(store) == 0


def test_expiry_forgets_old_rollouts_and_keeps_the_border_between_trained_and_untrained() -> None:
    store = RolloutStore(max_age=1)
    store.add([rollout(version=0, source="rl"), rollout(version=1, source="rl", token=8), rollout(version=1, token=9)])
    store.expire(2)
    assert [r.turns[0].completion.tokens for r in store.fresh("p", "h", 2)] == [(8,), (9,)]
    assert [r.turns[0].completion.tokens for r in store.take("p", "h", 2, 5)] == [(9,)]
    store.expire(3)
    assert len(store) == 0


def test_a_restored_store_goes_on_where_the_saved_one_was() -> None:
    store = RolloutStore(max_age=3)
    store.add([rollout(token=1), rollout(token=2), rollout("q", source="rl", token=3)])
    store.take("p", "h", 0, 1)
    other = RolloutStore(max_age=3)
    other.restore(store.to_json())
    assert other.to_json() == store.to_json()
    assert other.take("p", "h", 0, 5) == store.take("p", "h", 0, 5)


def test_covered_problems_have_a_fresh_rollout_under_every_prompt() -> None:
    store = RolloutStore(max_age=1)
    store.add([rollout("p", version=0), rollout("q", version=2)])
    assert store.covered_problems(["h"], 2) == ["q"]
    assert store.covered_problems(["h", "other"], 2) == []


def tokens(rollouts: Iterable[Rollout]) -> list[int]:
    return [rollout.turns[0].completion.tokens[0] for rollout in rollouts]


def test_an_unknown_pair_has_nothing() -> None:
    store = RolloutStore(max_age=2)
    assert store.take("p", "h", 0, 1) == []
    assert store.fresh("p", "h", 0) == ()
    store.add([rollout(token=4)])
    assert tokens(store.take("p", "h", 0, 1)) == [4]


@pytest.mark.parametrize(("source", "taken"), [("rl", []), ("gepa", [6])])
def test_expiry_keeps_a_pair_of_which_one_side_alone_is_left(source: RolloutSource, taken: list[int]) -> None:
    store = RolloutStore(max_age=1)
    store.add([rollout(version=0, token=5), rollout(version=2, source=source, token=6)])
    store.expire(2)
    assert tokens(store.fresh("p", "h", 2)) == [6]
    assert tokens(store.take("p", "h", 2, 5)) == taken


def test_a_pair_that_was_forgotten_starts_anew() -> None:
    store = RolloutStore(max_age=1)
    store.add([rollout(version=0, source="rl"), rollout(version=0)])
    store.expire(2)
    assert store.to_json() == []
    store.add([rollout(version=2, token=3)])
    assert tokens(store.take("p", "h", 2, 1)) == [3]


def test_a_copy_goes_on_where_the_store_is_and_neither_moves_the_other() -> None:
    store = RolloutStore(max_age=1)
    store.add([rollout(source="rl", token=1), rollout(token=2), rollout(token=3)])
    store.take("p", "h", 0, 1)
    copy = store.copy()
    assert copy.to_json() == store.to_json()
    assert copy.max_age == 1
    assert tokens(copy.take("p", "h", 0, 5)) == [3]
    copy.add([rollout(token=4)])
    copy.expire(0)
    assert tokens(store.fresh("p", "h", 0)) == [1, 2, 3]
    assert tokens(store.take("p", "h", 0, 5)) == [3]
    store.clear()
    assert len(copy) == 4
