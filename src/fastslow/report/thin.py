"""Keeps a report under its size: curves, prompts, grids of scores and samples are thinned evenly, and the page says so."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fastslow.report.data import PageData, Prompt, RunData, Series
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
    """Thin `data` in place until it is within `budget`; a run's `left_out` counts what went."""
    runs = data["runs"]
    for run in runs:
        run["left_out"] = {}
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
        kept = _reduced(run["samples"], allowed)
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


def _thin_curves(data: PageData) -> None:
    groups = [series for panel in data["panels"] for series in panel["series"] if "evaluations" in series]
    curves: list[RunData | Series] = [*data["runs"], *groups]
    most = max(50, MOST_POINTS // max(1, len(data["runs"]) + len(groups)))
    for curve in curves:
        curve["evaluations"] = evenly(curve["evaluations"], most)
    rows = max(50, MOST_VALUES // max(1, sum(len(run["training"]) for run in data["runs"])))
    for run in data["runs"]:
        columns = run["training"]
        kept = evenly(range(len(columns["step"])), rows)
        run["training"] = {name: [values[index] for index in kept] for name, values in columns.items()}


def _thin_prompts(run: RunData, allowed: int) -> None:
    """The population and its ancestors stay longest, then what was accepted; the rest is thinned evenly."""
    nodes = {node["hash"]: node for node in run["prompts"]}
    first = _lines(run["population"], nodes)
    ranks = [
        [node for node in nodes.values() if node["hash"] in first],
        [node for node in nodes.values() if node["hash"] not in first and node["accepted"]],
        [node for node in nodes.values() if node["hash"] not in first and not node["accepted"]],
    ]
    kept: set[str] = set()
    for rank in ranks:
        chosen = _reduced(rank, allowed)
        kept |= {node["hash"] for node in chosen}
        allowed -= _size(chosen)
    _note(run, "prompts", len(nodes) - len(kept))
    run["prompts"] = [node for node in nodes.values() if node["hash"] in kept]


def _lines(population: Sequence[str], nodes: Mapping[str, Prompt]) -> set[str]:
    """The population and everything that it comes from."""
    found: set[str] = set()
    for hash_ in population:
        line: str | None = hash_
        while line is not None and line in nodes and line not in found:
            found.add(line)
            line = nodes[line]["parent"]
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


def _reduced(items: Sequence[T], allowed: int) -> list[T]:
    """As many of the items as fit, spread evenly."""
    kept, size = list(items), _size(items)
    while kept and size > allowed:
        kept = evenly(items, min(len(kept) - 1, int(len(kept) * max(0, allowed) / size)))
        size = _size(kept)
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
        run["left_out"][name] = count


def _size(value: object) -> int:
    return len(encode(value).encode("utf-8", "replace"))
