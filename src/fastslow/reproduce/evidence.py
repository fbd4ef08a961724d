"""What the claims of the paper are judged by: stored results by place, arm and seed, and one rule for every verdict."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fastslow.experiments.arms import ARMS, OWN, SEED, arm_curves, last_lines
from fastslow.experiments.commands import RESULTS
from fastslow.experiments.records import Line
from fastslow.experiments.tables import Lines, select
from fastslow.lab import worlds
from fastslow.measuring.statistics import Curve, Summary, final_accuracy, summarise
from fastslow.reproduce.sections import AT_HIGHER, FIRST, HIGHER, TASKS, real_results
from fastslow.runs.files import read_lines

T = TypeVar("T")
LAB, REAL = "lab", "real model"
LEAST_SEEDS = 3
"""Fewer seeds have no verdict."""
STARTS = 0.05
"""RL alone starts where its accuracy rises by this much: as much as an asymptote is fitted for."""

HELD, NOT_HELD, UNDECIDED = "held", "did not hold", "undecided"
UNTESTABLE, FEW, NOT_RUN = "could not be tested here", "too few seeds", "not run yet"


@dataclass(frozen=True)
class Place:
    """A task of the lab or of the real model. `runs`: learning curves by arm and seed; `planned`: arms that are run
    there; `tested`: accuracy on the test split by arm and seed, of `both`, the trained weights under their own prompt,
    `weights` alone under the seed prompt, and the best `prompt` alone under the base weights.
    """

    world: str
    task: str
    page: Path
    planned: tuple[str, ...]
    runs: Mapping[str, Mapping[int, Curve]] = field(default_factory=dict)
    tested: Mapping[str, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)

    def curves(self, arm: str) -> Mapping[int, Curve]:
        """By seed."""
        return self.runs.get(arm, {})

    def test(self, arm: str, what: str = "both") -> Mapping[int, float]:
        """By seed."""
        return self.tested.get(arm, {}).get(what, {})

    def ends(self, arm: str) -> Mapping[int, float]:
        """Validation accuracy at the end, by seed."""
        return {seed: final_accuracy(curve) for seed, curve in self.curves(arm).items()}


@dataclass(frozen=True)
class Finding:
    """What one place says of a claim: cells of its table, and the verdict with why, where there is more to say."""

    world: str
    place: str
    page: Path
    seeds: int
    cells: tuple[str, ...]
    verdict: str
    why: str = ""


# -- the rule ----------------------------------------------------------------------------------------------------------


def pairs(first: Mapping[int, T], second: Mapping[int, T]) -> list[tuple[T, T]]:
    """The values of the seeds that both have."""
    return [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]


def judged(effect: Summary, *, above: float | None = None, below: float | None = None) -> str:
    """The verdict on an effect that a claim says lies above a bound, or below one.

    Held: the whole bracket of the median over seeds does. Did not hold: the whole bracket lies on the other side or at
    the bound. Undecided: the bracket is on both sides.
    """
    if effect.count < LEAST_SEEDS:
        return FEW
    bound, sign = (above, 1.0) if above is not None else (below or 0.0, -1.0)
    low, high = sorted((sign * (effect.low - bound), sign * (effect.high - bound)))
    return HELD if low > 0 else NOT_HELD if high <= 0 else UNDECIDED


def together(verdicts: Iterable[str]) -> str:
    """The verdict on a claim that needs all of several: held where all held, did not hold where one did not."""
    found = list(verdicts)
    order = (NOT_RUN, FEW, NOT_HELD, UNTESTABLE, UNDECIDED)
    return next((verdict for verdict in order if verdict in found), HELD)


def differences(first: Mapping[int, float], second: Mapping[int, float]) -> Summary:
    """First less second, seed by seed."""
    return summarise([one - other for one, other in pairs(first, second)])


def ratio(first: float | None, second: float | None) -> float | None:
    """Of what two runs needed. None, never, where only the first never got there; 0 where only the second did not."""
    if first is None:
        return None
    return 0.0 if second is None else first / second if second else 1.0


def middle(values: Iterable[float | None], digits: int = 3) -> str:
    """A median alone, as it stands beside an effect that has brackets. None is never."""
    return f"{summarise(list(values)).median:.{digits}f}".replace("inf", "never")


def number(found: Summary, digits: int = 3) -> str:
    """A median with its brackets, infinity being never."""
    return found.text(digits).replace("inf", "never")


# -- places ------------------------------------------------------------------------------------------------------------


def places(results: Path) -> list[Place]:
    """Every task that methods are compared on, with what has been run so far."""
    lab = results / "lab"
    compared, precise = worlds.read(lab, "compare"), worlds.read(lab, "precision")
    found = [_lab_place(task, select(compared, task=task), lab, FIRST) for task in worlds.COMPARED]
    half = f"{worlds.PRECISE} in {worlds.PRECISION}"
    found.append(_lab_place(half, select(precise, task=worlds.PRECISE), lab, ("fst", "rl")))
    return found + [_real_place(task, results, tuple(arms)) for task, arms in TASKS.items()]


def at_both_rates(results: Path) -> list[tuple[Place, Place]]:
    """The real model's tasks that were run at the higher learning rate as well: at the rate taken, and at that one."""
    return [
        (_real_place(task, results, tuple(arms)), _real_place(f"{task}_{HIGHER}", results, tuple(arms)))
        for task, arms in AT_HIGHER.items()
    ]


def lines_of(results: Path, name: str) -> Lines:
    """The lines of another experiment of the lab."""
    return worlds.read(results / "lab", name)


def by_seed(lines: Lines, value: Callable[[Line], T]) -> dict[int, T]:
    """A value of each line by its seed."""
    return {int(str(line["labels"]["seed"])): value(line) for line in lines}


LAB_MEASURES = {"both": "test", "weights": "trained weights, seed prompt", "prompt": "base weights, best prompt"}


def _lab_place(task: str, lines: Lines, lab: Path, planned: tuple[str, ...]) -> Place:
    runs, tested = {}, {}
    for method in planned:
        mine = select(lines, method=method)
        runs[method] = by_seed(mine, lambda line: line["curve"])
        tested[method] = {what: _measured(mine, name) for what, name in LAB_MEASURES.items()}
    return Place(LAB, task, lab / "README.md", planned, runs, tested)


def _real_place(task: str, results: Path, planned: tuple[str, ...]) -> Place:
    directory = real_results(results, task)
    lines = list({line["part"]: line for line in read_lines(directory / RESULTS)}.values())
    tested = {}
    for arm in ARMS:
        mine = list(last_lines(lines, arm).values())
        tested[arm] = {what: _measured(mine, name) for what, name in {"both": OWN, "weights": SEED}.items()}
    # What the prompts alone bring is what GEPA alone brings from the same seed.
    tested["fst"]["prompt"] = tested["prompt"]["both"]
    return Place(REAL, task, directory / "README.md", planned, arm_curves(lines, list(ARMS)), tested)


def _measured(lines: Sequence[Line], name: str) -> dict[int, float]:
    return by_seed([line for line in lines if name in line["measures"]], lambda line: line["measures"][name]["mean"])
