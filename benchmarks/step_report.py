"""From the results of step_vs_trl.py to its tables, in a file of their own and in docs/performance.md."""

import json
import statistics
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- step_vs_trl: begin, made by benchmarks/step_vs_trl.py --report -->", "<!-- step_vs_trl: end -->"
NAMES = {"trl": "TRL", "trl_fastest": "TRL, fastest", "fastslow": "fastslow", "plain": "fastslow, plain"}

TIME_HEADER = ["case", "precision", "threads", "rollouts", "TRL s", "TRL fastest s", "fastslow s", "plain s"]
RATIO_HEADER = [
    "case",
    "precision",
    "threads",
    "TRL / fastslow",
    "TRL fastest / fastslow",
    "limit s",
    "limit / fastslow",
    "unshared limit s",
]
RATE_HEADER = [
    "case",
    "precision",
    "threads",
    "side",
    "sampling tok/s",
    "training tok/s",
    "sampling reaches",
    "training reaches",
    "peak GiB",
]
PRODUCT_HEADER = [
    "case",
    "precision",
    "threads",
    "TFLOP a step",
    "unshared TFLOP",
    "GFLOP/s",
    "at 64 rows",
    "steps",
    "clock",
]


class Measurement:
    """One record of the results file: a processor, a case, a precision, a number of threads."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.sides = {name: record["sides"][name] for name in NAMES if record["sides"].get(name, {}).get("steps")}
        workload = record["workload"]
        rollouts = workload["problems"] * workload["group"]
        self.name = [record["case"], record["precision"], str(record["threads"])]
        self.key = [*self.name, str(rollouts)]

    def times(self, side: str, part: str) -> list[float]:
        """Seconds of each measured step; `part` is sampling, training or step."""
        suffix = "_cpu_s" if self.record["clock"] == "cpu" else "_s"
        parts = ["sampling", "training"] if part == "step" else [part]
        return [sum(step[name + suffix] for name in parts) for step in self.sides[side]["steps"]]

    def median(self, side: str, part: str = "step") -> float:
        return statistics.median(self.times(side, part))

    def rate(self, kind: str) -> float | None:
        """Median FLOP/s of the machine's matrix products, or None where they were not measured."""
        steps = self.record["sides"].get("products", {}).get("steps")
        return statistics.median(step[kind] for step in steps) if steps else None

    def limit_s(self, sharing: str = "shared") -> float | None:
        rate = self.rate("training")
        return self.record["flops"][sharing] / rate if rate else None

    def time_row(self) -> list[str]:
        return [*self.key, *(self._spread(side) for side in NAMES)]

    def ratio_row(self) -> list[str]:
        limit, unshared = self.limit_s(), self.limit_s("unshared")
        share = limit / self.median("fastslow") if limit and "fastslow" in self.sides else None
        ratios = [self._ratio(side) for side in ("trl", "trl_fastest")]
        return [*self.name, *ratios, _number(limit), _percent(share), _number(unshared)]

    def rate_rows(self) -> list[list[str]]:
        return [self._rate_row(side) for side in self.sides]

    def product_row(self) -> list[str]:
        flops, counts = self.record["flops"], "/".join(str(len(side["steps"])) for side in self.sides.values())
        rates = [rate / 1e9 if rate else None for rate in (self.rate("training"), self.rate("decoding"))]
        work = [_number(flops["shared"] / 1e12), _number(flops["unshared"] / 1e12)]
        return [*self.name, *work, *map(_number, rates), counts, self.record["clock"]]

    def _rate_row(self, side: str) -> list[str]:
        steps, limit = self.sides[side]["steps"], self.limit_s()
        tokens = steps[0]["completion_tokens"]
        sampling, training = self.median(side, "sampling"), self.median(side, "training")
        # Of the four forward passes' worth of a step, one is sampling and three are training.
        reached = [limit / 4 / sampling, limit * 3 / 4 / training] if limit else [None, None]
        peak = max(step["peak_rss_bytes"] for step in steps) / 2**30
        speeds = [f"{tokens / seconds:.0f}" for seconds in (sampling, training)]
        return [*self.name, NAMES[side], *speeds, *map(_percent, reached), f"{peak:.1f}"]

    def _spread(self, side: str) -> str:
        if side not in self.sides:
            return "-"
        times = self.times(side, "step")
        return f"{_number(statistics.median(times))} ({_number(min(times))} to {_number(max(times))})"

    def _ratio(self, side: str) -> str:
        if side not in self.sides or "fastslow" not in self.sides:
            return "-"
        return f"{self.median(side) / self.median('fastslow'):.2f}"


def write_report(results: Path) -> str:
    """Write the tables beside the results and, where they are the repository's own, into the document; returns them."""
    records = json.loads(results.read_text(encoding="utf-8"))
    groups = groupby(sorted(records, key=_order), key=_processor)
    text = "\n\n".join(_section(name, [Measurement(records[key]) for key in keys]) for name, keys in groups)
    results.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    if DOCUMENT.exists() and results.resolve().is_relative_to(DOCUMENT.parent.parent):
        _replace_block(DOCUMENT, text)
    return text


def _section(processor: str, measurements: Sequence[Measurement]) -> str:
    """The tables of one processor."""
    cores = max(m.record["machine"]["cores"] for m in measurements)
    return "\n\n".join(
        [
            f"**{processor}**, {cores} cores:",
            _table(TIME_HEADER, [m.time_row() for m in measurements]),
            _table(RATIO_HEADER, [m.ratio_row() for m in measurements]),
            _table(RATE_HEADER, [row for m in measurements for row in m.rate_rows()]),
            _table(PRODUCT_HEADER, [m.product_row() for m in measurements]),
        ]
    )


def _processor(key: str) -> str:
    return key.split("/")[0]


def _order(key: str) -> tuple[str, int, str]:
    """Processor by processor, most threads first: those are the numbers that count."""
    processor, case, precision, threads = key.split("/")
    return processor, -int(threads), f"{case}/{precision}"


def _replace_block(document: Path, text: str) -> None:
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document.name} lacks the lines {BEGIN!r} and {END!r} around its tables")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines: list[list[str]] = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _or_dash(render: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "-" if value is None else render(value)


_number = _or_dash(lambda value: f"{value:.3g}")
_percent = _or_dash(lambda value: f"{value:.0%}")
