"""Log-probabilities, divergences and distillation from what a pass left, one slice of logits at a time.

Where the logits are whole, these are `scoring` and `distillation` themselves, bit for bit.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from fastslow.slow.distillation import reverse_kl
from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.head import Head, Outputs, gradient_in_place
from fastslow.slow.local.scoring import MicroBatch, flat_tokens, kl_divergences, row_logprobs, token_logprobs

Within = Callable[[], AbstractContextManager[Any]]
"""Makes a context manager in which the model has the base weights."""


def output_logprobs(
    outputs: Outputs, batch: MicroBatch, sequences: Sequence[TokenSequence], temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `scoring.token_logprobs`, of logits that need not exist at once; shapes (N,) and (N,)."""
    if outputs.logits is not None:
        return token_logprobs(outputs.logits, batch, sequences, temperature)
    assert outputs.hidden is not None
    rows, targets = flat_tokens(batch, sequences, outputs.hidden.device)
    arguments = (outputs.hidden, outputs.head, rows, targets, temperature)
    chosen, entropy = _SlicedLogprobs.apply(*arguments)  # type: ignore[no-untyped-call]
    return chosen, entropy[rows]


class _SlicedLogprobs(torch.autograd.Function):
    """Keeps hidden states only. Backward computes each slice again, and adds to the head's gradient itself."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: Head, rows: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
        entropies = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for part in head.slices(len(hidden)):
            here = _within(rows, part)
            logits = head(hidden[part])
            chosen[here], entropies[part] = row_logprobs(logits, rows[here] - part.start, targets[here], temperature)
            del logits
        ctx.save_for_backward(hidden, rows, targets)
        ctx.head, ctx.temperature = head, temperature
        ctx.set_materialize_grads(False)
        return chosen, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor, None, None, None, None]:
        hidden, rows, targets = ctx.saved_tensors
        hidden_gradient: torch.Tensor = torch.empty_like(hidden)
        for part in ctx.head.slices(len(hidden)):
            here = _within(rows, part)
            with torch.enable_grad(), gradient_in_place(ctx.head.network):
                leaf = hidden[part].detach().requires_grad_()
                found = row_logprobs(ctx.head(leaf), rows[here] - part.start, targets[here], ctx.temperature)
            wanted = [
                (value, gradient[index])
                for value, gradient, index in zip(found, gradients, (here, part), strict=True)
                if gradient is not None
            ]
            torch.autograd.backward([value for value, _ in wanted], [gradient for _, gradient in wanted])
            hidden_gradient[part] = leaf.grad
            del found, wanted, leaf
        return hidden_gradient, None, None, None, None


def _within(rows: torch.Tensor, part: slice) -> torch.Tensor:
    """Indices of the tokens whose rows are in a slice."""
    inside = torch.logical_and(rows >= part.start, rows < part.stop)
    return inside.nonzero()[:, 0]


@torch.no_grad()
def output_divergences(current: Outputs, base: Outputs, within: Within) -> torch.Tensor:
    """KL(current || base) of each row over the full vocabulary in nats; shape (rows,)."""
    found = []
    for part in current.slices():
        logits = current.rows(part)
        with within():
            base_logits = base.rows(part)
        found.append(kl_divergences(logits, base_logits))
    return torch.cat(found)


def backward_reverse_kl(
    student: Outputs,
    teacher: Outputs,
    within: Within,
    rows: torch.Tensor,
    teacher_rows: torch.Tensor,
    weights: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `distillation.reverse_kl`, whose gradient goes backwards through the student at once; shapes (N,) and (N,)."""
    if student.logits is not None and teacher.logits is not None:
        gradient = student.logits.detach()
        found = reverse_kl(gradient, teacher.logits, rows, teacher_rows, weights, temperature)
        student.logits.backward(gradient)
        return found
    whole = student.logits if student.logits is not None else student.hidden
    assert whole is not None
    divergences, entropies, whole_gradient = torch.empty_like(weights), torch.empty_like(weights), _empty_like(whole)
    for part in _bounded_slices(student, teacher):
        here = _within(rows, part)
        used, index = torch.unique(teacher_rows[here], return_inverse=True)
        with torch.no_grad(), within():
            teacher_logits = teacher.rows(used)
        leaf = whole[part].detach().requires_grad_()
        if student.head is None:
            logits = leaf.clone()
            values = reverse_kl(
                logits.detach(), teacher_logits, rows[here] - part.start, index, weights[here], temperature
            )
            whole_gradient[part] = logits.detach()
        else:
            with gradient_in_place(student.head.network):
                logits = student.head(leaf)
            gradient = logits.detach()
            values = reverse_kl(gradient, teacher_logits, rows[here] - part.start, index, weights[here], temperature)
            logits.backward(gradient)
            assert leaf.grad is not None
            whole_gradient[part] = leaf.grad
        divergences[here], entropies[here] = values
    whole.backward(whole_gradient)
    return divergences, entropies


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, requires_grad=False)


def _bounded_slices(student: Outputs, teacher: Outputs) -> list[slice]:
    if student.head is not None or teacher.head is None:
        return list(student.slices())
    assert student.logits is not None
    return list(teacher.head.slices(len(student.logits)))
