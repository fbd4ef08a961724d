"""Code in a process of its own, the command `fastslow` above all: a fork, which needs no second import of torch."""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fastslow.cli.main import main

TESTS = Path(__file__).parent


class Fork:
    """A function in a process of its own, whose exit code is what it returns. What is printed goes to files."""

    def __init__(self, function: Callable[[], int | None], directory: Path = TESTS) -> None:
        self._out, self._err = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2))  # noqa: SIM115
        # With one thread there is no pool that a fork could break.
        self.process = multiprocessing.get_context("fork").Process(
            target=_run, args=(function, directory, self._out, self._err)
        )
        self.process.start()

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return _read(self._out)

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGINT)

    def end(self, timeout_s: float = 120.0) -> tuple[int, str, str]:
        """Its exit code, and what it printed to both ways. One that does not end is killed, and fails the test."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"it did not end within {timeout_s:g} s: {_read(self._err)}")
        return self.process.exitcode, self.out, _read(self._err)


def command(*arguments: object) -> Fork:
    """`fastslow` with these arguments."""
    return Fork(lambda: main([str(each) for each in arguments]))


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    return command(*arguments).end()


def _read(file: IO[str]) -> str:
    # Its own place in the file: the command's is shared, and would move with it.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8")


def _run(function: Callable[[], int | None], directory: Path, out: IO[str], err: IO[str]) -> None:
    """In the fork: become what a shell starts, without what pytest has put around this process."""
    import logging
    import warnings

    os.chdir(directory)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    streams: list[Any] = []
    for number, file in ((1, out), (2, err)):
        os.dup2(file.fileno(), number)
        streams.append(open(number, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
    sys.stdout, sys.stderr = streams
    logging.getLogger().handlers.clear()
    warnings.resetwarnings()
    warnings.showwarning = _show  # pytest's own keeps them for its summary
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    sys.exit(function())


def _show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    print(f"{filename}:{lineno}: {category.__name__}: {message}", file=sys.stderr)
