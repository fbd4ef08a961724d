"""`slow.memory_gib`: how many tokens fit into a training pass, and how many rows are sampled at a time.

The bytes of a training step are a fixed part (weights, masters, gradients, moments, the base's copy) and what a pass
takes, which `pass_cost.py` has measured on the model. They are those of tensors: the process itself, and what its
allocator wastes, stand beside them. The plan is a function of the model, the config and the lengths of the sequences
alone, never of what is free at the moment: a resumed run cuts its updates as the uninterrupted one does.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastslow.errors import ConfigError
from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.moments import embeddings_of
from fastslow.slow.local.pass_cost import FLOAT32, PassCost, measure
from fastslow.slow.local.scoring import ForestScorer, PlainScorer
from fastslow.slow.settings import SlowConfig

logger = logging.getLogger(__name__)

GIB = 2**30
# bitsandbytes: a block of so many moments has a scale of 32 bits; tensors below the size keep 32 bits.
MOMENT_BLOCK, SMALL_TENSOR = 256, 4096
LARGEST_PASS = 2**24
FIRST_ROOM = 16


@dataclass(frozen=True)
class Fixed:
    """Bytes that no number of tokens changes. `largest`: of the largest gradient, which is there twice for a moment;
    `step`: what the optimiser takes beside everything else while it moves the weights.
    """

    weights: int
    base: int
    masters: int
    gradients: int
    moments: int
    largest: int
    step: int

    @property
    def resting(self) -> int:
        """While completions are sampled: no gradients."""
        return self.weights + self.base + self.masters + self.moments

    @property
    def training(self) -> int:
        """During an update."""
        return self.resting + self.gradients


def fixed_part(model: Any, slow: SlowConfig, *, keeps_base: bool) -> Fixed:
    """Counted from the parameters. `keeps_base`: a second copy of the weights is loaded,
    which KL is measured against.
    """
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    weights = sum(t.numel() * t.element_size() for t in tensors.values())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    numbers = [p.numel() for p in trained.values()]
    largest = max(numbers, default=0) * FLOAT32
    on_gpu = any(p.device.type == "cuda" for p in trained.values())
    return Fixed(
        weights,
        base=weights if keeps_base else 0,
        masters=FLOAT32 * sum(p.numel() for p in trained.values() if p.dtype != torch.float32),
        gradients=FLOAT32 * sum(numbers),
        moments=sum(_moments(name, p, slow, embeddings_of(model)) for name, p in trained.items()),
        largest=largest,
        # torch's AdamW goes over all tensors at once on a GPU, and over one after the other on a CPU.
        step=FLOAT32 * sum(numbers) if on_gpu and slow.optimiser == "adamw" else 2 * largest,
    )


def _moments(name: str, parameter: torch.nn.Parameter, slow: SlowConfig, embeddings: frozenset[str]) -> int:
    count = parameter.numel()
    if slow.optimiser == "adamw" or count < SMALL_TENSOR or name in embeddings:
        return 2 * FLOAT32 * count
    return 2 * (count + FLOAT32 * -(-count // MOMENT_BLOCK))


class MemoryPlan:
    """What fits into a budget. `sides`: 2 where a teacher's logits stand beside the student's."""

    def __init__(self, budget_gib: float, fixed: Fixed, cost: PassCost, *, sides: int = 1) -> None:
        self.budget_gib, self.fixed, self.cost, self.sides = budget_gib, fixed, cost, sides
        self._warned = False

    def peak_bytes(self, tokens: int, longest: int, rows: int) -> int:
        """Of an update whose passes have up to `tokens` tokens, of sequences of up to `longest`,
        with `rows` rows of logits.
        """
        fixed = self.fixed
        passing = self.cost.peak(tokens, min(longest, tokens), rows, sides=self.sides)
        return fixed.training + int(max(passing + fixed.largest, 2 * fixed.largest, fixed.step))

    def tokens(self, longest: int, rows: int) -> int:
        """The most tokens of a pass that fit, at least `longest`, whose sequence fits or not;
        of up to `rows` rows of logits in an update.
        """
        low, high = longest, max(longest, LARGEST_PASS)
        while low < high:
            middle = (low + high + 1) // 2
            if self.peak_bytes(middle, longest, min(middle, rows)) <= self.budget_gib * GIB:
                low = middle
            else:
                high = middle - 1
        return low

    def pass_tokens(self, sequences: Sequence[TokenSequence]) -> int:
        """`tokens` for these sequences. A warning says it, once, where one of them is too long for the budget."""
        longest = max(len(s.context_tokens) + len(s.completion_tokens) for s in sequences)
        if not self._warned and (complaint := self.complaint(longest)) is not None:
            self._warned = True
            logger.warning("%s", complaint)
        return self.tokens(longest, sum(len(s.completion_tokens) for s in sequences))

    def check(self, longest: int) -> None:
        """Raises ConfigError where an update on one sequence of `longest` tokens takes more than the budget."""
        complaint = self.complaint(longest)
        if complaint is not None:
            raise ConfigError(complaint)

    def complaint(self, longest: int) -> str | None:
        """What is wrong with a sequence of `longest` tokens, in words; None where the budget holds an update on it."""
        needed = self.peak_bytes(longest, longest, longest) / GIB
        if needed <= self.budget_gib:
            return None
        return (
            f"slow.memory_gib: {self.budget_gib:g} GiB do not hold an update on one sequence of {longest} tokens, "
            f"which takes {needed:.2f} GiB, {self.fixed.training / GIB:.2f} of them whatever its length. Ways out: a "
            "larger memory_gib, slow.activation_checkpointing: true, model.lora, a smaller sampling.max_tokens, or "
            "shorter prompts (fast.proposer.max_prompt_chars)"
        )

    def sampling_bytes(self, rows: int, context_tokens: int, max_tokens: int) -> float:
        """Of so many completions of up to `max_tokens` that are drawn at a time, beside the keys and values of their
        contexts, `context_tokens` together. Without keys and values where they are not known.
        """
        room = FIRST_ROOM
        while room < max_tokens:  # buffers of keys and values double
            room *= 2
        # Logits, and two tensors of float32 that drawing makes of them.
        row = self.cost.keys_per_token * room + 3 * FLOAT32 * self.cost.vocabulary
        return self.fixed.resting + rows * row + self.cost.keys_per_token * context_tokens

    def holds_rows(self, rows: int, context_tokens: int, max_tokens: int) -> bool:
        """Whether so many completions of up to `max_tokens` can be drawn at a time, beside the keys and values of their
        contexts, `context_tokens` together. Where the keys are not known, the answer is yes.
        """
        needed = self.sampling_bytes(rows, context_tokens, max_tokens)
        return not self.cost.keys_per_token or needed <= self.budget_gib * GIB

    def estimate(self, longest: int, pass_tokens: int, rows: int, max_tokens: int) -> str:
        """What a run without a budget takes, in a line: an update whose passes have `pass_tokens` tokens, and `rows`
        completions that are drawn at a time, in contexts of the longest sequence.
        """
        fixed, tokens = self.fixed, max(longest, pass_tokens)
        update, sampling = (
            value / GIB
            for value in (
                self.peak_bytes(tokens, longest, tokens),
                self.sampling_bytes(rows, rows * max(0, longest - max_tokens), max_tokens),
            )
        )
        weights, copies, moments, gradients = (
            f"{value / GIB:.2f}"
            for value in (fixed.weights, fixed.base, fixed.masters + fixed.moments, fixed.gradients)
        )
        return (
            f"memory, from shapes: up to {update:.2f} GiB in an update with passes of {tokens} tokens (weights "
            f"{weights}, the base's copy {copies}, optimiser {moments}, gradients {gradients}, the rest activations), "
            f"up to {sampling:.2f} GiB while {rows} completions are drawn; the process itself comes on top"
        )

    def describe(self, longest: int) -> str:
        """The estimate in a line."""
        tokens = self.tokens(longest, LARGEST_PASS)
        one = self.peak_bytes(longest, longest, longest) / GIB
        return (
            f"memory: {self.fixed.training / GIB:.2f} GiB for weights, gradients and moments, {one:.2f} GiB with a "
            f"sequence of {longest} tokens; {self.budget_gib:g} GiB hold passes of {tokens} tokens"
        )


def make_plan(
    model: Any,
    slow: SlowConfig,
    scorer: ForestScorer | PlainScorer,
    *,
    limit: int | None,
    keeps_base: bool,
    distils: bool,
) -> MemoryPlan:
    """Measure a model and count its parameters. `limit`: positions of the model; `keeps_base`: something beside the KL
    penalty asks for the base weights; `distils`: a teacher is computed, too.
    """
    assert slow.memory_gib is not None
    base = (keeps_base or distils or slow.kl_coefficient > 0) and not hasattr(model, "disable_adapter")
    cost = measure(model, scorer, limit=limit, recomputes=slow.activation_checkpointing)
    return MemoryPlan(slow.memory_gib, fixed_part(model, slow, keeps_base=base), cost, sides=1 + distils)
