"""Attention of decoding rows over shared prefixes and over their own tokens, at fixed shapes, merged by log-sum-exp.

A softmax over two sets of keys is the mean of the two softmaxes, each weighed with its share of the exponentials' sum
(arXiv 2205.14135, section 3.1; for shared prefixes arXiv 2402.05099). So each prefix is read once for all rows that
share it, as one product, and each row's own keys by themselves.

Shapes never change while rows come to their ends: what changes lies in tensors that keep their addresses. That is what
a CUDA graph needs. Axis suffixes: _R rows, _P pools, _S slots (rows of one pool), _N nodes of a pool, _T own tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch


@dataclass
class PoolGroup:
    """Prefixes of about one length, each with about as many rows: a rectangle of pools and slots.

    Shapes: keys, values, one a layer, (P, KV heads, N, size); mask (P, S, N), additive; row_of_slot (P, S), the row
    that stands there, or any row where the slot is empty.
    """

    mask: torch.Tensor
    row_of_slot: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


def attend_part(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over one part of the keys, and the logarithm of its exponentials' sum.

    Shapes: query (B, KV heads, S, heads of a KV head, size), scaled; keys and values (B, KV heads, N, size); mask
    broadcasts to (B, KV heads, S, heads of a KV head, N). Returns the output, like the query but of a value's size, and
    (B, KV heads, S, heads of a KV head) in float32.
    """
    together = query.flatten(2, 3) @ keys.transpose(-1, -2)
    scores = together.unflatten(2, query.shape[2:4]).float() + mask
    log_sum = scores.logsumexp(-1)
    weights = (scores - log_sum[..., None]).exp_().to(values.dtype)
    return (weights.flatten(2, 3) @ values).unflatten(2, query.shape[2:4]), log_sum


def merge_parts(a: torch.Tensor, a_log_sum: torch.Tensor, b: torch.Tensor, b_log_sum: torch.Tensor) -> torch.Tensor:
    """Attention over two sets of keys from attention over each. Shapes: (..., size), (...); (..., size) in float32."""
    total = torch.logaddexp(a_log_sum, b_log_sum)
    return a * (a_log_sum - total).exp()[..., None] + b * (b_log_sum - total).exp()[..., None]


Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def attend_parts(
    prefixes: Sequence[Part],
    slot_of_row: torch.Tensor,
    own_mask: torch.Tensor,
    query: torch.Tensor,
    own_keys: torch.Tensor,
    own_values: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attention of one layer over prefixes and own tokens. Tensors alone go in,
    so that it can be compiled once for all layers.

    Shapes: each prefix has keys and values (P, KV heads, N, size), mask (P, S, N) and row_of_slot (P, S); query (R,
    heads, 1, size), own keys and values (R, KV heads, T, size); returns (R, heads, 1, size of a value).
    """
    rows, heads, _, size = query.shape
    kv_heads = own_keys.shape[1]
    grouped = (query * scale).view(rows, kv_heads, heads // kv_heads, size)
    outputs, log_sums = [], []
    for keys, values, mask, row_of_slot in prefixes:
        by_slot = grouped[row_of_slot].transpose(1, 2)
        output, log_sum = attend_part(by_slot, keys, values, mask[:, None, :, None, :])
        outputs.append(output.transpose(1, 2).flatten(0, 1))
        log_sums.append(log_sum.transpose(1, 2).flatten(0, 1))
    prefix, prefix_log_sum = torch.cat(outputs)[slot_of_row], torch.cat(log_sums)[slot_of_row]
    own, own_log_sum = attend_part(grouped[:, :, None], own_keys, own_values, own_mask)
    merged = merge_parts(prefix, prefix_log_sum, own[:, :, 0], own_log_sum[:, :, 0])
    return merged.to(query.dtype).reshape(rows, heads, 1, own_values.shape[-1])


@dataclass
class Cascade:
    """What the rows of a decoding step attend to besides their own tokens.

    Shapes: slot_of_row (R,), an index into all slots of all groups; own_mask (T,), additive. Every row has a slot.
    `attend` computes as `attend_parts` does.
    """

    groups: Sequence[PoolGroup]
    slot_of_row: torch.Tensor
    own_mask: torch.Tensor
    attend: Callable[..., torch.Tensor] = attend_parts


ACTIVE_CASCADE: ContextVar[Cascade | None] = ContextVar("fastslow_active_cascade", default=None)


@contextmanager
def cascading(cascade: Cascade) -> Iterator[None]:
    """Inside, a forward pass over one token a row attends as `cascade` says."""
    active = ACTIVE_CASCADE.set(cascade)
    try:
        yield
    finally:
        ACTIVE_CASCADE.reset(active)


def attend_in_cascade(
    cascade: Cascade,
    layer: int,
    query: torch.Tensor,
    own_keys: torch.Tensor,
    own_values: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Shapes: query (R, heads, 1, size), own keys and values (R, KV heads, T, size); returns (R, heads, 1,
    size of a value).
    """
    prefixes = [(group.keys[layer], group.values[layer], group.mask, group.row_of_slot) for group in cascade.groups]
    return cascade.attend(prefixes, cascade.slot_of_row, cascade.own_mask, query, own_keys, own_values, scale)
