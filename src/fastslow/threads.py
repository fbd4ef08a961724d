"""Calls side by side, with a time limit each. What hangs is left behind; what raises says so."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")

SLICE_S = 0.25
"""How often the time limits are looked at, in seconds."""


@dataclass(frozen=True)
class Outcome:
    """What one call gave: `value`, or why there is none. `seconds` it took, up to its time limit."""

    value: Any = None
    failure: str | None = None
    timed_out: bool = False
    seconds: float = 0.0


def side_by_side(calls: Sequence[Callable[[], Any]], timeout_s: float, workers: int) -> list[Outcome]:
    """One outcome a call, in the order of the calls, whichever is ready first; at most `workers` at the same time.

    A call's time runs from its own start. One that takes longer is abandoned: its thread goes on, holds no place, and
    does not keep the process alive. Time in which the whole process is stopped, as on a laptop that sleeps, does not count.
    """
    outcomes: list[Outcome | None] = [None] * len(calls)
    finished: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
    left: dict[int, float] = {}
    waiting = list(range(len(calls) - 1, -1, -1))
    while waiting or left:
        while waiting and len(left) < workers:
            index = waiting.pop()
            left[index] = timeout_s
            threading.Thread(
                target=_call, args=(index, calls[index], finished), daemon=True, name=f"call-{index}"
            ).start()
        answered, passed = _next(finished, min(SLICE_S, *left.values()))
        for index, outcome in answered:
            # What answers after it was given up is not heard any more.
            if left.pop(index, None) is not None:
                outcomes[index] = outcome
        for index in list(left):
            left[index] -= passed
            if left[index] <= 0.0:
                del left[index]
                outcomes[index] = Outcome(
                    failure=f"it did not answer within {timeout_s:g} s", timed_out=True, seconds=timeout_s
                )
    return [outcome for outcome in outcomes if outcome is not None]


def together(calls: Sequence[Callable[[], Value]], workers: int) -> list[Value]:
    """What each call gives, in order, at most `workers` at the same time, however long they take.

    Raises what the first of them raised, when all have ended. Ctrl-C ends the wait at once: no thread is waited for.
    """
    outcomes = side_by_side([_kept(call) for call in calls], math.inf, workers)
    for outcome in outcomes:
        if outcome.failure is not None:
            raise RuntimeError(outcome.failure)
        if outcome.value[1] is not None:
            raise outcome.value[1]
    return [outcome.value[0][0] for outcome in outcomes]


def _kept(call: Callable[[], Value]) -> Callable[[], tuple[list[Value], Exception | None]]:
    """A call that gives what it raises, so that the error goes on with its type."""

    def attempt() -> tuple[list[Value], Exception | None]:
        try:
            return [call()], None
        except Exception as error:
            return [], error

    return attempt


def _next(finished: "queue.SimpleQueue[tuple[int, Outcome]]", wait_s: float) -> tuple[list[tuple[int, Outcome]], float]:
    """What has been answered after at most about `wait_s`, and how long that took, as far as the process ran."""
    start, answered = time.monotonic(), []
    try:
        answered.append(finished.get(timeout=wait_s))
        while True:
            answered.append(finished.get_nowait())
    except queue.Empty:
        pass
    return answered, min(time.monotonic() - start, 2 * wait_s)


def _call(index: int, call: Callable[[], Any], finished: "queue.SimpleQueue[tuple[int, Outcome]]") -> None:
    start = time.perf_counter()
    try:
        outcome = Outcome(call(), seconds=time.perf_counter() - start)
    except BaseException as error:  # somebody else's code may end its thread, or raise what is no Exception
        outcome = Outcome(failure=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - start)
    finished.put((index, outcome))
