"""The errors that fastslow raises on purpose. Each also inherits the standard type that fits it."""


class FastslowError(Exception):
    """Base of every error that fastslow raises on purpose: its message is written for the user."""


class ConfigError(FastslowError, ValueError):
    """A config, an option or an input file is wrong. The message names the field, the value and the way out."""


class TooLongError(ConfigError):
    """A context and its completion do not fit into the model's context."""


class TaskError(FastslowError, ValueError):
    """A task cannot provide what its interface promises: bad data, overlapping splits, a reward outside [0, 1]."""


class InfrastructureError(FastslowError, RuntimeError):
    """Something outside the model failed (a crashed scorer, a dead server): the rollout is masked, never scored 0."""


class LateError(InfrastructureError):
    """Somebody's code did not answer within its time limit."""


class ElsewhereError(InfrastructureError):
    """Somebody's code raised in a process of its own, or ended it. `place`: file and line, "" where not known."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class ServerError(InfrastructureError):
    """The server behind a remote engine is gone, or refused a request. The run stops and can be resumed.

    `reachable`: it is still there, so that the run can be saved.
    """

    reachable = False


class DivergedError(FastslowError, ArithmeticError):
    """The policy's numbers are no longer finite. The run ends, and nothing that was computed from them is saved."""


class ReflectionError(FastslowError, RuntimeError):
    """A proposer could not be reached, or its reply was refused.

    `usage` is what the attempt cost, where known; `text` the refused text, where there was one; `reflection` what was
    asked, for the record (`fast/optimiser.py`).
    """

    def __init__(
        self, message: str, usage: object | None = None, text: str | None = None, reflection: object | None = None
    ) -> None:
        super().__init__(message)
        self.usage = usage
        self.text = text
        self.reflection = reflection


class Interruption(BaseException):
    """Ends a call that takes too long. Code that catches every Exception does not catch it."""


class StorageError(FastslowError, OSError):
    """A run cannot be written down: the disk is full or read-only, or at a limit on files. What was saved stays."""


class ResumeError(FastslowError, RuntimeError):
    """A run directory cannot be continued as asked."""


def told(error: BaseException, message: str | None = None) -> str:
    """The message of an error, or another one, and the notes that were added to it on its way, one a line."""
    return "\n".join([str(error) if message is None else message, *getattr(error, "__notes__", [])])


def let_stop(error: BaseException) -> None:
    """Raises again what is no failure of the code that raised it: Ctrl-C, and the end of its time. Anything else is, be
    it an Exception or not: `sys.exit`, a cancelled coroutine, a panic of a library in another language.
    """
    if isinstance(error, KeyboardInterrupt | Interruption):
        raise error


def in_words(error: BaseException) -> str:
    """What an error says, where its class may be anybody's: `str` of it may raise, too."""
    try:
        return str(error)
    except BaseException as second:
        let_stop(second)
        return f"(its message cannot be made: {type(second).__name__})"


def positive(field: str, value: int) -> int:
    """The value. Raises ConfigError where it is below 1."""
    if value < 1:
        raise ConfigError(f"{field}: {value} is not a positive number")
    return value
