"""The attention of the local engine, registered with transformers under the name `fastslow`.

Two cases. A packed forest comes with a 4D mask and goes to PyTorch's scaled dot-product attention as it is. A decoding
step has one query a row: each row attends to a pool of prefix keys that all rows of its pack share (computed once,
stored once, read once) and to the keys of its own completion.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "fastslow"


@dataclass
class PrefixPool:
    """Prefix keys and values of one pack and the rows that use it: rows [start, stop) of the decoding batch.

    Shapes: keys, values, one a layer, (KV heads, N, head size); mask (rows, N), additive, 0 or -inf.
    """

    start: int
    stop: int
    mask: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


ACTIVE_POOLS: ContextVar[list[PrefixPool] | None] = ContextVar("fastslow_active_pools", default=None)


def fastslow_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention output of shape (rows, queries, heads, head size), as transformers expects it.

    Raises: NotImplementedError for an ingredient of the scores that it would have to ignore.
    """
    ignored = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if ignored:
        raise NotImplementedError(f"its attention uses {', '.join(ignored)}")
    pools = ACTIVE_POOLS.get()
    if pools is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: int = module.layer_idx  # type: ignore[assignment]
    output = torch.empty_like(query)
    for pool in pools:
        rows = slice(pool.start, pool.stop)
        output[rows] = _attend(
            query[rows] * scale, pool.keys[layer], pool.values[layer], pool.mask, key[rows], value[rows]
        )
    return output.transpose(1, 2), None


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
    mixed = from_prefix.view(kv_heads, rows, shared, size).transpose(0, 1) + from_own
    return mixed.reshape(rows, heads, 1, size)


AttentionInterface.register(NAME, fastslow_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
