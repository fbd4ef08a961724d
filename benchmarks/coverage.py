"""How often the package's intervals cover the truth, on simulated data whose truth is known.

    python benchmarks/coverage.py            # seven minutes on one core; writes results/coverage.json and .md

Every cell has a seed of its own, made from its name, so that the same numbers come out again.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastslow.experiments.asymptote import fit_asymptote
from fastslow.measuring.evaluation import expected_best
from fastslow.measuring.intervals import mean_interval, median_rank, ratio_interval
from fastslow.measuring.statistics import summarise
from fastslow.seeding import derive_seed
from fastslow.text import markdown_table

RESULTS = Path(__file__).parent / "results"
NOISES, POINTS, SEEDS = (0.0, 0.015, 0.03, 0.06), (15, 30, 60), (3, 5, 10)
SHAPES: dict[str, dict[str, float]] = {
    "plain": {},
    "seeds differ": {"spread": 0.03, "middle_spread": 0.2},
    "late": {"middle": 0.5},
    "slow": {"slope": 1.2},
}
"""A = 0.5, R0 = 0.05, Cmid at a quarter of the steps and B = 2.5, unless said otherwise here."""
SHARES, PROBLEMS, SAMPLES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98), (32, 64, 128, 256), (1, 2, 4)
LIKENESS = (0.0, 0.3, 1.0)
"""How alike the samples of a problem are: the correlation within problems; 1 where they are all right or all wrong."""
PARTS = ("asymptote", "flat", "problems", "graded", "medians", "kl", "best")
Row = dict[str, Any]


def generator(*name: Any) -> np.random.Generator:
    return np.random.default_rng(derive_seed("coverage", *map(str, name)))


# -- the asymptote -----------------------------------------------------------------------------------------------------


def simulated_curves(
    rng: np.random.Generator,
    points: int,
    noise: float,
    seeds: int,
    *,
    end: float = 0.5,
    start: float = 0.05,
    middle: float = 0.25,
    slope: float = 2.5,
    spread: float = 0.0,
    middle_spread: float = 0.0,
) -> list[list[dict[str, float]]]:
    """Curves of a sigmoid with noise in every evaluation; `spread` and `middle_spread` are how much seeds differ."""
    share = np.arange(points + 1) / points
    ends = end + spread * rng.standard_normal(seeds)
    middles = middle * np.exp(middle_spread * rng.standard_normal(seeds))
    curves = []
    for each_end, each_middle in zip(ends, middles, strict=True):
        with np.errstate(divide="ignore"):
            clean = start + (each_end - start) / (1 + (each_middle / share) ** slope)
        values = np.clip(clean + noise * rng.standard_normal(points + 1), 0, 1)
        curves.append([{"step": 5 * index, "val/mean@4": float(value)} for index, value in enumerate(values)])
    return curves


def asymptote(shape: str, seeds: int, points: int, noise: float, draws: int) -> Row:
    """Fits of curves whose asymptote is 0.5."""
    rng = generator("asymptote", shape, seeds, points, noise)
    # Without noise all draws are the same.
    draws = draws if noise or "spread" in SHAPES[shape] else 1
    found = [fit_asymptote(simulated_curves(rng, points, noise, seeds, **SHAPES[shape])) for _ in range(draws)]
    given = [each for each in found if each.refused is None]
    return {
        "shape": shape,
        "seeds": seeds,
        "points": points,
        "noise": noise,
        "draws": draws,
        "refused": draws - len(given),
        "coverage": mean(each.low <= 0.5 <= each.high for each in given),
        "value": mean(each.value for each in given),
        "width": float(np.median([each.high - each.low for each in given])) if given else None,
    }


def flat(seeds: int, points: int, noise: float, draws: int) -> Row:
    """How many curves that stay at 0.3 are given an asymptote."""
    rng = generator("flat", seeds, points, noise)
    found = [fit_asymptote(simulated_curves(rng, points, noise, seeds, end=0.3, start=0.3)) for _ in range(draws)]
    given = mean(each.refused is None for each in found)
    return {"seeds": seeds, "points": points, "noise": noise, "draws": draws, "given": given}


# -- means over problems -----------------------------------------------------------------------------------------------


def rewards(rng: np.random.Generator, share: float, problems: int, samples: int, likeness: float) -> np.ndarray:
    """(problems, samples) rewards of 0 or 1 whose mean is `share`."""
    if likeness == 0:
        rates = np.full(problems, share)
    elif likeness == 1:
        rates = (rng.random(problems) < share).astype(float)
    else:
        size = 1 / likeness - 1
        rates = rng.beta(share * size, (1 - share) * size, problems)
    return (rng.random((problems, samples)) < rates[:, None]).astype(float)


def problems_mean(share: float, problems: int, samples: int, likeness: float, draws: int) -> Row:
    rng = generator("problems", share, problems, samples, likeness)
    found = [mean_interval(rewards(rng, share, problems, samples, likeness).tolist()) for _ in range(draws)]
    return {
        "share": share,
        "problems": problems,
        "samples": samples,
        "likeness": likeness,
        "draws": draws,
        "coverage": mean(low <= share <= high for low, high in found),
        "width": mean(high - low for low, high in found),
    }


GRADED: dict[str, tuple[float, Callable[[np.random.Generator, int], np.ndarray]]] = {
    "uniform": (0.5, lambda rng, count: rng.random(count)),
    "0.1 for the form, 1 for the answer, 5 %": (
        0.095,
        lambda rng, count: np.where(rng.random(count) < 0.05, 1.0, 0.1 * (rng.random(count) < 0.47368421)),
    ),
    "a half, 10 %": (0.05, lambda rng, count: 0.5 * (rng.random(count) < 0.1)),
}
"""Rewards between 0 and 1: their mean, and how they are drawn."""


def graded(name: str, problems: int, draws: int) -> Row:
    rng, (truth, draw) = generator("graded", name, problems), GRADED[name]
    found = [mean_interval(draw(rng, problems * 2).reshape(problems, 2).tolist()) for _ in range(draws)]
    return {
        "rewards": name,
        "problems": problems,
        "draws": draws,
        "coverage": mean(low <= truth <= high for low, high in found),
        "width": mean(high - low for low, high in found),
    }


# -- medians over seeds ------------------------------------------------------------------------------------------------

DISTRIBUTIONS: dict[str, tuple[float, Callable[[np.random.Generator, int], np.ndarray]]] = {
    "normal": (0.0, lambda rng, count: rng.standard_normal(count)),
    "skewed": (math.log(2), lambda rng, count: rng.exponential(size=count)),
    "two groups": (0.0, lambda rng, count: np.where(rng.random(count) < 0.5, -1.0, 1.0) + rng.normal(0, 0.4, count)),
    "a third never": (0.75, lambda rng, count: np.where((u := rng.random(count)) < 2 / 3, u * 1.5, np.inf)),
}
"""Median, and how values are drawn; "never" is infinite."""


def seeds_median(name: str, seeds: int, draws: int) -> Row:
    rng, (truth, draw) = generator("median", name, seeds), DISTRIBUTIONS[name]
    found = [summarise(draw(rng, seeds).tolist()) for _ in range(draws)]
    covered = mean(each.low <= truth <= each.high for each in found)
    return {"values": name, "seeds": seeds, "draws": draws, "said": median_rank(seeds).coverage, "coverage": covered}


# -- the KL, and best@k ------------------------------------------------------------------------------------------------

KLS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "log-normal": lambda rng, count: 0.1 * np.exp(rng.normal(0, 1, count) - 0.5),
    "gamma": lambda rng, count: rng.gamma(0.5, 0.2, count),
}
"""KL a token of completions, with a mean of 0.1; completions have 4 to 12 tokens."""


def kl(name: str, problems: int, draws: int) -> Row:
    rng, covered = generator("kl", name, problems), []
    for _ in range(draws):
        tokens = rng.integers(4, 13, problems).astype(float)
        low, high = ratio_interval((KLS[name](rng, problems) * tokens).tolist(), tokens.tolist(), seed=0)
        covered.append(low <= 0.1 <= high)
    return {"kl": name, "problems": problems, "draws": draws, "coverage": mean(covered)}


def best_of(masked: float, problems: int, k: int = 4) -> Row:
    """best@k of problems that are solved in 30 % of the samples, with a share of the rollouts masked."""
    rng = generator("best", masked, k)
    solved, kept = rng.random((problems, k)) < 0.3, rng.random((problems, k)) >= masked
    groups = [row[mask].astype(float).tolist() for row, mask in zip(solved, kept, strict=True)]
    return {
        "masked": masked,
        "truth": 1 - 0.7**k,
        "problems": problems,
        "of the rest": mean(max(g) for g in groups if g),
        "now": mean(expected_best(group, k) for group in groups if len(group) >= k),
        "counted": mean(len(group) >= k for group in groups),
    }


# -- everything --------------------------------------------------------------------------------------------------------


def mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def measure(names: Sequence[str], scale: float = 1.0) -> dict[str, list[Row]]:
    """The cells of the named parts. `scale` multiplies the number of draws in each."""

    def draws(count: int) -> int:
        return max(1, round(count * scale))

    plain = [("plain", seeds, noise) for seeds in SEEDS for noise in NOISES]
    others = [(shape, 5, noise) for shape in list(SHAPES)[1:] for noise in NOISES[2:]]
    moments = [
        (p, n, k, alike) for p in SHARES for n in PROBLEMS for k in SAMPLES for alike in LIKENESS[: 1 if k == 1 else 3]
    ]
    parts: dict[str, Callable[[], list[Row]]] = {
        "asymptote": lambda: [asymptote(*c[:2], points, c[2], draws(200)) for c in plain + others for points in POINTS],
        "flat": lambda: [flat(s, p, noise, draws(200)) for s in SEEDS for noise in NOISES[1:] for p in POINTS],
        "problems": lambda: [problems_mean(*cell, draws(1000)) for cell in moments],
        "graded": lambda: [graded(name, n, draws(1000)) for name in GRADED for n in PROBLEMS],
        "medians": lambda: [seeds_median(name, n, draws(4000)) for name in DISTRIBUTIONS for n in range(3, 11)],
        "kl": lambda: [kl(name, n, draws(600)) for name in KLS for n in PROBLEMS],
        "best": lambda: [best_of(masked, draws(20000)) for masked in (0.0, 0.1, 0.3, 0.5)],
    }
    return {name: parts[name]() for name in names}


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def write_up(found: dict[str, list[Row]]) -> str:
    """The tables as Markdown."""
    text = [
        "# How often the intervals cover the truth",
        "",
        "Made by `python benchmarks/coverage.py` from simulated data.",
        "",
    ]
    text += [
        "## The asymptote of a learning curve",
        "",
        "True value 0.5. Each cell: coverage of the 95 % interval; mean of the fitted values; median width; refused.",
        "",
        *_grid(found["asymptote"], ("shape", "seeds", "noise"), "points", _asymptote_cell, "evaluations"),
        "Plain: R0 = 0.05, Cmid at a quarter of the steps, B = 2.5. Seeds differ: A by 0.03 and Cmid by a fifth "
        "(standard deviations). Late: Cmid at half of the steps. Slow: B = 1.2. In the last two the curve ends far "
        "below A, and the interval is for an extrapolation.",
        "",
        "Curves that stay at 0.3, and are given an asymptote all the same:",
        "",
        *_grid(found["flat"], ("seeds", "noise"), "points", lambda row: percent(row["given"]), "evaluations"),
        "## Means of rewards over problems",
        "",
        "Coverage of the 95 % interval of rewards of 0 or 1, the lowest over how alike a problem's samples are "
        f"(correlation {', '.join(map(str, LIKENESS))}); behind it the mean width.",
        "",
        *_grid(_lowest(found["problems"]), ("share", "samples"), "problems", _coverage_and_width, "problems"),
        "Rewards between 0 and 1, two samples a problem:",
        "",
        *_grid(found["graded"], ("rewards",), "problems", _coverage_and_width, "problems"),
        "## Medians over seeds",
        "",
        "What is said, and what was measured for values of several distributions.",
        "",
        *_grid(found["medians"], ("seeds", "said"), "values", lambda row: percent(row["coverage"]), "values"),
        "## The KL to the base",
        "",
        *_grid(found["kl"], ("kl",), "problems", lambda row: percent(row["coverage"]), "problems"),
        "## best@4 with masked rollouts",
        "",
        "Each sample is right in 30 % of the cases. The best of what is left is what best@4 was before.",
        "",
        *markdown_table(
            ["masked", "truth", "best of what is left", "best@4", "problems that count"],
            [
                [
                    percent(row["masked"], 0),
                    f"{row['truth']:.3f}",
                    f"{row['of the rest']:.3f}",
                    f"{row['now']:.3f}",
                    percent(row["counted"], 0),
                ]
                for row in found["best"]
            ],
        ),
    ]
    return "\n".join(text).rstrip() + "\n"


def _asymptote_cell(row: Row) -> str:
    if row["coverage"] is None:
        return "all refused"
    refused = percent(row["refused"] / row["draws"], 0)
    return f"{percent(row['coverage'])}; {row['value']:.3f}; {row['width']:.3f}; {refused}"


def _coverage_and_width(row: Row) -> str:
    return f"{percent(row['coverage'])} ({row['width']:.3f})"


def _lowest(rows: Sequence[Row]) -> list[Row]:
    """Of cells that differ in `likeness` alone, the one with the lowest coverage."""
    found: dict[Any, Row] = {}
    for row in rows:
        key = (row["share"], row["samples"], row["problems"])
        if key not in found or row["coverage"] < found[key]["coverage"]:
            found[key] = row
    return list(found.values())


def _grid(rows: Sequence[Row], down: Sequence[str], across: str, cell: Callable[[Row], str], name: str) -> list[str]:
    """A table: what is in `down` names its rows, `across` its columns."""
    columns = list(dict.fromkeys(row[across] for row in rows))
    lines: dict[tuple[Any, ...], dict[Any, str]] = {}
    for row in rows:
        lines.setdefault(tuple(row[key] for key in down), {})[row[across]] = cell(row)
    suffix = "" if across == "values" else f" {name}"
    body = [
        [
            *(percent(k) if n == "said" else str(k) for k, n in zip(key, down, strict=True)),
            *(cells.get(column, "-") for column in columns),
        ]
        for key, cells in lines.items()
    ]
    return markdown_table([*down, *(f"{column}{suffix}" for column in columns)], body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="more draws, or fewer to try it out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; the others stay")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "coverage.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found |= measure(options.only, options.scale)
    lines = {name: ",\n".join(map(json.dumps, rows)) for name, rows in found.items()}
    text = ",\n".join(f'"{name}": [\n{rows}\n]' for name, rows in lines.items())
    file.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
    if set(found) == set(PARTS):
        (options.results / "coverage.md").write_text(write_up(found), encoding="utf-8")


if __name__ == "__main__":
    main()
