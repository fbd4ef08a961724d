"""The other side: a process that makes the task once, and copies of it that score, or play one episode each.

The first process never runs a scorer. It makes the task from the same part of the config, forks where it is asked to,
and says how a copy ended. A copy answers one request after the other until its connection is closed.
"""

import contextlib
import hashlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastslow.errors import FastslowError, TaskError, let_stop
from fastslow.tasks.base import SPLITS, Task, check_score, check_scores
from fastslow.tasks.episode import Episode
from fastslow.tasks.failures import ScoringFailure, place_of, reason_of
from fastslow.tasks.isolation.wire import Closed, receive, send
from fastslow.tasks.settings import TaskConfig
from fastslow.types import Problem, Prompt, Score

FORK, STATUS = b"F", b"S"
ENDING_S = 2.0
"""So long a copy whose connection is broken may take to end before it is killed."""


def digest(task: Task) -> str:
    """What two processes must agree on: the ids of all problems, in order."""
    ids = "\n".join(problem.id for split in SPLITS for problem in task.problems(split))
    return hashlib.sha256(ids.encode(errors="surrogatepass")).hexdigest()


def main(descriptor: int, make: Callable[[TaskConfig], Task]) -> None:
    """Make the task that the first message describes, then fork on request until the connection is closed."""
    os.dup2(2, 1)
    control = socket.socket(fileno=descriptor)
    spec = receive(control)
    try:
        task = make(TaskConfig.model_validate(spec["task"]))
        problems = {problem.id: problem for split in SPLITS for problem in task.problems(split)}
        send(control, {"digest": digest(task)})
    except BaseException as error:  # somebody else's constructor
        let_stop(error)
        send(control, {"error": str(error) if isinstance(error, FastslowError) else reason_of(error)})
        return
    _fork_on_request(control, Copy(task, problems), spec["memory_bytes"])


def _fork_on_request(control: socket.socket, copy: "Copy", memory_bytes: int | None) -> None:
    children: set[int] = set()
    forked = 0
    try:
        while True:
            command, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if command == FORK:
                pid, forked = os.fork(), forked + 1
                if pid == 0:
                    control.close()
                    _draw_anew(forked)
                    _be_a_copy(socket.socket(fileno=descriptors[0]), copy, memory_bytes)
                os.close(descriptors[0])
                children.add(pid)
                send(control, pid)
            elif command == STATUS:
                pid, is_killed = receive(control)
                children.discard(pid)
                send(control, _how_it_ended(pid, is_killed))
            else:
                return
    finally:
        for pid in children:
            _kill(pid)


def _be_a_copy(connection: socket.socket, copy: "Copy", memory_bytes: int | None) -> None:
    """Serve, and end this process without a word to whatever it was forked with."""
    os.setpgid(0, 0)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        copy.serve(connection)
    except (Closed, OSError):
        pass  # whoever asked is gone: there is nobody to tell
    finally:
        os._exit(0)


def _draw_anew(seed: int) -> None:
    """Copies of a process would all draw the same numbers."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def _how_it_ended(pid: int, is_killed: bool) -> str:
    deadline = time.monotonic() + ENDING_S
    with contextlib.suppress(ChildProcessError):  # two threads may ask for one that was given up
        while not is_killed and time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            time.sleep(0.005)
        _kill(pid)
        os.waitpid(pid, 0)
    return "was killed"


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


class Copy:
    """A copy of the task: scores what it is sent, or plays the episode that it was sent first."""

    def __init__(self, task: Task, problems: Mapping[str, Problem]) -> None:
        self.task, self.problems = task, problems
        self.episode: Episode | None = None

    def serve(self, connection: socket.socket) -> None:
        """Answer until the connection is closed."""
        while True:
            name, arguments = receive(connection)
            reply: dict[str, Any]
            try:
                reply = {"value": getattr(self, f"do_{name}")(*arguments)}
            except TaskError as error:
                reply = {"task_error": str(error)}
            except BaseException as error:
                let_stop(error)
                reply = {"failure": reason_of(error), "place": place_of(error)}
            if self.episode is not None:
                reply["calls"] = int(getattr(self.episode, "tool_calls", 0))
                reply["errors"] = [str(text) for text in getattr(self.episode, "tool_errors", ())]
            try:
                send(connection, reply)
            except (TypeError, ValueError, RecursionError) as error:
                send(connection, {"failure": f"what it gave cannot be sent: {error}", "place": ""})

    def do_score(self, problem: str, completion: str) -> dict[str, Any]:
        """The score of one completion."""
        try:
            score = self.task.score(self.problems[problem], completion)
        except BaseException as error:
            let_stop(error)
            return {"failure": reason_of(error), "place": place_of(error)}
        return _score_record(check_score(score, self.problems[problem]))

    def do_score_batch(self, problems: list[str], completions: list[str]) -> list[dict[str, Any]]:
        """The scores of a batch."""
        asked = [self.problems[name] for name in problems]
        return [_score_record(score) for score in check_scores(self.task.score_batch(asked, completions), asked)]

    def do_start(self, problem: str, prompt: dict[str, str]) -> dict[str, Any]:
        """Make an episode and start it: its first context, and its tools, which may be known only then."""
        self.episode = self.task.episode(self.problems[problem], Prompt.from_dict(prompt))
        return {"messages": _messages(self._open.start), "tools": list(self._open.tools)}

    def do_step(self, text: str) -> Any:
        """What the environment says."""
        return _messages(lambda: self._open.step(text))

    def do_score_episode(self, problem: str) -> dict[str, Any]:
        """The score of the episode."""
        return _score_record(check_score(self._open.score(), self.problems[problem]))

    def do_close(self) -> None:
        """Let go of what it holds."""
        self._open.close()

    @property
    def _open(self) -> Episode:
        assert self.episode is not None
        return self.episode


def _messages(said: Callable[[], Sequence[Any]]) -> Any:
    """Messages as plain records; what are none are judged on the other side."""
    value = said()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return type(value).__name__
    return [dict(message) if hasattr(message, "keys") else None for message in value]


def _score_record(score: Score | ScoringFailure) -> dict[str, Any]:
    if isinstance(score, ScoringFailure):
        return {"failure": score.reason, "place": ""}
    return {"reward": score.reward, "feedback": score.feedback}
