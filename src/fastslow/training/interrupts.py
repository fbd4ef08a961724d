"""Ctrl-C and SIGTERM: the first one is heard and the step is finished and saved, the second one stops at once.

Python runs a signal's handler between two of its own instructions, and a backward pass or a matrix product on a CPU may
take seconds of none. So a thread listens as well: it says at once that a signal was heard, and ends a process whose
main thread does not come back after the second one.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

HEARD = (signal.SIGINT, signal.SIGTERM)
MESSAGE = "interrupted: this step is finished and saved first; press Ctrl-C again to stop at once"
GRACE_S = 2.0
"""How long after a second signal the main thread may stay away before `give_up` is called, in seconds."""


class Interrupts:
    """Listens for Ctrl-C and SIGTERM from `listen` to `stop`, in the main thread; `heard` says whether it was pressed.

    `warn` is told of the first one, from a thread. `give_up`: what ends the process where a second one cannot be heard
    by the main thread; None where nobody may end it, as in a notebook.
    """

    def __init__(self, warn: Callable[[str], None], give_up: Callable[[], None] | None = None) -> None:
        self.heard = False
        self._warn, self.give_up = warn, give_up
        self._previous: dict[int, Any] = {}
        self._ear: _Ear | None = None

    def listen(self) -> None:
        """Take the signals over; other threads than the main one cannot, and leave them as they are."""
        if threading.current_thread() is threading.main_thread():
            self._ear = _Ear(self._first, self._second)
            self._previous = {number: signal.signal(number, self._on_interrupt) for number in HEARD}

    def stop(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as it is back in Python's own code."""
        again, self.heard = self._ear is not None and self._ear.count > 1, True
        for each in HEARD:
            signal.signal(each, signal.default_int_handler)
        if again:  # both came while the main thread was away
            raise KeyboardInterrupt

    def _first(self) -> None:
        self.heard = True
        self._warn(MESSAGE)

    def _second(self) -> None:
        if self.give_up is not None:
            self.give_up()


class _Ear:
    """A thread that reads the bytes which Python's C code writes for every signal, whatever the main thread does.

    `first` is called for the first of `HEARD`, `second` where GRACE_S after the second nobody has closed the ear.
    """

    def __init__(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        self.count = 0
        self._first, self._second = first, second
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True, name="interrupts")
        self._thread.start()

    def close(self) -> None:
        """Give the wake-up descriptor back to whoever had it, and end the thread, which may be telling somebody."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)
        self._thread.join(GRACE_S)

    def _listen(self) -> None:
        try:
            while number := os.read(self._reader, 1):
                if number[0] not in HEARD:
                    continue
                self.count += 1
                if self.count == 1:
                    self._first()
                elif not select.select([self._reader], [], [], GRACE_S)[0] or os.read(self._reader, 1):
                    self._second()
        finally:
            with contextlib.suppress(OSError):
                os.close(self._reader)
