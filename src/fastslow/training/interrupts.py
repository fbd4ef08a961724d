"""Ctrl-C: the first one is heard and the step is finished and saved, the second one stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

MESSAGE = "interrupted: this step is finished and saved first; press Ctrl-C again to stop at once"


class Interrupts:
    """Listens for Ctrl-C from `listen` to `stop`, in the main thread; `heard` says whether it was pressed."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.heard = False
        self._warn = warn
        self._previous: Any = None

    def listen(self) -> None:
        """Take the signal over; other threads cannot, and leave it as it is."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)

    def stop(self) -> None:
        """Give the signal back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._warn(MESSAGE)
