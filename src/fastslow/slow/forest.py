"""Prefix sharing: many token sequences as one packed forest in which every shared prefix stands once.

A pack is a token trie, flattened depth first. A node's position is its depth, and it attends to its ancestors and
itself alone, so a forward pass over the pack gives each sequence exactly what a pass of its own would give, and the
gradient of a shared prefix is the sum over the sequences that share it. The G rollouts of a problem share its context,
and the problems of a minibatch share the system prompt, so on long evolved prompts this is most of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Tokens = Sequence[int]


@dataclass(frozen=True)
class Forest:
    """One pack of N nodes. `paths[i]` are the nodes of sequence `members[i]`, in order; `parents` is -1 at a root."""

    tokens: list[int]
    positions: list[int]
    parents: list[int]
    members: list[int]
    paths: list[list[int]]

    def __len__(self) -> int:
        return len(self.tokens)

    def ancestor_mask(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Shape (N, N), bool: row q is True at the nodes that node q may attend to, itself included."""
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                mask[node, : parent + 1] = mask[parent, : parent + 1]
            mask[node, node] = True
        return mask.to(device)


def shared_prefix_length(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that two sequences have in common."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def pack_forests(sequences: Sequence[Tokens], budget_tokens: int) -> list[Forest]:
    """Pack sequences into forests of at most `budget_tokens` nodes; a longer sequence gets a forest of its own, which its
    duplicates share.

    Sequences are sorted, so that neighbours share the longest prefixes and the packs are the same for the same input.
    Raises ValueError on an empty sequence or a budget below 1.
    """
    if budget_tokens < 1:
        raise ValueError(f"budget_tokens is {budget_tokens}: it must be at least 1")
    if any(not len(sequence) for sequence in sequences):
        raise ValueError("a sequence is empty")
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    packs: list[list[int]] = []
    size, last = 0, None
    for index in order:
        new = len(sequences[index]) - (
            shared_prefix_length(sequences[index], sequences[last]) if last is not None else 0
        )
        if last is None or (new and size + new > budget_tokens):
            packs.append([])
            size, new = 0, len(sequences[index])
        packs[-1].append(index)
        size, last = size + new, index
    return [_build(sequences, pack) for pack in packs]


def _build(sequences: Sequence[Tokens], members: list[int]) -> Forest:
    tokens: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    paths: list[list[int]] = []
    previous: Tokens = ()
    for index in members:
        sequence = sequences[index]
        shared = shared_prefix_length(sequence, previous)
        path = paths[-1][:shared] if paths else []
        for depth in range(shared, len(sequence)):
            parents.append(path[-1] if path else -1)
            path.append(len(tokens))
            tokens.append(sequence[depth])
            positions.append(depth)
        paths.append(path)
        previous = sequence
    return Forest(tokens, positions, parents, list(members), paths)
