"""What the stored results say of each claim, place by place: one function a claim, which gives a finding for every
place where its runs are planned, run or not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fastslow.experiments.arms import ARMS
from fastslow.experiments.records import Line
from fastslow.experiments.tables import select
from fastslow.lab import worlds
from fastslow.measuring.statistics import Curve, Reached, Summary, accuracy, final_accuracy, reached, summarise
from fastslow.reproduce.evidence import (
    LAB,
    NOT_RUN,
    REAL,
    STARTS,
    UNTESTABLE,
    Finding,
    Place,
    at_both_rates,
    by_seed,
    differences,
    judged,
    lines_of,
    middle,
    number,
    pairs,
    places,
    ratio,
    together,
)

SHARE, MATCHED, MOVED = 0.95, 0.9, 0.1
"""Of an accuracy at the end: the level that methods are timed to, and the one that drift is compared at;
and the accuracy at which a zero floor is left.
"""
ZERO_FLOORS = ("json", "letter_counting", "tool_protocol")
"""Tasks of the real model that are planned as such."""
LOW_FLOORS = ("boxed", "star_graph")
"""Tasks that the base model solves now and then, more rarely than a small validation set shows."""


def _finding(place: Place, seeds: int, cells: Sequence[str], verdict: str, why: str = "") -> Finding:
    return Finding(place.world, place.task, place.page, seeds, tuple(cells), verdict, why)


def compared(results: Path, first: str, second: str, look: Callable[[Place], Finding], width: int) -> list[Finding]:
    """What each place says where two arms are planned; not run yet where one of them has no run."""
    found = []
    for place in places(results):
        if {first, second} <= set(place.planned):
            both = place.curves(first).keys() & place.curves(second).keys()
            found.append(look(place) if both else _finding(place, 0, ["-"] * width, NOT_RUN))
    return found


# -- samples, seconds, ceiling, drift ----------------------------------------------------------------------------------


def _untimed(place: Place, level: float) -> str:
    """Why there is nothing to time to a level; "" where there is."""
    rl = place.curves("rl").values()
    start, end = (summarise([value(curve) for curve in rl]).median for value in (_start, final_accuracy))
    if end - start < STARTS:
        return f"RL alone gains {end - start:.3f}"
    if any(_start(curve) >= level for curve in [*rl, *place.curves("fst").values()]):
        return "the start is there already"
    return ""


def _needed(place: Place, level: float) -> dict[str, dict[int, Reached | None]]:
    return {arm: {seed: reached(curve, level) for seed, curve in place.curves(arm).items()} for arm in ("fst", "rl")}


def _ratios(there: Mapping[str, Mapping[int, Reached | None]], value: Callable[[Reached], float]) -> Summary:
    """FST over RL alone, of the seeds on which one of them got there."""
    found = [pair for pair in pairs(there["fst"], there["rl"]) if any(pair)]
    return summarise([ratio(*(None if each is None else value(each) for each in pair)) for pair in found])


def fewer_samples(place: Place) -> Finding:
    """Rollouts to a share of what RL alone reaches."""
    level = SHARE * summarise(list(place.ends("rl").values())).median
    if why := _untimed(place, level):
        return _finding(place, len(place.ends("rl")), [f"{level:.2f}", "-", "-", "-"], UNTESTABLE, why)
    there = _needed(place, level)
    found = _ratios(there, lambda each: each.rollouts)
    cells = [middle([_rollouts(each) for each in there[arm].values()], 0) for arm in ("fst", "rl")]
    return _finding(place, found.count, [f"{level:.2f}", *cells, number(found, 2)], judged(found, below=1.0))


def half(place: Place) -> Finding:
    """Rollouts and seconds to a share of what the better one reaches."""
    best = max(summarise(list(place.ends(arm).values())).median for arm in ("fst", "rl"))
    level = SHARE * best
    if why := _untimed(place, level):
        return _finding(place, len(place.ends("rl")), [f"{level:.2f}", "-", "-"], UNTESTABLE, why)
    there = _needed(place, level)
    rollouts, seconds = (_ratios(there, value) for value in (lambda each: each.rollouts, lambda each: each.seconds))
    verdict = together([judged(rollouts, below=0.5), judged(seconds, below=0.5)])
    return _finding(place, rollouts.count, [f"{level:.2f}", number(rollouts, 2), number(seconds, 2)], verdict)


def above(place: Place, arm: str, other: str, *, under: tuple[str, str] = ("both", "both")) -> Finding:
    """Whether an arm ends above another one on the test split. `under`: `weights` for an arm under the seed prompt."""
    one, two = place.test(arm, under[0]), place.test(other, under[1])
    found = differences(one, two)
    if not found.count:
        return _finding(place, 0, ["-", "-", "-"], NOT_RUN)
    return _finding(
        place, found.count, [middle(one.values()), middle(two.values()), number(found)], judged(found, above=0.0)
    )


def less_drift(place: Place) -> Finding:
    """KL to the base where both first reach an accuracy."""
    level = MATCHED * min(summarise(list(place.ends(arm).values())).median for arm in ("fst", "rl"))
    if why := _untimed(place, level):
        return _finding(place, len(place.ends("rl")), [f"{level:.2f}", *["-"] * 5], UNTESTABLE, why)
    there = _needed(place, level)
    reaching = [(one, two) for one, two in pairs(there["fst"], there["rl"]) if one and two]
    found = summarise([one.kl / two.kl for one, two in reaching if two.kl and not math.isnan(one.kl / two.kl)])
    own = [middle([None if each is None else each.kl for each in there[arm].values()], 3) for arm in ("fst", "rl")]
    at_seed = [each.evaluation.seed_kl for each in there["fst"].values() if each]
    seed = [each for each in at_seed if each is not None]
    whole = summarise(_whole_answers(reaching))
    cells = [
        f"{level:.2f}",
        *own,
        number(found, 2),
        number(whole, 2) if whole.count else "-",
        middle(seed) if seed else "-",
    ]
    why = "" if found.count else "no seed has a KL of both at that level"
    return _finding(place, found.count, cells, judged(found, below=1.0) if found.count else UNTESTABLE, why)


def _whole_answers(reaching: Sequence[tuple[Reached, Reached]]) -> list[float]:
    """FST over RL alone: the KL summed over a completion, where it was measured."""
    found = [(one.evaluation.kl_completion, two.evaluation.kl_completion) for one, two in reaching]
    return [one / two for one, two in found if one is not None and two]


# -- what is in the weights, and what only a prompt can find
# -------------------------------------------------------------


def decomposed(place: Place) -> Finding:
    """Both together against each alone."""
    parts = [place.test("fst", what) for what in ("both", "weights", "prompt")]
    gains = [differences(parts[0], part) for part in parts[1:]]
    if not all(gain.count for gain in gains):
        return _finding(place, 0, ["-"] * 5, NOT_RUN)
    cells = [*(middle(part.values()) for part in parts), *(number(gain) for gain in gains)]
    return _finding(place, gains[0].count, cells, together(judged(gain, above=0.0) for gain in gains))


def weights_alone(place: Place) -> Finding:
    """FST's weights under the seed prompt, against the base model there."""
    weights, base = place.test("fst", "weights"), {seed: _start(curve) for seed, curve in place.curves("fst").items()}
    found = differences(weights, base)
    if not found.count:
        return _finding(place, 0, ["-"] * 3, NOT_RUN)
    cells = [middle(weights.values()), middle(base.values()), number(found)]
    return _finding(place, found.count, cells, judged(found, above=0.0))


def _zero_floor(place: Place) -> Finding | None:
    """None where the floor is not zero."""
    starts = [_start(curve) for arm in ("fst", "rl") for curve in place.curves(arm).values()]
    if any(starts) or place.task in LOW_FLOORS:
        return None
    there = _needed(place, MOVED)
    cells = [middle([_rollouts(each) for each in there[arm].values()], 0) for arm in ("fst", "rl")]
    # Where neither moves, FST did not: that counts against the claim.
    found = summarise([ratio(*(_rollouts(each) for each in pair)) for pair in pairs(there["fst"], there["rl"])])
    return _finding(place, found.count, [*cells, number(found, 2)], judged(found, below=1.0))


def _rollouts(there: Reached | None) -> float | None:
    return None if there is None else there.rollouts


def zero_floors(results: Path) -> list[Finding]:
    """Who leaves a floor of zero, and when."""
    found = []
    for place in places(results):
        if place.curves("fst") and place.curves("rl"):
            found += [each] if (each := _zero_floor(place)) else []
        elif place.task in ZERO_FLOORS:
            found.append(_finding(place, 0, ["-"] * 3, NOT_RUN))
    return found


def _start(curve: Curve) -> float:
    return accuracy(curve[0])


# -- several tasks one after the other ---------------------------------------------------------------------------------


def _elsewhere(
    results: Path, place: str, first: dict[int, float], second: dict[int, float], more: Sequence[str]
) -> Finding:
    """Whether the first values lie above the second ones, of an experiment of the lab."""
    found = differences(first, second)
    page = results / "lab" / "README.md"
    if not found.count:
        return Finding(LAB, place, page, 0, ("-",) * (3 + len(more)), NOT_RUN)
    cells = (middle(first.values()), middle(second.values()), *more, number(found))
    return Finding(LAB, place, page, found.count, cells, judged(found, above=0.0))


def _untested(results: Path, why: str, width: int) -> Finding:
    return Finding(REAL, "all tasks", results / "real_model" / "README.md", 0, ("-",) * width, UNTESTABLE, why)


def second_task(results: Path) -> list[Finding]:
    """Plain RL on a second task, from what each method left."""
    lines = lines_of(results, "compare")
    after = {label: by_seed(select(lines, after=label), _end) for label in ("fst", "rl", "base")}
    place = f"{worlds.SECOND} after {worlds.FIRST}"
    base = middle(after["base"].values()) if after["base"] else "-"
    return [
        _elsewhere(results, place, after["fst"], after["rl"], [base]),
        _untested(results, "no section trains a second task", 4),
    ]


def stream(results: Path) -> list[Finding]:
    """Later phases of one uninterrupted run."""
    lines, found = lines_of(results, "continual"), []
    for number_, task in enumerate(worlds.STREAM[1:], start=2):
        ends = {
            method: by_seed(select(lines, method=method), lambda line: _after(line["curve"], number_, task))  # noqa: B023
            for method in ("fst", "rl")
        }
        found.append(_elsewhere(results, f"{task} in phase {number_}", ends["fst"], ends["rl"], []))
    return [*found, _untested(results, "no section trains a stream", 3)]


def _after(curve: Curve, phase: int, task: str) -> float:
    """Accuracy on a task at the end of a phase of the stream, whose phases have one length."""
    step = curve[-1]["step"] // len(worlds.STREAM) * phase
    return accuracy(next(point for point in curve if point["step"] == step), f"lab-{task}")


def _end(line: Line) -> float:
    return final_accuracy(line["curve"])


# -- distillation, ablations, and what goes beyond the paper
# -------------------------------------------------------------


def distilled(results: Path) -> list[Finding]:
    """Between prompts alone and FST."""
    beyond, compared = lines_of(results, "beyond"), lines_of(results, "compare")
    mine = by_seed(select(beyond, value="distilled"), _end)
    gepa = by_seed(select(compared, task=worlds.ABLATED, method="prompt"), _end)
    found = [_elsewhere(results, f"{worlds.ABLATED}: above GEPA alone", mine, gepa, [])]
    found.append(
        _elsewhere(results, f"{worlds.ABLATED}: below FST", by_seed(select(beyond, value="default"), _end), mine, [])
    )
    for place in places(results):
        if "distill" in place.planned:
            found += [
                replace(
                    above(place, "distill", "prompt", under=("weights", "both")),
                    place=f"{place.task}: above GEPA alone",
                ),
                replace(above(place, "fst", "distill", under=("both", "weights")), place=f"{place.task}: below FST"),
            ]
    return found


ABLATED: tuple[tuple[str, str, str, str], ...] = (
    ("K = 8 above K = 1", "K", "8", "1"),
    ("problem baseline above prompt baseline", "baseline", "problem", "prompt"),
    ("light above full recipe", "recipe", "light", "full"),
)


def ablations(results: Path) -> list[Finding]:
    """One setting at a time."""
    lines = lines_of(results, "ablate")
    found = []
    for place, key, value, other in ABLATED:
        ends = [by_seed(select(lines, key=key, value=each), _end) for each in (value, other)]
        found.append(_elsewhere(results, place, ends[0], ends[1], []))
    return [*found, _untested(results, "no section varies a setting", 3)]


def reuse(results: Path) -> list[Finding]:
    """Seconds a step with and without reuse."""
    lines = lines_of(results, "ablate")
    took = {
        value: by_seed(
            select(lines, key="reuse", value=value), lambda line: line["totals"]["seconds"] / line["totals"]["steps"]
        )
        for value in ("on", "off")
    }
    found = summarise([one / two for one, two in pairs(took["on"], took["off"])])
    page = results / "lab" / "README.md"
    if not found.count:
        return [Finding(LAB, worlds.ABLATED, page, 0, ("-",) * 3, NOT_RUN)]
    cells = (middle(took["on"].values()), middle(took["off"].values()), number(found, 2))
    finding = Finding(LAB, worlds.ABLATED, page, found.count, cells, judged(found, below=1.0))
    return [finding, _untested(results, "no section turns it off", 3)]


def orders(results: Path) -> list[Finding]:
    """FST less each other order and option."""
    found = []
    for place in places(results):
        for arm in place.planned if place.world == REAL else ():
            if arm not in ("fst", "rl", "prompt", "distill"):
                found.append(replace(above(place, "fst", arm), place=f"{place.task}: {ARMS[arm].title}"))
    beyond = lines_of(results, "beyond")
    default = by_seed(select(beyond, value="default"), _end)
    for label, (title, _, _) in worlds.BEYOND.items():
        if label not in ("default", "distilled", "rl"):
            mine = by_seed(select(beyond, value=label), _end)
            found.append(_elsewhere(results, title, default, mine, []))
    return found


def learning_rates(results: Path) -> list[Finding]:
    """The learning rate that is taken, less the higher one that the search could not tell from it."""
    found = []
    for taken, higher in at_both_rates(results):
        for arm in higher.planned:
            here = f"{taken.task}: {ARMS[arm].title}"
            one, two = taken.test(arm), higher.test(arm)
            gap = differences(one, two)
            if not gap.count:
                found.append(Finding(REAL, here, taken.page, 0, ("-",) * 3, NOT_RUN))
                continue
            cells = (middle(one.values()), middle(two.values()), number(gap))
            moves = any([*one.values(), *two.values()])
            verdict = judged(gap, above=0.0) if moves else UNTESTABLE
            found.append(Finding(REAL, here, higher.page, gap.count, cells, verdict))
    return found
