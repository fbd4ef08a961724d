"""Plots and the report's page draw a method in one colour, and an axis of rollouts says where budgets differ."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastslow.experiments import plots
from fastslow.experiments.plots import ACCURACY, COLOURS, ROLLOUTS, STEPS, draw
from fastslow.methods.registry import colours, titles
from fastslow.report.page import asset

CURVE = [{"step": at, "rollouts": 100 * at, "seconds": float(at), "val/mean@4": 0.1 * at} for at in range(4)]


def test_the_palette_of_plots_is_that_of_the_page() -> None:
    light = asset("base.css").partition(":root[data-theme")[0]
    assert re.findall(r"--s\d: (#\w{6})", light) == list(COLOURS)


def drawn(monkeypatch: pytest.MonkeyPatch, curves: dict[str, Any], axes: Any, path: Path) -> tuple[dict[str, str], str]:
    """The colour of each series of a plot, and what stands on its horizontal axis."""
    found: dict[str, Any] = {}
    plt = plots._pyplot()

    def keep(figure: Any) -> None:
        axis = figure.axes[0]
        found["colours"] = {line.get_label(): line.get_color() for line in axis.lines if line.get_label()[0] != "_"}
        found["axis"] = axis.get_xlabel()

    monkeypatch.setattr(plt, "close", keep)
    draw(curves, [axes], "a title", path)
    return {label.rpartition(" ")[0]: colour for label, colour in found["colours"].items()}, found["axis"]


def test_a_method_has_its_colour_whatever_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_title = {title: COLOURS[place] for title, place in zip(titles().values(), colours().values(), strict=True)}
    assert len(set(by_title.values())) == len(by_title)
    curves = {"RL alone": [CURVE], "something else": [CURVE], "FST": [CURVE]}
    found, axis = drawn(monkeypatch, curves, (STEPS, ACCURACY), tmp_path / "plot.png")
    assert (found["FST"], found["RL alone"]) == (by_title["FST"], by_title["RL alone"])
    assert found["something else"] not in (by_title["FST"], by_title["RL alone"])
    assert axis == "RL steps"


@pytest.mark.parametrize(("longer", "words"), [(CURVE[:2], "budgets differ: series end at 100 to 300"), (CURVE, "")])
def test_the_axis_of_rollouts_says_where_budgets_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longer: Any, words: str
) -> None:
    curves = {"FST": [CURVE], "RL alone": [longer]}
    _, axis = drawn(monkeypatch, curves, (ROLLOUTS, ACCURACY), tmp_path / "plot.png")
    assert axis.startswith(ROLLOUTS[0]) and axis.removeprefix(ROLLOUTS[0]).strip() == words
