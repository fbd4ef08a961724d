"""What a run of the paper's size costs on 1, 8 and 64 GPUs, where the time goes, and what reuse and overlap buy.

A simulation, not a measurement: it follows one cycle of Algorithm 1 request by request over a model of the hardware.
Inputs are data-sheet figures of an H100 SXM, the published shape of Qwen3-8B, the paper's settings (arXiv
2605.12484), and the shares of the data sheet that are assumed to be reached; all stand in `Inputs`, and `--set
name=value` changes one.

    python benchmarks/schedule.py            # writes results/schedule.json and the tables of docs/scale-out.md
"""

import argparse
import heapq
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "schedule.json"
DOCUMENT = ROOT.parent / "docs" / "scale-out.md"
BEGIN, END = "<!-- schedule: begin, made by benchmarks/schedule.py -->", "<!-- schedule: end -->"
GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Inputs:
    """Units in the names. Assumptions of ours are marked; the rest is published."""

    # NVIDIA H100 SXM data sheet, dense bfloat16
    gpu_flop_per_s: float = 989e12
    gpu_bytes_per_s: float = 3.35e12
    gpu_bytes: float = 80e9
    # Qwen3-8B: its config.json
    parameters: float = 8.19e9
    layers: int = 36
    kv_bytes_per_token: float = 2 * 36 * 8 * 128 * 2
    attention_width: float = 32 * 128
    # arXiv 2605.12484
    problems: int = 32
    group: int = 8
    population: int = 8
    steps_per_cycle: int = 6
    metric_calls: int = 960
    anchors: int = 60  # fastslow: at most half of the calls re-score the population, 960 / (2 * 8)
    minibatch: int = 8
    max_tokens: int = 8192
    reused_share: float = 0.22
    # Assumed
    context_tokens: int = 1000
    median_tokens: float = 2500.0
    sigma: float = 0.7
    memory_share: float = 0.85
    bandwidth_share: float = 0.7
    sampling_flop_share: float = 0.5
    training_flop_share: float = 0.4
    decode_overhead_s: float = 0.002
    all_reduce_s: float = 15e-6
    sync_s: float = 5.0
    reflection_s: float = 30.0
    accepted_share: float = 0.5
    proposals: int = 1


def lengths(inputs: Inputs, count: int, rng: np.random.Generator) -> np.ndarray:
    """Completion lengths in tokens: log-normal, cut off at the limit."""
    drawn = rng.lognormal(math.log(inputs.median_tokens), inputs.sigma, count)
    return np.minimum(np.ceil(drawn), inputs.max_tokens).astype(int)


def decode_s(inputs: Inputs, completion_tokens: np.ndarray, tensor_parallel: int) -> float:
    """Seconds until one engine of `tensor_parallel` GPUs has finished its completions, in the order given.

    A decoding step reads the weights and all keys and values, or multiplies, whichever takes longer. As many rows are
    active as the memory left beside the weights holds; where one finishes, the next begins.
    """
    bandwidth = inputs.gpu_bytes_per_s * inputs.bandwidth_share * tensor_parallel
    flops = inputs.gpu_flop_per_s * inputs.sampling_flop_share * tensor_parallel
    fixed = inputs.decode_overhead_s + (2 * inputs.layers * inputs.all_reduce_s if tensor_parallel > 1 else 0.0)
    weights = 2 * inputs.parameters
    seconds = weights * inputs.context_tokens * len(completion_tokens) / flops
    cached = inputs.context_tokens + float(completion_tokens.mean()) if len(completion_tokens) else 1.0
    rows = int(
        (inputs.memory_share * inputs.gpu_bytes * tensor_parallel - weights) / (cached * inputs.kv_bytes_per_token)
    )
    waiting = iter(completion_tokens.tolist())
    ends: list[tuple[int, int]] = []  # the step at which a row ends, its length
    step, held = 0, 0.0  # decoding steps done, tokens in the cache
    for tokens in itertools.islice(waiting, max(rows, 1)):
        heapq.heappush(ends, (tokens, tokens))
        held += inputs.context_tokens
    while ends:
        active, ahead = len(ends), ends[0][0] - step
        read = (weights + (held + active * ahead / 2) * inputs.kv_bytes_per_token) / bandwidth
        seconds += ahead * (fixed + max(read, weights * active / flops))
        held += active * ahead
        step += ahead
        while ends and ends[0][0] == step:
            held -= inputs.context_tokens + heapq.heappop(ends)[1]
            for following in itertools.islice(waiting, 1):
                heapq.heappush(ends, (step + following, following))
                held += inputs.context_tokens
    return seconds


def sample_s(inputs: Inputs, completion_tokens: np.ndarray, gpus: int) -> float:
    """Seconds to sample a batch on all GPUs, with the tensor parallelism that is fastest for it."""
    found = []
    for tensor_parallel in (1, 2, 4, 8):
        if tensor_parallel <= gpus:
            engines = gpus // tensor_parallel
            found.append(max(decode_s(inputs, completion_tokens[i::engines], tensor_parallel) for i in range(engines)))
    return min(found)


def update_s(inputs: Inputs, completion_tokens: np.ndarray, gpus: int) -> float:
    """Seconds for the base log-probabilities, forwards and backwards over all rollouts, every parameter trained."""
    sequences = completion_tokens + inputs.context_tokens
    attention = 4 * inputs.layers * inputs.attention_width * (sequences.astype(float) ** 2 / 2).sum()
    forward = 2 * inputs.parameters * sequences.sum() + attention
    return float((1 + 3) * forward / (gpus * inputs.gpu_flop_per_s * inputs.training_flop_share))


@dataclass(frozen=True)
class Cycle:
    """Seconds of one cycle: the search, and the T steps by their parts."""

    search_s: float
    sample_s: float
    update_s: float
    sync_s: float

    @property
    def steps_s(self) -> float:
        return self.sample_s + self.update_s + self.sync_s

    @property
    def total_s(self) -> float:
        return self.search_s + self.steps_s


def search_s(inputs: Inputs, gpus: int, rng: np.random.Generator) -> float:
    """Seconds of one prompt search: the population on the anchors in one batch, then iterations one after the other.

    An iteration samples the parents on a minibatch, asks the reflection model, samples the children on the same
    minibatch, and those that were better on the anchors.
    """
    calls = inputs.population * inputs.anchors
    seconds = sample_s(inputs, lengths(inputs, calls, rng), gpus)
    while True:
        small = inputs.proposals * inputs.minibatch
        accepted = int(rng.binomial(inputs.proposals, inputs.accepted_share))
        if calls + 2 * small > inputs.metric_calls:
            return seconds
        anchors = min(accepted * inputs.anchors, inputs.metric_calls - calls - 2 * small)
        batches = [small, small, anchors]
        seconds += inputs.reflection_s + sum(sample_s(inputs, lengths(inputs, n, rng), gpus) for n in batches if n)
        calls += sum(batches)


def cycle(inputs: Inputs, gpus: int, *, fst: bool, reuse: bool, seed: int = 0) -> Cycle:
    """One cycle, part after part, as the loop runs it."""
    rng = np.random.default_rng(seed)
    rollouts = inputs.problems * inputs.group
    sampled = updated = 0.0
    for _ in range(inputs.steps_per_cycle):
        tokens = lengths(inputs, rollouts, rng)
        fresh = tokens[round(rollouts * inputs.reused_share) :] if reuse else tokens
        sampled += sample_s(inputs, fresh, gpus)
        updated += update_s(inputs, tokens, gpus)
    searched = search_s(inputs, gpus, rng) if fst else 0.0
    return Cycle(searched, sampled, updated, inputs.steps_per_cycle * inputs.sync_s)


def overlapped_s(inputs: Inputs, gpus: int, apart: Cycle) -> float:
    """Seconds of a cycle whose search for the next one runs beside its steps, on the same GPUs.

    Lower bound: whatever is bound by the number of rows is done once more efficiently, not for nothing, so decoding
    costs at least what all rollouts of the cycle cost in one batch. The search waits while the GPUs train.
    """
    rng = np.random.default_rng(1)
    rows = inputs.steps_per_cycle * inputs.problems * inputs.group + inputs.metric_calls
    throughput = sample_s(inputs, lengths(inputs, rows, rng), gpus)
    waiting = apart.update_s + apart.sync_s
    return max(apart.steps_s, apart.search_s + waiting, throughput + waiting)


def simulate(inputs: Inputs, seeds: Sequence[int] = range(5)) -> list[dict[str, Any]]:
    """A row for each number of GPUs: seconds a step of each variant, the search's share included."""
    rows = []
    for gpus in GPUS:
        row: dict[str, Any] = {"gpus": gpus}
        for name, fst, reuse, proposals in (
            ("rl", False, False, 1),
            ("fst", True, False, 1),
            ("fst_reuse", True, True, 1),
            ("fst_reuse_8_proposals", True, True, 8),
        ):
            setting = replace(inputs, proposals=proposals)
            cycles = [cycle(setting, gpus, fst=fst, reuse=reuse, seed=seed) for seed in seeds]
            row[name] = {
                part: float(np.mean([getattr(c, part) for c in cycles])) / inputs.steps_per_cycle
                for part in ("search_s", "sample_s", "update_s", "sync_s", "total_s")
            }
            if fst and reuse:
                both = [overlapped_s(setting, gpus, c) for c in cycles]
                row[name]["overlapped_s"] = float(np.mean(both)) / inputs.steps_per_cycle
        rows.append(row)
    return rows


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: where the time goes, and what reuse and overlap buy. Seconds a training step."""
    parts = [
        "| GPUs | search | sampling | update | weight sync | FST with reuse | RL alone |",
        "|---|---|---|---|---|---|---|",
    ]
    buys = [
        "| GPUs | RL alone | FST | with reuse | and 8 proposals at once | and the search beside the "
        "steps | GPU hours |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rl, fst, reuse, wide = (row[name] for name in ("rl", "fst", "fst_reuse", "fst_reuse_8_proposals"))
        shown = [reuse[f"{part}_s"] for part in ("search", "sample", "update", "sync", "total")] + [rl["total_s"]]
        parts.append(f"| {row['gpus']} | " + " | ".join(f"{value:.0f}" for value in shown) + " |")
        last = wide["overlapped_s"]
        values = [rl["total_s"], fst["total_s"], reuse["total_s"], wide["total_s"], last]
        hours = last * 500 / 3600 * row["gpus"]
        buys.append(f"| {row['gpus']} | " + " | ".join(f"{value:.0f}" for value in values) + f" | {hours:.0f} |")
    return "\n".join([*parts, "", *buys])


def write(document: Path, text: str) -> None:
    """Put the tables between their markers."""
    page = document.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another input; nothing is written"
    )
    options = parser.parse_args()
    kinds = {field.name: type(field.default) for field in fields(Inputs)}
    changed = dict(item.split("=", 1) for item in options.set)
    inputs = Inputs(**{name: kinds[name](float(value)) for name, value in changed.items()})
    rows = simulate(inputs)
    print(tables(rows))
    if not changed:
        RESULTS.write_text(json.dumps({"inputs": asdict(inputs), "rows": rows}, indent=1) + "\n", encoding="utf-8")
        write(DOCUMENT, tables(rows))


if __name__ == "__main__":
    main()
