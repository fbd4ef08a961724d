"""Prefix sharing: many token sequences as one packed forest in which every shared prefix stands once.

A pack is a token trie, flattened depth first. A node's position is its depth, and it attends to its ancestors and
itself alone, so a forward pass over the pack gives each sequence exactly what a pass of its own would give, and the
gradient of a shared prefix is the sum over the sequences that share it. The G rollouts of a problem share its context,
and the problems of a minibatch share the system prompt, so on long evolved prompts this is most of the work. The turns of
an episode continue one another: all of them cost what the last one costs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
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

    def blocks_of(self, nodes: Sequence[int], queries: int) -> Iterator["AttentionBlock"]:
        """As `blocks`, for these nodes alone, ascending, where keys and values of all others are there already.

        `start` and `stop` are places among `nodes`. A run takes no node that would add more keys than it shares.
        """
        start = 0
        while start < len(nodes):
            stop, keys = self._run(nodes, start, queries)
            place_of = {key: place for place, key in enumerate(keys)}
            mask = np.zeros((stop - start, len(keys)), dtype=bool)
            row_of: dict[int, int] = {}
            for row, node in enumerate(nodes[start:stop]):
                parent = self.parents[node]
                if parent in row_of:
                    mask[row] = mask[row_of[parent]]
                else:
                    mask[row, [place_of[ancestor] for ancestor in self._upwards(parent)]] = True
                mask[row, place_of[node]] = True
                row_of[node] = row
            yield AttentionBlock(start, stop, keys, torch.from_numpy(mask))
            start = stop

    def _run(self, nodes: Sequence[int], start: int, queries: int) -> tuple[int, list[int]]:
        """Where a run of at most `queries` nodes ends that begins at `start`, and what it attends to, ascending."""
        keys: set[int] = set()
        stop = start
        while stop < min(len(nodes), start + queries):
            new = []
            for node in self._upwards(nodes[stop]):
                if node in keys:
                    break
                new.append(node)
            if keys and len(new) > self.positions[nodes[stop]] + 1 - len(new):
                break
            keys.update(new)
            stop += 1
        return stop, sorted(keys)

    def _upwards(self, node: int) -> Iterator[int]:
        """The node and its ancestors; nothing for the -1 above a root."""
        while node >= 0:
            yield node
            node = self.parents[node]


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

    Sequences are sorted, so that neighbours share the longest prefixes and the packs are the same for the same input.
    A forest of `related_from` nodes or more takes no sequence that would add more nodes than it shares. Without it,
    sequences that continue one another are never parted, so that no pack computes an episode's beginning again.
    Raises ValueError on an empty sequence or a budget below 1.
    """
    if budget_tokens < 1:
        raise ValueError(f"budget_tokens is {budget_tokens}: it must be at least 1")
    if any(not len(sequence) for sequence in sequences):
        raise ValueError("a sequence is empty")
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    units = [[index] for index in order] if related_from is not None else _chains(sequences, order)
    packs: list[list[int]] = []
    size, last = 0, None
    for unit in units:
        longest = sequences[unit[-1]]
        shared = shared_prefix_length(longest, sequences[last]) if last is not None else 0
        new = len(longest) - shared
        unrelated = related_from is not None and size >= related_from and new > shared
        if last is None or (new and size + new > budget_tokens) or unrelated:
            packs.append([])
            size, new = 0, len(longest)
        packs[-1] += unit
        size, last = size + new, unit[-1]
    return [_build(sequences, pack) for pack in packs]


def _chains(sequences: Sequence[Tokens], order: Sequence[int]) -> list[list[int]]:
    """Sorted sequences in runs of which each one begins with the one before, as the turns of an episode do."""
    chains: list[list[int]] = []
    for index in order:
        last = sequences[chains[-1][-1]] if chains else ()
        if last and shared_prefix_length(sequences[index], last) == len(last):
            chains[-1].append(index)
        else:
            chains.append([index])
    return chains


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
