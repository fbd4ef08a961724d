"""Attention over a pack's blocks: the sum over blocks in one tensor is what plain autograd gives, to the last bit."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from fastslow.slow.local.attention import ACTIVE_BLOCKS, Block, _attend_in_blocks, attending
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
