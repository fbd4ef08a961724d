"""When the search is made and when it is left out."""

import json

from fastslow.fast.pacing import SearchPace
from fastslow.training.state import LoopState
from fastslow.types import Prompt


def cycles(pace: SearchPace, paid: list[bool], longest: int, rewards: list[float] | None = None) -> list[bool]:
    """Which cycles begin with a search, when searches pay as told, in turn."""
    outcomes, searched = iter(paid), []
    for reward in rewards or [0.5] * 12:
        due = pace.begin_cycle()
        searched.append(due)
        if due:
            pace.searched(next(outcomes), longest)
        pace.observe([reward])
    return searched


def test_without_a_limit_every_cycle_searches() -> None:
    assert cycles(SearchPace(), [False] * 12, 0) == [True] * 12


def test_pauses_double_up_to_the_limit() -> None:
    searched = cycles(SearchPace(), [False] * 12, 4)
    assert searched == [True, False, True, False, False, True, False, False, False, False, True, False]


def test_a_search_that_pays_ends_the_pauses() -> None:
    assert cycles(SearchPace(), [False, True, True, True] + [True] * 12, 4)[:6] == [True, False, True, True, True, True]


def test_a_population_that_has_gone_stale_is_searched_at_once() -> None:
    pace = SearchPace(resting=4, pause=4, best_reward=0.8)
    pace.observe([0.5, 0.5])
    assert not pace.begin_cycle()
    pace.observe([0.3, 0.3])
    assert pace.begin_cycle()


def test_a_new_task_forgets_everything() -> None:
    pace = SearchPace(resting=4, pause=4, best_reward=0.1)
    pace.reset()
    assert pace == SearchPace()
    assert pace.begin_cycle()


def test_a_resumed_run_sits_out_what_is_left_of_a_pause_and_takes_the_next_one_as_long() -> None:
    pace = SearchPace(resting=2, pause=4, reward_sum=0.9, reward_count=3, best_reward=0.5)
    stored = json.dumps(LoopState(population=(Prompt.of("go"),), pace=pace).to_json())
    resumed = LoopState.from_json(json.loads(stored)).pace
    assert resumed == pace
    assert cycles(resumed, [False, False], 8, [0.5] * 12) == [False, False, True] + [False] * 8 + [True]
