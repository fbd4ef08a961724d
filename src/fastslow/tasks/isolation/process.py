"""This side: the process that a task's own processes are forked from, and one connection to each of them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from fastslow.errors import ConfigError, ElsewhereError, InfrastructureError, LateError, TaskError
from fastslow.tasks.isolation.wire import Closed, receive, send
from fastslow.tasks.isolation.worker import FORK, STATUS
from fastslow.threads import SLICE_S

START_S = 600.0
"""So long the process may take to make the task, in seconds."""
SEND_S, CLOSE_S = 60.0, 2.0
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from fastslow.tasks.registry import make_task; "
    "from fastslow.tasks.isolation.worker import main; main(int(sys.argv[1]), make_task)"
)


class Worker:
    """A process that scores, or plays one episode. One request at a time; `close` may come from another thread."""

    def __init__(self, origin: "Origin", connection: socket.socket, pid: int) -> None:
        self._origin, self._connection, self._pid = origin, connection, pid
        self._asking = False
        self.alive = True

    def ask(self, name: str, *arguments: object, timeout_s: float | None, field: str) -> dict[str, Any]:
        """The reply to a request. A process that is gone, or is too slow and then killed, is `alive` no more.

        Raises: LateError after the time limit, ElsewhereError where the code there raised or its process ended,
        TaskError for what is no score.
        """
        self._asking = True
        try:
            self._connection.settimeout(SEND_S)
            send(self._connection, [name, arguments])
            self._connection.settimeout(SLICE_S)
            reply: dict[str, Any] = receive(self._connection, _patience(timeout_s, field))
        except (Closed, OSError):
            how = self._end()
            raise ElsewhereError(f"its process {how}") from None
        except BaseException:  # a half-read reply must not be taken for the next one's
            self.kill()
            raise
        finally:
            self._asking = False
        if "task_error" in reply:
            raise TaskError(reply["task_error"])
        if "failure" in reply:
            raise ElsewhereError(reply["failure"], reply["place"])
        return reply

    def close(self) -> None:
        """Let the episode go in peace where it answers; end the process."""
        if self.alive and not self._asking:
            with contextlib.suppress(InfrastructureError, TaskError):
                self.ask("close", timeout_s=CLOSE_S, field="")
        self.kill()

    def kill(self) -> None:
        """End the process and all that it has started."""
        if self.alive:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(OSError):
                    kill(self._pid, signal.SIGKILL)
            self._end(is_killed=True)

    def _end(self, is_killed: bool = False) -> str:
        if not self.alive:
            return "was killed"
        self.alive = False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        return self._origin.how_it_ended(self._pid, is_killed)


class Origin:
    """The process that makes a task once and is forked for every scorer and every episode of it.

    Raises: ConfigError where the task cannot be made there.
    """

    def __init__(self, task: Mapping[str, object], memory_bytes: int | None, digest: str) -> None:
        self._task, self._memory_bytes, self._digest = task, memory_bytes, digest
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        with self._lock:
            self._running()

    def fork(self) -> Worker:
        """A process of its own. Raises InfrastructureError where none can be had."""
        with self._lock:
            mine, other = socket.socketpair()
            try:
                control = self._running()
                socket.send_fds(control, [FORK], [other.fileno()])
                pid = receive(control)
            except (Closed, OSError) as error:
                mine.close()
                self._stop()
                raise InfrastructureError(f"the task's process cannot be forked: {error}") from error
            finally:
                other.close()
        return Worker(self, mine, pid)

    def how_it_ended(self, pid: int, is_killed: bool) -> str:
        """In words; it is waited for."""
        with self._lock:
            try:
                if self._control is None:
                    return "was killed"
                self._control.sendall(STATUS)
                send(self._control, [pid, is_killed])
                return str(receive(self._control))
            except (Closed, OSError):
                self._stop()
                return "was killed"

    def close(self) -> None:
        """End it, and all that was forked from it."""
        with self._lock:
            self._stop()

    def _running(self) -> socket.socket:
        if self._owner != os.getpid():  # a fork has the parent's connection, which is not for it to use
            self._process, self._control, self._owner = None, None, os.getpid()
        if self._control is None or self._process is None or self._process.poll() is not None:
            self._start()
        assert self._control is not None
        return self._control

    def _start(self) -> None:
        mine, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [
                    sys.executable,
                    "-c",
                    _MAIN,
                    str(other.fileno()),
                    json.dumps([path or os.getcwd() for path in sys.path]),
                ],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                # A pool of threads does not survive a fork.
                env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
                start_new_session=True,  # Ctrl-C is for the run, which closes this process itself
            )
        self._control = mine
        weakref.finalize(self, _end, self._process, mine, os.getpid())
        try:
            mine.settimeout(SLICE_S)
            send(mine, {"task": self._task, "memory_bytes": self._memory_bytes})
            reply = receive(mine, _patience(START_S, ""))
            mine.settimeout(None)
        except (Closed, OSError, LateError) as error:
            self._stop()
            raise ConfigError(
                f"task.isolate: the process that is to make the task ended, or took more than {START_S:g} s: {error}"
            ) from error
        if "error" in reply:
            raise ConfigError(f"task.isolate: the task cannot be made in a process of its own: {reply['error']}")
        if reply["digest"] != self._digest:
            raise ConfigError(
                "task.isolate: the task has other problems in a process of its own: `problems` must give the same ones "
                "in each process"
            )

    def _stop(self) -> None:
        process, control = self._process, self._control
        self._process = self._control = None
        if process is not None and control is not None:
            _end(process, control, self._owner)


def _end(process: "subprocess.Popen[bytes]", control: socket.socket, owner: int) -> None:
    """It ends what it has forked when its connection is closed."""
    if owner != os.getpid():
        return
    control.close()
    try:
        process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _patience(timeout_s: float | None, field: str) -> Callable[[], None]:
    """Called again and again, it raises LateError when the time is over. Time in which this process is stopped is not
    counted.
    """
    left_s, last = timeout_s, time.monotonic()

    def wait() -> None:
        nonlocal left_s, last
        now = time.monotonic()
        passed, last = min(now - last, 2 * SLICE_S), now
        if left_s is not None and timeout_s is not None:
            left_s -= passed
            if left_s <= 0.0:
                raise LateError(f"it did not answer within {field} = {timeout_s:g} s")

    return wait
