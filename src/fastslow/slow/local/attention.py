"""The attention of the local engine. `use` makes it known to transformers, under the name `fastslow`,
and puts a model on it.

Two cases. A packed forest is computed block by block: a run of neighbouring nodes attends to its ancestors and to
itself, not to the whole pack, so unrelated sequences in a pack cost each other nothing. A decoding step has one query a
row: each row attends to a pool of prefix keys that all rows of its pack share (computed once, stored once, read once)
and to the keys of its own completion. The decoder for a GPU does the latter at fixed shapes: see `cascade.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fastslow.slow.local.cascade import ACTIVE_CASCADE, attend_in_cascade
from fastslow.slow.local.forest import Forest

NAME = "fastslow"

# Queries of a block. On a CPU few, so that little is computed that the mask throws away; a GPU wants large
# ones. A pack has at most so many blocks, because each of them keeps a copy of its ancestors' keys and values
# until the backward pass.
BLOCK_QUERIES = {"cpu": 128, "cuda": 1024}
MAX_BLOCKS = 16


def use(model: PreTrainedModel) -> None:
    """Put a model on this attention."""
    AttentionInterface.register(NAME, fastslow_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


@dataclass
class PrefixPool:
    """Prefix keys and values of one pack and the rows that use it: rows [start, stop) of the decoding batch.

    `fresh` are the nodes, ascending, that a pass still has to compute; None: all of them, and there are no keys yet.

    Shapes: keys, values, one a layer, (KV heads, N, head size); mask (rows, N), additive, 0 or -inf.
    """

    start: int
    stop: int
    mask: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    fresh: torch.Tensor | None = None


@dataclass(frozen=True)
class Block:
    """Queries [start, stop) of a pass; `keys` says which nodes they attend to, a slice where those are neighbours.

    Shapes: mask (1, 1, stop - start, number of keys), additive.
    """

    start: int
    stop: int
    keys: slice | torch.Tensor
    mask: torch.Tensor


ACTIVE_POOLS: ContextVar[list[PrefixPool] | None] = ContextVar("fastslow_active_pools", default=None)
ACTIVE_BLOCKS: ContextVar[list[Block] | None] = ContextVar("fastslow_active_blocks", default=None)
# Where a pass over a pack leaves each layer's keys and values. What attention gets is taken, not what a cache holds,
# since multi-head latent attention caches them compressed.
FILLED_POOL: ContextVar[PrefixPool | None] = ContextVar("fastslow_filled_pool", default=None)


@contextmanager
def attending(
    forest: Forest, device: torch.device, dtype: torch.dtype, pool: PrefixPool | None = None
) -> Iterator[torch.Tensor]:
    """Inside, a forward pass over one pack, or over the fresh nodes of a pool, attends within its forest, and fills the
    pool where one is given. Gives the mask to call the model with: transformers builds none of its own where it gets a
    mask of four dimensions.
    """
    queries = BLOCK_QUERIES.get(device.type, 1024)
    if pool is not None and pool.fresh is not None:
        found = forest.blocks_of(pool.fresh.tolist(), queries)
    else:
        found = iter(forest.blocks(max(queries, -(-len(forest) // MAX_BLOCKS))))
    blocks = []
    for block in found:
        neighbours = len(block.keys) == block.keys[-1] - block.keys[0] + 1
        keys = slice(block.keys[0], block.keys[-1] + 1) if neighbours else torch.tensor(block.keys, device=device)
        blocks.append(Block(block.start, block.stop, keys, additive_mask(block.mask.to(device), dtype)[None, None]))
    active, filled = ACTIVE_BLOCKS.set(blocks), FILLED_POOL.set(pool)
    try:
        yield torch.zeros(1, 1, 1, 1, device=device, dtype=dtype)
    finally:
        ACTIVE_BLOCKS.reset(active)
        FILLED_POOL.reset(filled)


def additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where allowed, the type's lowest finite value elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def fastslow_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention output of shape (rows, queries, heads, size of a value), as transformers expects it. Values may be of
    another size than queries and keys (multi-head latent attention).

    Raises: NotImplementedError for an ingredient of the scores that it would have to ignore.
    """
    ignored = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if ignored:
        raise NotImplementedError(f"its attention uses {', '.join(ignored)}")
    blocks, pools = ACTIVE_BLOCKS.get(), ACTIVE_POOLS.get()
    if blocks is not None:
        pool = FILLED_POOL.get()
        if pool is not None and pool.fresh is not None:
            place: int = module.layer_idx  # type: ignore[assignment]
            pool.keys[place][:, pool.fresh] = key[0]
            pool.values[place][:, pool.fresh] = value[0]
            key, value = pool.keys[place][None], pool.values[place][None]
        elif pool is not None:
            pool.keys.append(key[0].contiguous())
            pool.values.append(value[0].contiguous())
        return _attend_in_blocks(query, key, value, blocks, scaling).transpose(1, 2), None
    cascade = ACTIVE_CASCADE.get()
    if pools is None and cascade is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: int = module.layer_idx  # type: ignore[assignment]
    if cascade is not None:
        return attend_in_cascade(cascade, layer, query, key, value, scale).transpose(1, 2), None
    assert pools is not None
    output = query.new_empty(*query.shape[:-1], value.shape[-1])
    for pool in pools:
        rows = slice(pool.start, pool.stop)
        output[rows] = _attend(
            query[rows] * scale, pool.keys[layer], pool.values[layer], pool.mask, key[rows], value[rows]
        )
    return output.transpose(1, 2), None


def _attend_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[Block], scaling: float | None
) -> torch.Tensor:
    """Shapes: query (1, heads, M, size), key and value (1, KV heads, N, size); returns (1, heads, M, size). M is N, or
    the number of nodes that a pass computes.
    """
    _, heads, _, size = query.shape
    kv_heads = key.shape[1]
    # KV heads as the batch and the heads that share one as its heads: keys are then broadcast, not copied.
    queries = query.view(kv_heads, heads // kv_heads, -1, size).split([b.stop - b.start for b in blocks], dim=2)
    keys, values = (_BlockNodes.apply(nodes.transpose(0, 1), blocks) for nodes in (key, value))  # type: ignore[no-untyped-call]
    attend = _attend_by_products if by_products(query) else _attend_by_torch
    outputs = [
        attend(block_queries, block_keys, block_values, block.mask, scaling)
        for block, block_queries, block_keys, block_values in zip(blocks, queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).reshape(1, heads, -1, value.shape[-1])


def by_products(query: torch.Tensor) -> bool:
    """Where plain products are several times faster than torch's attention: for bfloat16 on a CPU."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def _attend_by_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    shape = (-1, query.shape[1], -1, -1)
    return scaled_dot_product_attention(query, key.expand(shape), value.expand(shape), attn_mask=mask, scale=scaling)


def _attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    kv_heads, shared, queries, size = query.shape
    scale = scaling if scaling is not None else size**-0.5
    # The heads that share keys are rows of one product, and its gradient sums over them.
    rows = query.reshape(kv_heads, shared * queries, size)
    arguments = (rows, key[:, 0], value[:, 0], mask[0, 0], scale)
    output: torch.Tensor = _BlockAttention.apply(*arguments)  # type: ignore[no-untyped-call]
    return output.view(kv_heads, shared, queries, value.shape[-1])


class _BlockAttention(torch.autograd.Function):
    """Attention of one block, whose weights the backward pass computes again: kept,
    they would take memory that grows with the square of a sequence's length.

    Shapes: query (KV heads, heads that share keys * M, size), key and value (KV heads, N, size), mask (M, N), additive,
    for each of those heads; returns what query has, of value's size.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        return _weights(query, key, mask, scale) @ value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        query, key, value, mask = ctx.saved_tensors
        weights = _weights(query, key, mask, ctx.scale)
        of_value = weights.transpose(1, 2) @ gradients[0]
        of_weights = gradients[0] @ value.transpose(1, 2)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
        return of_scores @ key, of_scores.transpose(1, 2) @ query, of_value, None, None


def _weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    added = mask.repeat(query.shape[1] // len(mask), 1).expand(len(query), -1, -1)
    scores = torch.baddbmm(added, query, key.transpose(1, 2), alpha=scale)
    return scores.softmax(-1)


class _BlockNodes(torch.autograd.Function):
    """The keys or values that each block attends to, from those of the pack: (KV heads, 1, N, size) each.

    The backward pass sums all blocks' gradients in one tensor. Plain autograd would make one of the pack's size for
    each block, of which the block fills a part. The order of the sum is autograd's: the last block first.
    """

    @staticmethod
    def forward(ctx: Any, nodes: torch.Tensor, blocks: list[Block]) -> tuple[torch.Tensor, ...]:
        ctx.blocks = blocks
        return tuple(nodes[:, :, block.keys] for block in blocks)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        first = gradients[0]
        total = first.new_zeros(*first.shape[:2], ctx.blocks[-1].stop, first.shape[-1])
        for block, gradient in zip(reversed(ctx.blocks), reversed(gradients), strict=True):
            if isinstance(block.keys, slice):
                total[:, :, block.keys] += gradient
            else:
                total.index_add_(2, block.keys, gradient)
        return total, None


def _attend(
    query: torch.Tensor,
    pool_keys: torch.Tensor,
    pool_values: torch.Tensor,
    pool_mask: torch.Tensor,
    own_keys: torch.Tensor,
    own_values: torch.Tensor,
) -> torch.Tensor:
    rows, heads, _, size = query.shape
    kv_heads, prefix, _ = pool_keys.shape
    shared = heads // kv_heads
    grouped = query.view(rows, kv_heads, shared, size)
    by_head = grouped.transpose(0, 1).reshape(kv_heads, rows * shared, size)
    prefix_scores = (by_head @ pool_keys.transpose(1, 2)).view(kv_heads, rows, shared, prefix) + pool_mask[
        None, :, None, :
    ]
    own_scores = (grouped @ own_keys.transpose(2, 3)).transpose(0, 1)
    weights = torch.cat([prefix_scores, own_scores], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    from_prefix = weights[..., :prefix].reshape(kv_heads, rows * shared, prefix) @ pool_values
    from_own = weights[..., prefix:].transpose(0, 1) @ own_values
    mixed = from_prefix.view(kv_heads, rows, shared, pool_values.shape[-1]).transpose(0, 1) + from_own
    return mixed.reshape(rows, heads, 1, pool_values.shape[-1])
