"""Calls of somebody's code, with a time limit each: side by side, or one after the other. What hangs is left behind."""

import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, TypeVar

from fastslow.errors import ElsewhereError, Interruption, LateError, in_words

T = TypeVar("T")
Value = TypeVar("Value")
SLICE_S = 0.25
"""How often the time limits are looked at, in seconds."""
AGAIN_S = 1.0
"""After so many seconds a call that caught its interruption is interrupted again."""
# Nobody else's: without a handler it does nothing, and no library sets an alarm by it.
_SIGNAL = getattr(signal, "SIGURG", None)


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
    does not keep the process alive. Time in which the whole process is stopped, as on a laptop that sleeps,
    does not count.
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
        told = str(error) if isinstance(error, ElsewhereError) else f"{type(error).__name__}: {in_words(error)}"
        outcome = Outcome(failure=told, seconds=time.perf_counter() - start)
    finished.put((index, outcome))


class TimeLimit:
    """Calls one after the other, each for at most `timeout_s` (None: as long as it takes). Use it as a context manager.

    In the main thread a call stays in it, since libraries set alarms there, and is interrupted wherever Python runs or
    waits; C code that never returns cannot be. In another thread a call has a thread of its own, which is left behind.
    """

    def __init__(self, timeout_s: float | None, field: str) -> None:
        self.timeout_s, self.field = timeout_s, field
        # The number of the call, whether it runs, and the call that is to be interrupted:
        # each has one thread that writes it.
        self._number, self._running, self._due = 0, False, 0
        self._over = threading.Event()
        self._watch: threading.Thread | None = None
        self._previous: Any = None

    def __enter__(self) -> "TimeLimit":
        in_main = threading.current_thread() is threading.main_thread()
        if self.timeout_s is not None and in_main and _SIGNAL is not None:
            self._previous = signal.signal(_SIGNAL, self._interrupt)
            self._watch = threading.Thread(target=self._look, daemon=True, name="time-limit")
            self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watch is not None and _SIGNAL is not None:
            self._over.set()
            self._watch.join()
            signal.signal(_SIGNAL, signal.SIG_DFL if self._previous is None else self._previous)

    def call(self, function: Callable[[], T]) -> T:
        """What the function gives. Raises: LateError after the time limit, and whatever the function raises."""
        if self.timeout_s is None:
            return function()
        if self._watch is None:
            return self._elsewhere(function, self.timeout_s)
        self._number += 1
        self._running = True
        try:
            return function()
        except Interruption as interruption:
            raise self._late().with_traceback(interruption.__traceback__) from None
        finally:
            self._running = False

    def _elsewhere(self, function: Callable[[], T], timeout_s: float) -> T:
        def caught() -> tuple[Any, BaseException | None]:
            try:
                return function(), None
            except BaseException as error:
                return None, error

        (outcome,) = side_by_side([caught], timeout_s, 1)
        if outcome.timed_out:
            raise self._late()
        value, error = outcome.value
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def _late(self) -> LateError:
        return LateError(f"it did not answer within {self.field} = {self.timeout_s:g} s")

    def _look(self) -> None:
        assert self.timeout_s is not None and _SIGNAL is not None
        slice_s = min(SLICE_S, self.timeout_s / 2)
        number, left_s, last = 0, self.timeout_s, time.monotonic()
        while not self._over.wait(slice_s):
            now = time.monotonic()
            # Time in which the whole process is stopped does not count.
            passed, last = min(now - last, 2 * slice_s), now
            if self._number != number:
                number, left_s = self._number, self.timeout_s
            elif self._running:
                left_s -= passed
            if self._running and left_s <= 0.0:
                left_s, self._due = AGAIN_S, number
                signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # The call that the signal was for may have ended, and another one begun.
        if self._running and self._due == self._number:
            self._due = 0
            raise Interruption
