"""The contract of an observer, a tracker among them, for its author to run.

from fastslow.testing.observers import check_observer

def test_my_tracker(tmp_path):
    check_observer(lambda: MyTracker(tmp_path))
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.testing.contract import require, run_checks
from fastslow.training.observer import Observer
from fastslow.training.session import TrainResult
from fastslow.types import Prompt

Make = Callable[[], Observer]
Event = tuple[str, dict[str, Any]]

PROMPT = Prompt.of("Say it briefly.\n\x1b[2J\ud800 and so on")
"""A prompt as models write them: it has a control sequence, and a lone surrogate that cannot be encoded."""


def check_observer(make: Make) -> None:
    """Run every check. `make` gives a new observer each time that it is called. Raises AssertionError."""
    run_checks("the observer", CHECKS, make)


def start(step: int = 0, max_rollouts: int | None = None) -> Event:
    """The first event of a run; `step` is where a resumed one goes on."""
    payload = {
        "steps": 6,
        "max_rollouts": max_rollouts,
        "output": "runs/a-run",
        "step": step,
        "rollouts": 8 * step,
        "engine": "local: 1 thread",
        "search_every": 2,
        "search_until": 6,
        "evaluate_every": 2,
    }
    return "start", payload


def line(step: int, **more: float | None) -> Event:
    """A line of metrics; what a step did not measure is None."""
    record: dict[str, Any] = {
        "step": step,
        "cycle": 1 + step // 2,
        "reward/mean": 0.25,
        "slow/loss": None if step == 0 else -0.5,
        "kl/base": None,
        "rollouts/sampled": 8,
        "rollouts/sampled_total": 8 * step,
        "rollouts/reused": 0,
        "time/sample_s": 0.5,
        "time/evolve_s": 0.0,
        "time/step_s": 1.0,
        **more,
    }
    return "step", record


def cycle(error: str | None = None) -> Event:
    """A search that is done; `error` says why it kept the population."""
    record = {
        "id": 0,
        "hash": PROMPT.hash,
        "parent": None,
        "cycle": 1,
        "components": PROMPT.as_dict(),
        "accepted": True,
        "reason": "better",
        "mean": 0.5,
        "scores": {"p1": 0.5},
        "feedback": ["Say less.\ud800"],
    }
    payload = {
        "cycle": 1,
        "population": [PROMPT, PROMPT],
        "metric_calls": 24,
        "error": error,
        "best_score": None,
        "candidates": [] if error else [record],
        "means": {} if error else {PROMPT.hash: 0.5},
    }
    return "cycle", payload


def samples(step: int) -> Event:
    """Kept rollouts of a step: one that was scored, and one that could not be."""
    scored: dict[str, Any] = {
        "problem": "p1",
        "prompt": PROMPT.hash,
        "question": [{"role": "user", "content": "How many?\x1b[2J\ud800"}],
        "reference": "4",
        "components": PROMPT.as_dict(),
        "text": "It is 4.\ud800",
        "reward": 1.0,
        "feedback": "Correct.",
        "failure": None,
        "finish_reason": "stop",
        "source": "rl",
        "policy_version": 0,
    }
    return "samples", {"step": step, "samples": [scored, {**scored, "reward": None, "failure": "the judge is down"}]}


def whole_run() -> list[Event]:
    """The events of a run that goes well."""
    result = TrainResult(Path("runs/a-run"), 2, False, PROMPT, (PROMPT, PROMPT), line(2)[1])
    return [
        start(),
        ("phase", {"name": "evaluating"}),
        line(0, **{"val/mean@4": 0.125}),
        ("phase", {"name": "evolving"}),
        (
            "progress",
            {"name": "evolving", "done": 0, "total": 24, "unit": "metric calls", "candidates": 0, "best": None},
        ),
        (
            "progress",
            {"name": "evolving", "done": 8, "total": 24, "unit": "metric calls", "candidates": 2, "best": 0.25},
        ),
        cycle(),
        samples(1),
        line(1),
        ("progress", {"name": "sampling", "done": 4, "total": 8, "unit": "completions"}),
        ("warning", {"message": "step 2: 1 of 8 rollouts masked: \x1b[2J\ud800", "loud": False}),
        cycle("reflection failed, the previous population is kept"),
        line(2, **{"val/mean@4": 0.5, "a/metric_of_a_later_version": 1.0}),
        ("phase", {"name": "saving"}),
        ("checkpoint", {"path": "runs/a-run/checkpoints/step_2"}),
        ("end", {"result": result}),
    ]


def tell(make: Make, events: Sequence[Event]) -> None:
    """A new observer hears these events."""
    observer = make()
    for kind, payload in events:
        observer.on_event(kind, payload)


def takes_events_by_position(make: Make) -> None:
    """A run calls `on_event` without keywords, so the names of its parameters are the author's to choose."""
    require(
        callable(getattr(make(), "on_event", None)),
        "an observer has a method `on_event(kind, payload)`, called by position",
    )


def hears_a_whole_run(make: Make) -> None:
    """Start, steps with and without an evaluation, a search, the end: none of them raises."""
    tell(make, whole_run())


def hears_a_resumed_run(make: Make) -> None:
    """The first step that it hears of is not step 0, and what came before went to another observer."""
    tell(make, [start(4), line(5), ("end", whole_run()[-1][1])])


def hears_a_run_that_counts_rollouts(make: Make) -> None:
    """Such a run has no number of steps, so a share of the steps done cannot be computed."""
    tell(make, [start(max_rollouts=64), line(0), line(1), whole_run()[-1]])


def hears_a_run_that_an_error_ends(make: Make) -> None:
    """`abort` comes in place of `end`; it has the error, and no totals."""
    tell(make, [start(), line(0), ("abort", {"error": "ServerError: the server is gone"})])


def hears_a_run_that_an_error_ends_at_its_start(make: Make) -> None:
    """No line of metrics comes between the start and the error."""
    tell(make, [start(), ("abort", {"error": "OSError: another observer broke"})])


def hears_an_end_without_a_start(make: Make) -> None:
    """Where another observer breaks at the start, this one hears of the end alone."""
    tell(make, [("abort", {"error": "OSError: another observer broke"})])


def ignores_events_that_it_does_not_know(make: Make) -> None:
    """A later version may send more kinds of events, and its observers go on to work."""
    tell(make, [start(), ("an-event-of-a-later-version", {"anything": [1]}), line(0), whole_run()[-1]])


def leaves_payloads_alone(make: Make) -> None:
    """Several observers get the same payload."""
    observer = make()
    for kind, payload in whole_run():
        before: Mapping[str, Any] = copy.deepcopy(payload)
        observer.on_event(kind, payload)
        require(payload == before, f"on_event({kind!r}, ...) changed its payload: others get the same one, so copy it")


def can_be_used_twice_over(make: Make) -> None:
    """An experiment has many runs in one process."""
    for _ in range(2):
        tell(make, whole_run())


CHECKS = (
    takes_events_by_position,
    hears_a_whole_run,
    hears_a_resumed_run,
    hears_a_run_that_counts_rollouts,
    hears_a_run_that_an_error_ends,
    hears_a_run_that_an_error_ends_at_its_start,
    hears_an_end_without_a_start,
    ignores_events_that_it_does_not_know,
    leaves_payloads_alone,
    can_be_used_twice_over,
)
