"""Keys and values of live episodes, kept between their turns, so that a turn's context is not computed again.

What a row keeps are keys and values of its context and completion, all but the last token, which no model has seen.
Rows of one pack share its pool. A row is given up when a request continues it, when it is released, when the weights
move, and when there is no room: then its tokens are computed again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from fastslow.slow.engine import SampleRequest
from fastslow.slow.local.attention import PrefixPool
from fastslow.slow.local.forest import Forest

Tokens = tuple[int, ...]
GIB = 2**30


@dataclass(frozen=True)
class KeptRow:
    """Keys and values of one row: nodes `path` of a pool, and then its own tokens.

    Shapes: keys and values by layer, (KV heads, own tokens, size); empty lists where a row has no token of its own.
    """

    pool: PrefixPool
    path: Sequence[int]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.path) + self.own

    @property
    def own(self) -> int:
        """Tokens of its own."""
        return self.keys[0].shape[1] if self.keys else 0


class Kept:
    """What is kept, at most `gib` GiB of it.

    Where there is no room, rows that no call has continued since the one before the last go first, then the latest.
    """

    def __init__(self, gib: float) -> None:
        self.most = int(gib * GIB)
        self.bytes = self.call = 0
        self._rows: dict[Tokens, tuple[KeptRow, int]] = {}
        self._rows_of_pool: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def begin(self) -> None:
        """A call of the sampler begins."""
        self.call += 1

    def take(self, requests: Sequence[SampleRequest]) -> list[KeptRow | None]:
        """What is known of each request's context; it is no longer kept."""
        names = [request.context_tokens[: request.continued_tokens] for request in requests]
        found = [self._rows[name][0] if name in self._rows else None for name in names]
        self.release(names)
        return found

    def put(self, tokens: Tokens, row: KeptRow) -> None:
        """Keep a row, whose tokens these are. Where a cache holds no keys and values (latent attention),
        nothing is kept.
        """
        self.release([tokens])
        if row.keys and any(
            own.shape[::2] != shared.shape[::2]
            for own, shared in zip((row.keys[0], row.values[0]), (row.pool.keys[0], row.pool.values[0]), strict=True)
        ):
            return
        self._rows[tokens] = row, self.call
        self.bytes += _bytes([*row.keys, *row.values])
        self._rows_of_pool[id(row.pool)] += 1
        if self._rows_of_pool[id(row.pool)] == 1:
            self.bytes += _bytes([*row.pool.keys, *row.pool.values])

    def release(self, names: Sequence[Tokens]) -> None:
        """Rows that nothing continues any more."""
        for name in names:
            if name not in self._rows:
                continue
            row, _ = self._rows.pop(name)
            self.bytes -= _bytes([*row.keys, *row.values])
            self._rows_of_pool[id(row.pool)] -= 1
            if not self._rows_of_pool[id(row.pool)]:
                del self._rows_of_pool[id(row.pool)]
                self.bytes -= _bytes([*row.pool.keys, *row.pool.values])

    def clear(self) -> None:
        """Nothing is known any more."""
        self.release(list(self._rows))

    def shrink(self) -> None:
        """Give rows up until the rest has room."""
        for name in self._leaving():
            if self.bytes <= self.most:
                return
            self.release([name])

    def _leaving(self) -> Iterator[Tokens]:
        stale = [name for name, (_, call) in self._rows.items() if call < self.call - 1]
        yield from stale
        yield from [name for name in reversed(self._rows) if name not in set(stale)]


def fill_pool(pool: PrefixPool, forest: Forest, known: Mapping[int, KeptRow]) -> None:
    """Put what is known of a pack's nodes into its pool, and note in `pool.fresh` which ones are still to be computed.

    `known` is by place in the pack. The last node of a context is always computed: its logits are asked for.
    """
    filled: set[int] = set()
    pools: dict[int, _Moves] = {}
    rows: list[_Moves] = []
    for place, row in known.items():
        path, shared = forest.paths[place], len(row.path)
        pools.setdefault(id(row.pool), _Moves(row.pool)).add(path[:shared], row.path, filled)
        rows.append(_Moves(row))
        rows[-1].add(path[shared : len(row)], range(row.own), filled)
    ends = {path[-1] for path in forest.paths}
    model = next(iter(known.values())).pool
    device = model.keys[0].device
    pool.fresh = _index([node for node in range(len(forest)) if node not in filled or node in ends], device)
    moves = [each for each in (*pools.values(), *rows) if each.nodes]
    nodes = _index([node for each in moves for node in each.nodes], device)
    for name in ("keys", "values"):
        for layer, like in enumerate(getattr(model, name)):
            part = like.new_empty(like.shape[0], len(forest), like.shape[2])
            part[:, nodes] = torch.cat([getattr(m.source, name)[layer][:, m.indices(device)] for m in moves], dim=1)
            getattr(pool, name).append(part)


@dataclass
class _Moves:
    """Which nodes of a pack come from a source, and where they stand in it."""

    source: PrefixPool | KeptRow
    nodes: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    _indices: torch.Tensor | None = None

    def add(self, nodes: Sequence[int], places: Sequence[int], filled: set[int]) -> None:
        """All of them that nothing has filled yet."""
        for node, place in zip(nodes, places, strict=True):
            if node not in filled:
                filled.add(node)
                self.nodes.append(node)
                self.places.append(place)

    def indices(self, device: torch.device) -> torch.Tensor:
        """The places, on the device."""
        if self._indices is None:
            self._indices = _index(self.places, device)
        return self._indices


def _index(values: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)


def _bytes(parts: Sequence[torch.Tensor]) -> int:
    return sum(part.numel() * part.element_size() for part in parts)
