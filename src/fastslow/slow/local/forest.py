"""Prefix sharing: many token sequences as one packed forest in which every shared prefix stands once.

A pack is a token trie, flattened depth first. A node's position is its depth, and it attends to its ancestors and
itself alone, so a forward pass over the pack gives each sequence exactly what a pass of its own would give, and the
gradient of a shared prefix is the sum over the sequences that share it. The G rollouts of a problem share its context,
and the problems of a minibatch share the system prompt, so on long evolved prompts this is most of the work. The turns
of an episode continue one another: all of them cost what the last one costs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

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
    """Pack sequences into forests of at most `budget_tokens` nodes; a longer sequence gets a forest of its own,
    which its duplicates share.

    Sequences are sorted, so that neighbours share the longest prefixes and the packs are the same for the same input.
    They fill one pack after another. Where that cuts long prefixes apart, which each pack then computes again, the cuts
    are the ones with the fewest nodes instead. Sequences that continue one another are never parted, so that no pack
    computes an episode's beginning again. With `related_from` packs are filled, continuations are parted like others,
    and a pack of so many nodes or more takes no sequence that would add more nodes than it shares.
    Raises ValueError on an empty sequence or a budget below 1.
    """
    if budget_tokens < 1:
        raise ValueError(f"budget_tokens is {budget_tokens}: it must be at least 1")
    if any(not len(sequence) for sequence in sequences):
        raise ValueError("a sequence is empty")
    if not sequences:
        return []
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    units = [[index] for index in order] if related_from is not None else _chains(sequences, order)
    longest = [sequences[unit[-1]] for unit in units]
    line = _Line(
        [len(sequence) for sequence in longest],
        [0, *(shared_prefix_length(a, b) for a, b in pairwise(longest))],
    )
    cuts = line.filled(budget_tokens, related_from)
    if related_from is None and line.computed_again(cuts) >= WORTH_A_CUT:
        fewest = line.fewest(budget_tokens)
        if line.computed_again(fewest) + WORTH_A_CUT <= line.computed_again(cuts):
            cuts = fewest
    return [_build(sequences, [*chain.from_iterable(units[start:stop])]) for start, stop in pairwise(cuts)]


@dataclass(frozen=True)
class _Line:
    """Sorted sequences, or runs of them: the longest of each, and how much it shares with the one before.

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
