"""Signals are heard while the main thread is away in C code, and the second one ends what does not come back."""

import hashlib
import os
import signal
import threading
import time

import pytest

from fastslow.training import interrupts
from fastslow.training.interrupts import MESSAGE, Interrupts


def away(seconds: float) -> None:
    """Stay in C code, without the interpreter's lock, for about so long: no signal's handler runs meanwhile."""
    start = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 100_000)
    rounds = int(100_000 * seconds / (time.perf_counter() - start))
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", max(1, rounds))


def press(after_s: list[float], pressed: list[float]) -> None:
    for seconds in after_s:
        time.sleep(seconds)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_is_heard_within_a_second_while_the_main_thread_is_away() -> None:
    heard: list[tuple[float, str]] = []
    pressed: list[float] = []
    before = signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before[1])
    listener = Interrupts(lambda message: heard.append((time.monotonic(), message)))
    listener.listen()
    try:
        threading.Thread(target=press, args=([0.3], pressed)).start()
        away(3.0)
        back = time.monotonic()
    finally:
        listener.stop()
    ((moment, message),) = heard
    assert message == MESSAGE
    assert moment - pressed[0] < 1.0
    assert back - pressed[0] > 1.0, "the main thread was not away: this shows nothing"
    assert listener.heard
    assert (signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)) == before


def test_the_second_signal_gives_up_where_the_main_thread_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 0.2)
    gave_up: list[float] = []
    pressed: list[float] = []
    listener = Interrupts(lambda message: None, lambda: gave_up.append(time.monotonic()))
    listener.listen()
    with pytest.raises(KeyboardInterrupt):
        try:
            threading.Thread(target=press, args=([0.2, 0.2], pressed)).start()
            away(3.0)
            time.sleep(1.0)
        finally:
            back = time.monotonic()
            listener.stop()
    assert len(gave_up) == 1
    assert pressed[1] + 0.2 <= gave_up[0] < back


def test_where_the_main_thread_comes_back_nobody_gives_up() -> None:
    gave_up: list[int] = []
    listener = Interrupts(lambda message: None, lambda: gave_up.append(1))
    listener.listen()
    with pytest.raises(KeyboardInterrupt):
        try:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        finally:
            listener.stop()
    assert listener.heard
    assert gave_up == []
