"""Ctrl-C and SIGTERM: the first one is heard and the step is finished and saved, the second one stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

HEARD = (signal.SIGINT, signal.SIGTERM)
MESSAGE = "interrupted: this step is finished and saved first; press Ctrl-C again to stop at once"


class Interrupts:
    """Listens for Ctrl-C and SIGTERM from `listen` to `stop`, in the main thread; `heard` says whether it was pressed."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.heard = False
        self._warn = warn
        self._previous: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals over; other threads cannot, and leave them as they are."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_interrupt) for number in HEARD}

    def stop(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        for each in HEARD:
            signal.signal(each, signal.default_int_handler)
        self._warn(MESSAGE)
