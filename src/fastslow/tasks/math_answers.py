"""Comparing two LaTeX answers by math-verify, in a process that is kept warm and killed where an answer takes too long.

math-verify's own time limit is an alarm signal: it needs the main thread, and does not stop the arithmetic of
9^{9^{9^9}}. Ours is CPU time in another process (`math_worker.py`), so that a busy machine does not turn right
answers into wrong ones.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastslow.errors import InfrastructureError, TaskError
from fastslow.tasks.formats import shorten

LIMIT_S = 5.0
WORKER = Path(__file__).with_name("math_worker.py")
# Out of time, out of stack, out of memory: the text's doing. Anything else, SIGKILL for one, comes from outside.
_ITS_OWN_FAULT = {-signal.SIGPROF, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE}


class AnswerTooHard(Exception):
    """A completion's answer cannot be compared within the limits."""


class _Died(Exception):
    """The process ended in the middle of a request."""

    def __init__(self, code: int, gold_was_read: bool) -> None:
        super().__init__(f"the process of math-verify ended with code {code}")
        self.code, self.gold_was_read = code, gold_was_read


class MathVerify:
    """One worker process, started when it is first needed. Calls from several threads wait for one another."""

    def __init__(self, limit_s: float = LIMIT_S, worker: Path = WORKER) -> None:
        self.limit_s, self.worker = limit_s, worker
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()
        self._sound: set[str] = set()

    def equal(self, right: str, given: str) -> bool:
        """Whether the answer `given` equals the right one.

        Raises: AnswerTooHard for an answer that takes too long or too much memory, TaskError where it is the right
        answer that does so or that cannot be read, InfrastructureError where math-verify itself is broken.
        """
        try:
            return self._ask(right, given)
        except _Died as died:
            if died.gold_was_read:
                self.check(right)
                raise AnswerTooHard(given) from None
            raise self._too_hard(right) from None

    def check(self, right: str) -> None:
        """Raises TaskError for a right answer that is of no use: it cannot be read, or takes too long to compare."""
        if right in self._sound:
            return
        try:
            self._ask(right, None)
        except _Died:
            raise self._too_hard(right) from None
        self._sound.add(right)

    def start(self) -> None:
        """Start the process. Raises InfrastructureError where math-verify does not work."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """End the process; the next call starts another one."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()

    def _too_hard(self, right: str) -> TaskError:
        return TaskError(
            f"the record's answer {shorten(right)!r} takes math-verify more than {self.limit_s:g} s or too much "
            "memory: write its value, or leave the record out"
        )

    def _ask(self, right: str, given: str | None) -> bool:
        with self._lock:
            process = self._running()
            try:
                first = self._exchange(process, json.dumps({"right": right, "given": given}) + "\n", False)
                reply = self._exchange(process, "", True) if "read" in first else first
            except BaseException:  # a half-read reply must not be taken for the next one's
                self.close()
                raise
        if "unusable" in reply:
            raise TaskError(
                f"the record's answer {shorten(right)!r} cannot be used by math-verify: {reply['unusable']}"
            )
        if "broken" in reply:
            raise InfrastructureError(f"math-verify is broken: {reply['broken']}")
        return bool(reply["equal"])

    def _exchange(self, process: "subprocess.Popen[str]", line: str, gold_was_read: bool) -> dict[str, Any]:
        assert process.stdin and process.stdout
        try:
            process.stdin.write(line)
            process.stdin.flush()
            text = process.stdout.readline()
        except BrokenPipeError:
            text = ""
        if text.endswith("\n"):
            reply: dict[str, Any] = json.loads(text)
            return reply
        code = process.wait()
        if code in _ITS_OWN_FAULT:
            raise _Died(code, gold_was_read)
        raise InfrastructureError(f"the process of math-verify ended with code {code}")

    def _running(self) -> "subprocess.Popen[str]":
        if self._owner != os.getpid():  # a fork has the parent's pipes, which are not for it to use
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(  # noqa: S603 (our own file)
                [sys.executable, "-P", str(self.worker), str(self.limit_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,  # Ctrl-C is for the run, which closes this process itself
            )
            try:
                reply = self._exchange(self._process, "", False)
            except _Died as died:
                raise InfrastructureError(str(died)) from None
            if "broken" in reply:
                self.close()
                raise InfrastructureError(f"math-verify is broken: {reply['broken']}")
        return self._process


MATH_VERIFY = MathVerify()
atexit.register(MATH_VERIFY.close)


@lru_cache(maxsize=4096)
def same_math(right: str, given: str) -> bool | None:
    """Whether two LaTeX answers are equal; None where that takes too long. Remembered: groups repeat answers."""
    try:
        return MATH_VERIFY.equal(right, given)
    except AnswerTooHard:
        return None
