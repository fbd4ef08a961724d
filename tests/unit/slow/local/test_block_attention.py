"""Attention over a pack's blocks: the sum over blocks in one tensor is what plain autograd gives, to the last bit."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from fastslow.slow.local.attention import (
    ACTIVE_BLOCKS,
    Block,
    _attend_by_products,
    _attend_in_blocks,
    attending,
    by_products,
)
from fastslow.slow.local.forest import pack_forests

HEADS, KV_HEADS, SIZE = 6, 2, 8


def by_autograd(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[Block]) -> torch.Tensor:
    """The same with slices of which autograd keeps track."""
    grouped = query.view(KV_HEADS, HEADS // KV_HEADS, -1, SIZE)
    parts = [
        scaled_dot_product_attention(
            grouped[:, :, block.start : block.stop],
            key[0][:, None][:, :, block.keys].expand(-1, HEADS // KV_HEADS, -1, -1),
            value[0][:, None][:, :, block.keys].expand(-1, HEADS // KV_HEADS, -1, -1),
            attn_mask=block.mask,
        )
        for block in blocks
    ]
    return torch.cat(parts, dim=2).reshape(1, HEADS, -1, SIZE)


def test_outputs_and_gradients_are_autograds() -> None:
    rollouts = [[1] * 150 + [2 + r % 3] * 40 + list(range(10 + 90 * r, 100 + 90 * r)) for r in range(9)]
    (forest,) = pack_forests(rollouts, 2000)
    with attending(forest, torch.device("cpu"), torch.float32):
        blocks = ACTIVE_BLOCKS.get()
    assert blocks is not None
    assert {type(block.keys) for block in blocks} == {slice, torch.Tensor}
    made = torch.Generator().manual_seed(0)
    start = [torch.randn(1, heads, len(forest), SIZE, generator=made) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    upstream = torch.randn(1, HEADS, len(forest), SIZE, generator=made)
    found = []
    for attend in (lambda *nodes: _attend_in_blocks(*nodes, blocks, None), lambda *nodes: by_autograd(*nodes, blocks)):
        nodes = [tensor.clone().requires_grad_() for tensor in start]
        output = attend(*nodes)
        output.backward(upstream)
        found.append([output.detach(), *(tensor.grad for tensor in nodes)])
    for ours, expected in zip(*found, strict=True):
        assert torch.equal(ours, expected)
        assert ours.abs().sum() > 0


def test_products_of_bfloat16_are_within_rounding_of_float32_and_so_are_their_gradients() -> None:
    rollouts = [[1] * 60 + [2 + r % 3] * 40 + list(range(10 + 90 * r, 60 + 90 * r)) for r in range(4)]
    (forest,) = pack_forests(rollouts, 2000)
    made = torch.Generator().manual_seed(0)
    sizes = {"query": (HEADS, SIZE), "key": (KV_HEADS, SIZE), "value": (KV_HEADS, SIZE + 2)}  # as in latent attention
    start = [torch.randn(1, heads, len(forest), size, generator=made).bfloat16() for heads, size in sizes.values()]
    upstream = torch.randn(1, HEADS, len(forest), SIZE + 2, generator=made).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        with attending(forest, torch.device("cpu"), dtype):
            blocks = ACTIVE_BLOCKS.get()
        assert blocks is not None and len(blocks) > 1
        nodes = [tensor.detach().to(dtype).requires_grad_() for tensor in start]
        assert by_products(nodes[0]) is (dtype == torch.bfloat16)
        output = _attend_in_blocks(*nodes, blocks, 0.3)
        output.backward(upstream.to(dtype))
        found.append([output.detach(), *(tensor.grad for tensor in nodes)])
    for ours, expected in zip(*found, strict=True):
        assert ours.dtype == torch.bfloat16
        error = (ours.float() - expected).abs()
        assert error.mean() < 0.01 * expected.abs().mean()
        assert error.max() < 0.03 * expected.abs().max()


def test_a_block_keeps_neither_weights_nor_a_mask_of_its_own() -> None:
    made = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(KV_HEADS, heads, nodes, SIZE, generator=made).bfloat16().requires_grad_()
        for heads, nodes in ((3, 64), (1, 96), (1, 96))
    )
    mask = torch.zeros(1, 1, 64, 96).bfloat16()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _attend_by_products(query, key, value, mask, None)
    wide = [tensor for tensor in kept if tensor.shape[-1] == 96]
    assert len(kept) == 4
    assert [tensor.data_ptr() for tensor in wide] == [mask.data_ptr()]
