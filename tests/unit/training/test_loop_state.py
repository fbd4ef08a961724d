from fastslow.training.state import LoopState
from fastslow.types import Prompt

A, B, C = Prompt.of("a"), Prompt.of("b"), Prompt.of("c")


def test_a_search_that_saw_one_kind_leaves_the_choice_for_the_others() -> None:
    state = LoopState(population=(A, B))
    state.choose_by_kind({"north": A, "south": B})
    state.choose_by_kind({})
    assert state.by_kind == {"north": A.hash, "south": B.hash}
    state.choose_by_kind({"north": B})
    assert state.by_kind == {"north": B.hash, "south": B.hash}


def test_a_choice_that_is_no_member_any_more_is_forgotten() -> None:
    state = LoopState(population=(A, B))
    state.choose_by_kind({"north": A, "south": B})
    state.population = (A, C)
    state.choose_by_kind({})
    assert state.by_kind == {"north": A.hash}
    assert LoopState.from_json(state.to_json()) == state
