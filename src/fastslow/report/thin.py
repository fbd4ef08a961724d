"""Keeps a report under its size: curves, prompts, grids of scores and samples are thinned, and the page says so."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fastslow.report.data import PageData, RunData, Series
from fastslow.report.page import encode

BUDGET = 4_800_000
"""Bytes of data in the page; the page around it takes 0.8 MB."""
LARGEST = 6_000_000
"""Bytes of a whole page."""
MOST_POINTS, MOST_VALUES = 40_000, 250_000
"""Evaluations, and values of training curves, of all runs together."""
PROMPTS, GRIDS = 0.4, 0.2
"""Shares of what the curves leave."""


T = TypeVar("T")


def fit(data: PageData, budget: int = BUDGET) -> PageData:
    """Thin `data` in place until it is within `budget`; a run's `left_out` counts what went,
    beside what it counts already.
    """
    runs = data["runs"]
    _thin_curves(data)
    if _size(data) <= budget:
        return data
    heavy = ("prompts", "grids", "samples")
    room = budget - _size({**data, "runs": [{**run, **dict.fromkeys(heavy)} for run in runs]})
    share = max(0, room) / len(runs) if runs else 0.0
    for run in runs:
        _thin_prompts(run, int(share * PROMPTS))
        _thin_grids(run, int(share * GRIDS))
    left = max(0, room) - sum(_size(run["prompts"]) + _size(run["grids"]) for run in runs)
    for run, allowed in zip(runs, _shares([_size(run["samples"]) for run in runs], left), strict=True):
        kept = fitting(run["samples"], allowed, _size)
        _note(run, "samples", len(run["samples"]) - len(kept))
        run["samples"] = kept
    return data


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, the first and the last among them, with equal distances between."""
    if count >= len(items):
        return list(items)
    if count <= 1:
        return list(items[len(items) - count :]) if count else []
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def fewer_values(items: Sequence[T], columns: int) -> list[T]:
    """The rows of training curves that stay, where all runs have so many columns together."""
    return evenly(items, max(50, MOST_VALUES // max(1, columns)))


def _thin_curves(data: PageData) -> None:
    groups = [series for panel in data["panels"] for series in panel["series"] if "evaluations" in series]
    curves: list[RunData | Series] = [*data["runs"], *groups]
    most = max(50, MOST_POINTS // max(1, len(data["runs"]) + len(groups)))
    for curve in curves:
        curve["evaluations"] = evenly(curve["evaluations"], most)
    count = sum(len(run["training"]) for run in data["runs"])
    for run in data["runs"]:
        columns = run["training"]
        kept = fewer_values(range(len(columns["step"])), count)
        run["training"] = {name: [values[index] for index in kept] for name, values in columns.items()}


def _thin_prompts(run: RunData, allowed: int) -> None:
    kept = most_wanted(
        run["prompts"], lambda node: (node["hash"], node["parent"], node["accepted"]), run["population"], allowed, _size
    )
    _note(run, "prompts", len(run["prompts"]) - len(kept))
    run["prompts"] = kept


def most_wanted(
    prompts: Sequence[T],
    facts: Callable[[T], tuple[str, str | None, bool]],
    population: Sequence[str],
    allowed: int,
    size: Callable[[Sequence[T]], int],
) -> list[T]:
    """Prompts of at most `allowed` bytes, in their order. The population and its ancestors stay longest, then what was
    accepted; the rest is thinned evenly. `facts` of a prompt: its hash, its parent's, whether it was accepted.
    """
    known = {hash_: (each, parent, accepted) for each in prompts for hash_, parent, accepted in [facts(each)]}
    first = _lines(population, {hash_: parent for hash_, (_, parent, _) in known.items()})
    ranks: tuple[list[T], list[T], list[T]] = ([], [], [])
    for hash_, (each, _, accepted) in known.items():
        ranks[0 if hash_ in first else 1 if accepted else 2].append(each)
    kept: set[str] = set()
    for rank in ranks:
        chosen = fitting(rank, allowed, size)
        kept |= {facts(each)[0] for each in chosen}
        allowed -= size(chosen)
    return [each for hash_, (each, _, _) in known.items() if hash_ in kept]


def _lines(population: Sequence[str], parents: Mapping[str, str | None]) -> set[str]:
    """The population and everything that it comes from."""
    found: set[str] = set()
    for hash_ in population:
        line: str | None = hash_
        while line is not None and line in parents and line not in found:
            found.add(line)
            line = parents[line]
    return found


def _thin_grids(run: RunData, allowed: int) -> None:
    """Whole cycles go; of the last one, which says most, as many problems stay as fit."""
    grids = run["grids"]
    if not grids or _size(grids) <= allowed:
        return
    last = grids[-1]
    if _size(last) > allowed:
        kept = evenly(range(len(last["problems"])), len(last["problems"]) * max(0, allowed) // _size(last))
        _note(run, "problems", len(last["problems"]) - len(kept))
        last["problems"] = [last["problems"][index] for index in kept]
        last["rows"] = [(hash_, [row[index] for index in kept]) for hash_, row in last["rows"]]
    earlier = grids[:-1]
    room = allowed - _size(last)
    kept_grids = evenly(earlier, len(earlier) * max(0, room) // max(1, _size(earlier)))
    _note(run, "cycles", len(earlier) - len(kept_grids))
    run["grids"] = [*kept_grids, last]


def fitting(items: Sequence[T], allowed: int, size: Callable[[Sequence[T]], int]) -> list[T]:
    """As many of the items as fit into `allowed` bytes, spread evenly."""
    kept, taken = list(items), size(items)
    while kept and taken > allowed:
        kept = evenly(items, min(len(kept) - 1, int(len(kept) * max(0, allowed) / taken)))
        taken = size(kept)
    return kept


def _shares(sizes: Sequence[int], room: int) -> list[int]:
    """Bytes for each: what it needs where that is less than an equal share, whose rest goes to the others."""
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(order):
        shares[index] = min(sizes[index], max(0, room) // (len(sizes) - place))
        room -= shares[index]
    return shares


def _note(run: RunData, name: str, count: int) -> None:
    if count:
        run["left_out"][name] = run["left_out"].get(name, 0) + count


def _size(value: object) -> int:
    return len(encode(value).encode("utf-8", "replace"))
