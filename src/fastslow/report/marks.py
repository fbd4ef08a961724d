"""How series are told apart: one colour for a method wherever it is drawn; and what the axis of rollouts says."""

from collections.abc import Sequence

from fastslow.measuring.statistics import unequal_budgets
from fastslow.methods.registry import colours
from fastslow.report.data import Series

PALETTE = 8
"""Colours of the page: `--s0` to `--s7` in assets/base.css."""


def give_colours(series: Sequence[Series]) -> None:
    """Set the colour of each series: its method's. Where a method has several, they get others that no method has."""
    known = colours()
    methods = {each["method"] for each in series}
    first = known.get(next(iter(methods)) or "", PALETTE - 1) if methods else 0
    free = [first, *(place for place in range(PALETTE) if place not in known.values())]
    free += [place for place in range(PALETTE) if place not in free]
    for index, each in enumerate(series):
        own = known.get(each["method"] or "")
        each["colour"] = free[index % PALETTE] if len(methods) == 1 or own is None else own


def rollouts_axis(sampled: Sequence[float | None]) -> str:
    """What stands on the axis of rollouts where the series did not sample the same number; "" where they did."""
    differ = unequal_budgets([value for value in sampled if value])
    return "" if differ is None else f"budgets differ: series end at {differ[0]:,.0f} to {differ[1]:,.0f}"
