"""The arithmetic limit of an RL step: its floating-point operations over what this machine's matrix products reach.

With P weights in the decoder's linear layers, V x H in the head, A = heads x head size x layers, and n nodes, node i
at depth d_i (positions from 0), of which h need logits, one forward pass costs

    F(n) = 2 P n + 4 A sum_i (d_i + 1) + 2 V H h

Sampling is one forward pass over every context token and over all but the last token of each completion. Training is
one over the same nodes plus a backward pass at twice its price. A step is 4 F. With sharing, a prefix that several
sequences have in common is one set of nodes; without, each rollout has its own. Norms, softmax, rotations, sampling
from the distribution, the optimiser and every byte moved count as nothing, so nothing can reach this limit.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from workload import Settings, serve, tell

FORWARD_PASSES = 4  # one to sample, one to train, two for the backward pass
# Rows of the products measured: a training micro-batch. The decoding batch's rate is measured beside it, to explain.
TRAINING_ROWS, DECODING_ROWS = 2048, 64
ROUNDS = 5


class Network:
    """The sizes that count, of a model that is built without its weights."""

    def __init__(self, model: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            network: Any = AutoModelForCausalLM.from_config(config)
        text = config.get_text_config()
        head = network.get_output_embeddings()
        layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        self.shapes = sorted({(layer.in_features, layer.out_features) for layer in [*layers, head]})
        self.linear_weights = sum(layer.weight.numel() for layer in layers)
        self.head_weights = head.weight.numel()
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.attention_width = text.num_attention_heads * head_size * text.num_hidden_layers

    def forward_flops(self, depths: Sequence[int], logit_rows: int) -> int:
        """F of the module's formula."""
        attention = 4 * self.attention_width * (sum(depths) + len(depths))
        return 2 * self.linear_weights * len(depths) + attention + 2 * self.head_weights * logit_rows


def step_flops(network: Network, contexts_R: Sequence[Sequence[int]], new_tokens: int, shared: bool) -> int:
    """Floating-point operations of one RL step on rollouts of `new_tokens` tokens after these contexts."""
    contexts = sorted({tuple(context) for context in contexts_R}) if shared else [tuple(c) for c in contexts_R]
    depths: list[int] = []
    previous: tuple[int, ...] = ()
    for context in contexts:
        depths += range(_common(context, previous) if shared else 0, len(context))
        previous = context
    for length in map(len, contexts_R):
        depths += range(length, length + new_tokens - 1)
    logit_rows = len(contexts) + len(contexts_R) * (new_tokens - 1)
    return FORWARD_PASSES * network.forward_flops(depths, logit_rows)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True)
class Rates:
    """The best rate of matrix products over a network's shapes, in FLOP/s; `decoding` is that of a thin batch."""

    training: float
    decoding: float


def measure_rates(shapes: Sequence[tuple[int, int]], dtype: torch.dtype, cpu_clock: bool) -> Rates:
    """What this machine reaches now, at a training micro-batch's and at a decoding batch's number of rows."""
    clock = time.process_time if cpu_clock else time.perf_counter
    with torch.inference_mode():
        best = [max(_rate(rows, i, o, dtype, clock) for i, o in shapes) for rows in (TRAINING_ROWS, DECODING_ROWS)]
    return Rates(*best)


def _rate(rows: int, inputs: int, outputs: int, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    torch.nn.functional.linear(x, weight)
    best = float("inf")
    for _ in range(ROUNDS):
        started = clock()
        torch.nn.functional.linear(x, weight)
        best = min(best, clock() - started)
    return 2 * rows * inputs * outputs / best


def main() -> None:
    """Serve rate measurements to the driver."""
    settings = Settings.from_json(sys.argv[1])
    torch.set_num_threads(settings.threads)
    shapes, dtype = Network(settings.model).shapes, getattr(torch, settings.precision)
    tell(event="ready")
    serve(lambda: measure_rates(shapes, dtype, settings.clock == "cpu"))


if __name__ == "__main__":
    main()
