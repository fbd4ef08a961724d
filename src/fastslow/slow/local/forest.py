"""Prefix sharing: many token sequences as one packed forest in which every shared prefix stands once.

A pack is a token trie, flattened depth first. A node's position is its depth, and it attends to its ancestors and
itself alone, so a forward pass over the pack gives each sequence exactly what a pass of its own would give, and the
gradient of a shared prefix is the sum over the sequences that share it. The G rollouts of a problem share its context,
and the problems of a minibatch share the system prompt, so on long evolved prompts this is most of the work.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

Tokens = Sequence[int]

# Nodes that other cuts than the plain ones must save: runs with short prompts are packed as they always were.
WORTH_A_CUT = 512
# What a pack costs besides its nodes, about: its gradients are added to what is there.
PACK_NODES = 64


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

    def blocks(self, queries: int) -> list["AttentionBlock"]:
        """The pack cut into runs of `queries` nodes, each with the only nodes that it attends to.

        Nodes stand depth first, so whatever a run attends to before its own start is an ancestor of its first node.
        """
        return [self._block(start, min(start + queries, len(self))) for start in range(0, len(self), queries)]

    def _block(self, start: int, stop: int) -> "AttentionBlock":
        before: list[int] = []
        node = self.parents[start]
        while node >= 0:
            before.append(node)
            node = self.parents[node]
        before.reverse()
        mask = np.zeros((stop - start, len(before) + stop - start), dtype=bool)
        for row, parent in enumerate(self.parents[start:stop]):
            if parent >= start:
                mask[row] = mask[parent - start]
            else:
                mask[row, : bisect_right(before, parent)] = True
            mask[row, len(before) + row] = True
        return AttentionBlock(start, stop, [*before, *range(start, stop)], torch.from_numpy(mask))


@dataclass(frozen=True)
class AttentionBlock:
    """Nodes [start, stop) of a pack as queries, and the nodes that any of them attends to, ascending.

    Shapes: mask (stop - start, len(keys)), bool: True where a query may attend.
    """

    start: int
    stop: int
    keys: list[int]
    mask: torch.Tensor


def shared_prefix_length(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that two sequences have in common."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def pack_forests(sequences: Sequence[Tokens], budget_tokens: int, *, related_from: int | None = None) -> list[Forest]:
    """Pack sequences into forests of at most `budget_tokens` nodes; a longer sequence gets a forest of its own, which its
    duplicates share.

    Sequences are sorted, so that neighbours share the longest prefixes and the packs are the same for the same input. They
    fill one pack after another. Where that cuts long prefixes apart, which each pack then computes again, the cuts are the
    ones with the fewest nodes instead. With `related_from` packs are filled, and one of so many nodes or more takes no
    sequence that would add more nodes than it shares.
    Raises ValueError on an empty sequence or a budget below 1.
    """
    if budget_tokens < 1:
        raise ValueError(f"budget_tokens is {budget_tokens}: it must be at least 1")
    if any(not len(sequence) for sequence in sequences):
        raise ValueError("a sequence is empty")
    if not sequences:
        return []
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    ordered = [sequences[index] for index in order]
    line = _Line(
        [len(sequence) for sequence in ordered],
        [0, *(shared_prefix_length(a, b) for a, b in pairwise(ordered))],
    )
    cuts = line.filled(budget_tokens, related_from)
    if related_from is None and line.computed_again(cuts) >= WORTH_A_CUT:
        fewest = line.fewest(budget_tokens)
        if line.computed_again(fewest) + WORTH_A_CUT <= line.computed_again(cuts):
            cuts = fewest
    return [_build(sequences, order[start:stop]) for start, stop in pairwise(cuts)]


@dataclass(frozen=True)
class _Line:
    """Sorted sequences: their lengths, and how much each shares with the one before it.

    Cuts are the places where packs begin, and the end.
    """

    lengths: list[int]
    shared: list[int]

    def computed_again(self, cuts: list[int]) -> int:
        """Nodes that a pack begins with and the one before has."""
        return sum(self.shared[start] for start in cuts[:-1])

    def filled(self, budget: int, related_from: int | None) -> list[int]:
        """Each pack takes what it can."""
        cuts, size = [0], 0
        for index, (length, shared) in enumerate(zip(self.lengths, self.shared, strict=True)):
            new = length - shared
            unrelated = related_from is not None and size >= related_from and new > shared
            if index and ((new and size + new > budget) or unrelated):
                cuts.append(index)
                size, new = 0, length
            size += new
        return [*cuts, len(self.lengths)]

    def fewest(self, budget: int) -> list[int]:
        """The packs that cost least, a pack as much as `PACK_NODES` nodes: the shortest path over all cuts."""
        costs, begins = [0], [0]
        for stop in range(1, len(self.lengths) + 1):
            best, after = None, 0
            for start in range(stop - 1, -1, -1):
                size = self.lengths[start] + after
                if size > budget and after:
                    break
                cost = costs[start] + size + PACK_NODES
                if best is None or cost < best:
                    best, begin = cost, start
                after += self.lengths[start] - self.shared[start]
            assert best is not None
            costs.append(best)
            begins.append(begin)
        cuts = [len(self.lengths)]
        while cuts[-1]:
            cuts.append(begins[cuts[-1]])
        return cuts[::-1]


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
