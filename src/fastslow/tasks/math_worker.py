"""The process in which math-verify reads and compares answers. Nothing of fastslow is imported: it must start quickly.

One JSON object a line comes in, `{"right": LaTeX, "given": LaTeX or null}`; null asks whether `right` can be used
at all. Two lines go out: `{"read": true}` as soon as `right` has been read, then `{"equal": bool}`, `{"unusable":
reason}` (of `right`) or `{"broken": reason}` (math-verify itself). Time and memory are limited by the kernel,
which kills this process even where a library is deep in C code; a limit that works by Python signals works in
neither C code nor a thread.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any, TextIO

MEMORY_BYTES = 4 << 30


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Any, ...]:
    """What math-verify reads in a LaTeX text; empty where it reads nothing."""
    import math_verify

    return tuple(math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None, raise_on_error=True))


def equal(right: str, given: str) -> bool:
    """Whether math-verify takes the two for equal."""
    import math_verify

    return bool(math_verify.verify(list(parse(right)), list(parse(given)), timeout_seconds=None, raise_on_error=True))


def broken() -> str | None:
    """What is wrong with math-verify itself, if anything: it reads no LaTeX, silently, where its parser is missing."""
    try:
        works = equal("\\frac{1}{2}", "0.5") and not equal("1", "2")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return (
        None
        if works
        else "it does not take \\frac{1}{2} for 0.5: is its parser installed? pip install 'fastslow[math]'"
    )


def answer(right: str, given: str | None) -> dict[str, Any]:
    """The verdict. What raises on one text, while others are fine, is the fault of that text and not of math-verify."""
    try:
        if given is not None:
            return {"equal": bool(parse(given)) and equal(right, given)}
    except Exception:
        reason = broken()
        if reason is not None:
            return {"broken": reason}
    try:
        equal(right, "0")
    except Exception as error:
        return {"unusable": f"{type(error).__name__}: {error}"}
    return {"equal": False}


def read(right: str) -> dict[str, Any]:
    """`{"read": true}`, or why the right answer cannot be read."""
    try:
        found = parse(right)
    except Exception as error:
        reason = broken()
        return {"unusable": f"{type(error).__name__}: {error}"} if reason is None else {"broken": reason}
    return {"read": True} if found else {"unusable": "math-verify finds nothing in it"}


def limit(cpu_s: float) -> None:
    """So many seconds of CPU time from now on, and twenty times as many on the clock: 0 for no limit."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, 20 * cpu_s)


def serve(requests: TextIO, replies: TextIO, cpu_s: float) -> None:
    """Answer requests until there are no more."""

    def reply(line: dict[str, object]) -> None:
        replies.write(json.dumps(line) + "\n")
        replies.flush()

    reason = broken()
    reply({"broken": reason} if reason else {"ready": True})
    for line in requests:
        request = json.loads(line)
        limit(cpu_s)
        found = read(request["right"])
        reply(found)
        if "read" in found:
            limit(cpu_s)
            reply(answer(request["right"], request["given"]))
        limit(0)


def main() -> None:
    """Serve over stdin and stdout, within limits of memory; the argument is the seconds that one answer may take."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # What a library prints must not be taken for a reply.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, replies, float(sys.argv[1]))


if __name__ == "__main__":
    main()
