"""How contract suites work: a suite is a list of checks, and says of every one that breaks what the contract asks."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Case = TypeVar("Case")


def require(holds: bool, contract: str) -> None:
    """Raises AssertionError with the contract's words if it does not hold; unlike `assert`, under `python -O` too."""
    if not holds:
        raise AssertionError(contract)


def run_checks(what: str, checks: Sequence[Callable[[Case], None]], case: Case) -> None:
    """Run every check of a suite on one case. Raises AssertionError that names all of those that break."""
    broken, first = [], None
    for check in checks:
        try:
            check(case)
        except Exception as error:  # an object of anybody's may raise whatever it likes
            said = str(error) if isinstance(error, AssertionError) else f"raised {type(error).__name__}: {error}"
            broken.append(f"{check.__name__}: {said}")
            first = first or error
    if broken:
        count = f"{len(broken)} of {len(checks)} checks"
        raise AssertionError(
            f"{what} breaks its contract ({count}):\n" + "\n".join(f"- {line}" for line in broken)
        ) from first
