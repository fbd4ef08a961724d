"""What was tried to make a step faster on a CPU: each part of the step, as it was and otherwise,
by turns in one process.

    python benchmarks/step_parts.py --model DIR [--threads 2] [--precision bfloat16]
    python benchmarks/step_parts.py --report

The results go to results/step_parts.json, and the table into docs/performance.md.
"""

import argparse
import json
import mmap
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from arithmetic import Network
from fastslow_step import FastslowSide
from step_vs_trl import machine
from torch.nn.functional import linear, scaled_dot_product_attention
from workload import Settings, Workload

from fastslow.slow.local import attention, forest
from fastslow.slow.samplers import packed

HERE = Path(__file__).resolve().parent
RESULTS, DOCUMENT = HERE / "results" / "step_parts.json", HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- step_parts: begin, made by benchmarks/step_parts.py -->", "<!-- step_parts: end -->"
ROWS, PACK_ROWS = 64, 2048
NEVER = 2**62
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Variants = dict[str, Callable[[], Any]]


def alternate(variants: Variants, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each variant; they take turns, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            started = clock()
            run()
            if turn:
                times[name].append(clock() - started)
    return {name: statistics.median(found) for name, found in times.items()}


# -- the parts ---------------------------------------------------------------------------------------------------------


def sampling(side: FastslowSide) -> Variants:
    """All rollouts of case a, drawn with ordinary and with packed weights."""

    def ordinary() -> None:
        with patch.object(packed, "FEWEST_WEIGHTS", NEVER):
            side._rollouts()

    return {"ordinary weights": ordinary, "packed weights": side._rollouts}


def products(layers: Sequence[torch.nn.Linear], rows: int) -> Variants:
    """Every layer of the model and its head once, forward."""
    weights = [layer.weight.detach() for layer in layers]
    inputs = {width: torch.randn(rows, width).to(weights[0].dtype) for width in {w.shape[1] for w in weights}}
    ready = [torch.ops.mkldnn._reorder_linear_weight(weight, rows) for weight in weights]
    return {
        "torch": lambda: [linear(inputs[w.shape[1]], w) for w in weights],
        "packed": lambda: [packed._multiply(p, None, inputs[w.shape[1]]) for p, w in zip(ready, weights, strict=True)],
    }


def input_gradients(shapes: Sequence[tuple[int, int]], dtype: torch.dtype) -> Variants:
    """The gradient of a layer's input: `gradient @ weight`."""
    pairs = [(torch.randn(PACK_ROWS, o).to(dtype), torch.randn(o, i).to(dtype)) for i, o in shapes]
    pack = torch.ops.mkldnn._reorder_linear_weight
    return {
        "torch": lambda: [gradient @ weight for gradient, weight in pairs],
        "packed each time": lambda: [packed._multiply(pack(w.t(), PACK_ROWS), None, g) for g, w in pairs],
    }


def weight_gradients(shapes: Sequence[tuple[int, int]], dtype: torch.dtype) -> Variants:
    """The gradient of a weight, added to that of the micro-batch before."""
    pairs = [(torch.randn(PACK_ROWS, o).to(dtype), torch.randn(PACK_ROWS, i).to(dtype)) for i, o in shapes]
    sums = [torch.zeros(o, i, dtype=dtype) for i, o in shapes]
    return {
        "product, then sum": lambda: [s.add_(g.t() @ x) for s, (g, x) in zip(sums, pairs, strict=True)],
        "product into the sum": lambda: [s.addmm_(g.t(), x) for s, (g, x) in zip(sums, pairs, strict=True)],
    }


def block_attention(side: FastslowSide, config: Any) -> Variants:
    """One layer's attention over a micro-batch of case a, forward and backward."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    pack = max(forest.pack_forests(given_sequences(side), PACK_ROWS), key=len)
    dtype = side.engine.policy.dtype
    with attention.attending(pack, torch.device("cpu"), dtype):
        blocks = attention.ACTIVE_BLOCKS.get() or []
    nodes = [torch.randn(1, h, len(pack), size).to(dtype).requires_grad_() for h in (heads, kv_heads, kv_heads)]

    def by_autograd() -> torch.Tensor:
        query, key, value = (n.view(kv_heads, -1, len(pack), size) for n in nodes)
        parts = [
            scaled_dot_product_attention(
                query[:, :, b.start : b.stop],
                key[:, :, b.keys].expand(-1, heads // kv_heads, -1, -1),
                value[:, :, b.keys].expand(-1, heads // kv_heads, -1, -1),
                attn_mask=b.mask,
            )
            for b in blocks
        ]
        return torch.cat(parts, dim=2)

    def in_one_tensor() -> None:
        attention._attend_in_blocks(*nodes, blocks, None).sum().backward()

    def by_torch() -> None:
        with patch.object(attention, "by_products", lambda query: False):
            in_one_tensor()

    ours: Variants = {"torch's, gradients in one tensor": by_torch}
    if attention.by_products(nodes[0]):
        ours["plain products"] = in_one_tensor
    return {"torch's, gradients of slices": lambda: by_autograd().sum().backward(), **ours}


def optimisers(model: torch.nn.Module) -> Variants:
    """One step of AdamW on tensors of the model's shapes."""
    made = {}
    for name, keywords in {"one tensor at a time": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        parameters = [torch.nn.Parameter(torch.randn(p.shape)) for p in model.parameters()]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        made[name] = torch.optim.AdamW(parameters, **keywords).step
    return made


def huge_pages(shapes: Sequence[tuple[int, int]]) -> Variants:
    """Products of few rows and a sum, in memory of ordinary and of huge pages (transparent ones, by `madvise`)."""

    def tensor(shape: tuple[int, int], advice: int) -> torch.Tensor:
        count = shape[0] * shape[1]
        memory = mmap.mmap(-1, 4 * count + 2**22)
        memory.madvise(advice)
        whole = torch.frombuffer(memory, dtype=torch.float32)
        start = -whole.data_ptr() % 2**21 // 4
        return whole[start : start + count].view(shape).normal_()

    def work(advice: int) -> Callable[[], Any]:
        layers = [(tensor((ROWS, i), advice), [tensor((o, i), advice) for _ in range(8)]) for i, o in shapes]
        return lambda: [(linear(x, w), w.add_(1e-3)) for x, weights in layers for w in weights]

    return {"ordinary": work(mmap.MADV_NOHUGEPAGE), "huge": work(mmap.MADV_HUGEPAGE)}


# -- how packs are cut -------------------------------------------------------------------------------------------------


def given_sequences(side: FastslowSide) -> list[tuple[int, ...]]:
    """What an update computes of each rollout, with drawn tokens in place of the completion."""
    rng, new = random.Random(0), side.workload.new_tokens - 1
    return [(*context, *(rng.randrange(1000, 2000) for _ in range(new))) for context in side.contexts_R()]


def count_nodes(side: FastslowSide, workload: Workload) -> dict[str, int]:
    """Tokens that an update computes: with packs filled one after another, with the fewest, and in one pack."""
    with rollouts_of(side, workload):
        sequences = given_sequences(side)
    with patch.object(forest, "WORTH_A_CUT", NEVER):
        filled = forest.pack_forests(sequences, PACK_ROWS)
    fewest, one = forest.pack_forests(sequences, PACK_ROWS), forest.pack_forests(sequences, NEVER)
    return {"filled": sum(map(len, filled)), "fewest": sum(map(len, fewest)), "one pack": sum(map(len, one))}


@contextmanager
def rollouts_of(side: FastslowSide, workload: Workload) -> Iterator[None]:
    kept = side.workload, side.messages
    side.workload, side.messages = workload, workload.messages_R()
    try:
        yield
    finally:
        side.workload, side.messages = kept


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The record of all parts; `parts` has seconds of each variant, `nodes` what packs compute."""
    torch.manual_seed(0)
    dtype = getattr(torch, options.precision)
    workload = Workload("a", new_tokens=options.new_tokens)
    side = FastslowSide(Settings(workload, options.model, options.precision, options.threads, "wall", "", 0))
    shapes = [shape for shape in Network(options.model).shapes if max(shape) < 10_000]
    model = side.engine.model
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    record: dict[str, Any] = {"machine": machine(), "threads": options.threads, "clock": options.clock}
    record["nodes"] = {
        f"{case}, {problems * 8}": count_nodes(side, Workload(case, problems, 8, 8 if case == "b" else 1))
        for case, problems in (("a", 8), ("b", 4), ("b", 8))
    }
    parts: dict[str, dict[str, float]] = {}

    def add(name: str, variants: Variants) -> None:
        parts[name] = alternate(variants, options.rounds, CLOCKS[options.clock])
        print(name, parts[name], flush=True)

    if packed._layers(model):
        add(f"sampling, {options.new_tokens} tokens", sampling(side))
    add("attention of a pack", block_attention(side, model.config.get_text_config()))
    with torch.inference_mode():
        for rows in (ROWS, PACK_ROWS):
            add(f"products of {rows} rows", products(layers, rows))
        add("gradients of inputs", input_gradients(shapes, dtype))
        add("gradients of weights", weight_gradients(shapes, dtype))
        add(f"pages, {ROWS} rows and a sum", huge_pages(shapes))
    add("AdamW", optimisers(model))
    return {**record, "parts": parts}


def report(results: Path) -> str:
    """The tables of each processor and precision; they go into docs/performance.md where they are of the repository's
    results.
    """
    records = json.loads(results.read_text(encoding="utf-8"))
    table = "\n\n".join(f"**{key.replace('/', ', ')}**:\n\n{_tables(records[key])}" for key in sorted(records))
    if results == RESULTS:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    return table


def _tables(record: dict[str, Any]) -> str:
    lines = ["| part | variant | s | times faster |", "| --- | --- | --- | --- |"]
    for part, variants in record["parts"].items():
        first = next(iter(variants.values()))
        lines += [f"| {part} | {name} | {s:.3g} | {first / s:.2f} |" for name, s in variants.items()]
    lines += ["", "| case, rollouts | packs filled | fewest tokens | in one pack |", "| --- | --- | --- | --- |"]
    lines += [f"| {case} | {n['filled']} | {n['fewest']} | {n['one pack']} |" for case, n in record["nodes"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory of the model; needed unless --report is given")
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the tables from the results")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each variant")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of a rollout that is drawn")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.report:
        if not options.model:
            parser.error("--model is missing: give the directory of a model, or --report")
        record = measure(options)
        records = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
        records[f"{record['machine']['arithmetic']}/{options.precision}"] = record
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(records, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    print(report(options.results))


if __name__ == "__main__":
    main()
