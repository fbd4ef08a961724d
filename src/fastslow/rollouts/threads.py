"""Calls of environments side by side, with a time limit each. What hangs is left behind; what raises says so."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


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
    does not keep the process alive.
    """
    outcomes: list[Outcome | None] = [None] * len(calls)
    finished: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
    running: dict[int, float] = {}
    waiting = list(range(len(calls) - 1, -1, -1))
    while waiting or running:
        while waiting and len(running) < workers:
            index = waiting.pop()
            running[index] = time.monotonic() + timeout_s
            threading.Thread(
                target=_call, args=(index, calls[index], finished), daemon=True, name=f"environment-{index}"
            ).start()
        try:
            index, outcome = finished.get(timeout=max(0.0, min(running.values()) - time.monotonic()))
        except queue.Empty:
            now = time.monotonic()
            for late in [index for index, deadline in running.items() if deadline <= now]:
                del running[late]
                outcomes[late] = Outcome(
                    failure=f"it did not answer within {timeout_s:g} s", timed_out=True, seconds=timeout_s
                )
        else:
            # What answers after it was given up is not heard any more.
            if running.pop(index, None) is not None:
                outcomes[index] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _call(index: int, call: Callable[[], Any], finished: "queue.SimpleQueue[tuple[int, Outcome]]") -> None:
    start = time.perf_counter()
    try:
        outcome = Outcome(call(), seconds=time.perf_counter() - start)
    except BaseException as error:  # an environment may end its thread, or raise what is no Exception
        outcome = Outcome(failure=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - start)
    finished.put((index, outcome))
