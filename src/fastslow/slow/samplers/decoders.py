"""Incremental decoding of a batch of rows, behind one small interface: prefill once, then one token a row and step.

`ForestDecoder` computes each shared prefix once and stores it once. `PlainDecoder` is for architectures that cannot be
packed: it prefills each distinct context once, left-padded, and copies the cache to the rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from fastslow.errors import ConfigError
from fastslow.slow.local.attention import ACTIVE_POOLS, PrefixPool, additive_mask, attending
from fastslow.slow.local.forest import Forest, pack_forests
from fastslow.slow.samplers.cache_names import cache_in, with_cache
from fastslow.slow.samplers.kept import KeptRow, fill_pool

Tokens = Sequence[int]

# Every row of a pool is multiplied with all of its keys, so a pool of this size takes in no contexts that share little.
POOL_TOKENS = 256


class Decoder(Protocol):
    """Rows are completions: context i has `counts[i]` of them, in order."""

    computed_tokens: int
    """Tokens that went through the model so far, padding included."""
    kept_tokens: int
    """Tokens of contexts whose keys and values were there already."""

    def prefill(self) -> torch.Tensor:
        """Next-token logits of every row, shape (rows, vocabulary)."""
        ...

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row; next-token logits, shape (rows, vocabulary)."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every row that is not named: finished sequences leave the batch."""
        ...

    def kept_rows(self, rows: Sequence[int], own_tokens: Sequence[int]) -> list[KeptRow]:
        """Keys and values of these rows, with so many tokens of their own; nothing where a decoder cannot give them."""
        ...


class GrowingLayer(CacheLayerMixin):
    """Keys and values of the rows' own completions, in buffers that double, so that a step copies one token only."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Room for 16 tokens a row."""
        rows, heads, _, size = key_states.shape
        self._keys = key_states.new_empty(rows, heads, 16, size)
        self._values = value_states.new_empty(rows, heads, 16, value_states.shape[-1])
        self.length = 0
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append one token a row; all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.length == self._keys.shape[2]:
            self._keys = torch.cat([self._keys, torch.empty_like(self._keys)], dim=2)
            self._values = torch.cat([self._values, torch.empty_like(self._values)], dim=2)
        self._keys[:, :, self.length] = key_states[:, :, 0]
        self._values[:, :, self.length] = value_states[:, :, 0]
        self.length += 1
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows."""
        if self.is_initialized:
            self._keys, self._values = self._keys[rows], self._values[rows]

    def copies(self, row: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a row's first tokens, (KV heads, tokens, size) both."""
        return self._keys[row, :, :tokens].clone(), self._values[row, :, :tokens].clone()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As transformers asks it of a cache layer."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens a row."""
        return self.length if self.is_initialized else 0

    def get_max_length(self) -> int:
        """There is no limit."""
        return -1


class ForestDecoder:
    """Decoding over prefix pools. The model runs on `fastslow` attention. `known` is what was kept, by context."""

    def __init__(
        self,
        model: Any,
        contexts: Sequence[Tokens],
        counts: Sequence[int],
        budget_tokens: int,
        known: Mapping[int, KeptRow] | None = None,
    ) -> None:
        self.model, self.device, self.known = model, model.device, known or {}
        self.layers: list[GrowingLayer] = []
        self.cache: Cache | None = None
        self.forests = pack_forests(contexts, budget_tokens, related_from=POOL_TOKENS)
        self.row_of: list[int] = []
        self.lengths: list[int] = []
        for forest in self.forests:
            for context in forest.members:
                offset = sum(counts[:context])
                self.row_of += range(offset, offset + counts[context])
                self.lengths += [len(contexts[context])] * counts[context]
        self.counts = list(counts)
        self.pools: list[PrefixPool] = []
        self.prefixes: list[tuple[PrefixPool, Sequence[int]]] = []
        self.computed_tokens = self.kept_tokens = 0

    def prefill(self) -> torch.Tensor:
        """As `Decoder.prefill`."""
        logits = self._in_row_order(torch.cat([self._prefill(forest) for forest in self.forests]))
        self.layers = [GrowingLayer() for _ in self.pools[0].keys]  # type: ignore[no-untyped-call]
        self.cache = Cache(layers=list(self.layers))
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """As `Decoder.step`."""
        order = torch.tensor(self.row_of, device=self.device)
        ids = torch.tensor(tokens, device=self.device)[order]
        self.computed_tokens += len(tokens)
        active = ACTIVE_POOLS.set(self.pools)
        try:
            output = self.model(
                input_ids=ids[:, None],
                position_ids=torch.tensor(self.lengths, device=self.device)[:, None],
                attention_mask=torch.zeros(len(tokens), 1, 1, 1, device=self.device, dtype=self.model.dtype),
                **with_cache(self.model, self.cache),
                use_cache=True,
            )
        finally:
            ACTIVE_POOLS.reset(active)
        self.lengths = [length + 1 for length in self.lengths]
        return self._in_row_order(output.logits[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        """As `Decoder.keep`."""
        new_index = {row: index for index, row in enumerate(rows)}
        kept = [position for position, row in enumerate(self.row_of) if row in new_index]
        selection = torch.tensor(kept, device=self.device)
        for layer in self.layers:
            layer.select(selection)
        pools, start = [], 0
        for pool in self.pools:
            inside = [position - pool.start for position in kept if pool.start <= position < pool.stop]
            if inside:
                mask = pool.mask[torch.tensor(inside, device=self.device)]
                pools.append(PrefixPool(start, start + len(inside), mask, pool.keys, pool.values))
                start += len(inside)
        self.pools = pools
        self.row_of = [new_index[self.row_of[position]] for position in kept]
        self.lengths = [self.lengths[position] for position in kept]
        self.prefixes = [self.prefixes[position] for position in kept]

    def kept_rows(self, rows: Sequence[int], own_tokens: Sequence[int]) -> list[KeptRow]:
        """As `Decoder.kept_rows`."""
        places = [self.row_of.index(row) for row in rows]
        return [
            kept_row(*self.prefixes[place], self.layers, place, own)
            for place, own in zip(places, own_tokens, strict=True)
        ]

    def _in_row_order(self, logits: torch.Tensor) -> torch.Tensor:
        if self.row_of == sorted(self.row_of):
            return logits
        restored = torch.empty_like(logits)
        restored[torch.tensor(self.row_of, device=self.device)] = logits
        return restored

    def _prefill(self, forest: Forest) -> torch.Tensor:
        """Logits of the pack's rows, (rows, vocabulary); leaves the pack's keys and values as a pool."""
        members = [place for place, context in enumerate(forest.members) for _ in range(self.counts[context])]
        place_of_row = torch.tensor(members, device=self.device, dtype=torch.int64)
        mask = additive_mask(visible_nodes(forest).to(self.device)[place_of_row], self.model.dtype)
        start = self.pools[-1].stop if self.pools else 0
        pool = PrefixPool(start, start + len(mask), mask)
        logits, computed = prefill_pack(self.model, forest, pool, self.known)
        self.computed_tokens += computed
        self.kept_tokens += len(forest) - computed
        self.pools.append(pool)
        bare = PrefixPool(0, 0, torch.empty(0), pool.keys, pool.values)
        self.prefixes += [(bare, forest.paths[place]) for place in members]
        return logits[place_of_row]


def visible_nodes(forest: Forest) -> torch.Tensor:
    """Which nodes of a pack each of its contexts consists of, (contexts, N), bool, on the host."""
    visible = torch.zeros(len(forest.paths), len(forest), dtype=torch.bool)
    for row, path in enumerate(forest.paths):
        visible[row, torch.tensor(path)] = True
    return visible


def prefill_pack(
    model: Any, forest: Forest, pool: PrefixPool, known: Mapping[int, KeptRow] | None = None
) -> tuple[torch.Tensor, int]:
    """Next-token logits of a pack's contexts, (contexts, vocabulary), in the pack's order, and how many tokens were
    computed; fills the pool's keys and values. `known` is what was kept, by context.
    """
    device = model.device
    here = {place: known[context] for place, context in enumerate(forest.members) if known and context in known}
    tokens, positions = (torch.tensor([part], device=device) for part in (forest.tokens, forest.positions))
    ends = torch.tensor([path[-1] for path in forest.paths], device=device)
    if here:
        fill_pool(pool, forest, here)
        assert pool.fresh is not None
        tokens, positions = tokens[:, pool.fresh], positions[:, pool.fresh]
        ends = torch.searchsorted(pool.fresh, ends)
    with attending(forest, device, model.dtype, pool) as blocks:
        output = model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=blocks,
            use_cache=False,
            logits_to_keep=ends,
        )
    logits: torch.Tensor = output.logits[0]
    return logits, tokens.shape[1]


def kept_row(pool: PrefixPool, path: Sequence[int], layers: Sequence[Any], row: int, own_tokens: int) -> KeptRow:
    """What a row of these layers keeps. Its own keys and values are copied."""
    own = [layer.copies(row, own_tokens) for layer in layers] if own_tokens else []
    return KeptRow(pool, path, [keys for keys, _ in own], [values for _, values in own])


class PlainDecoder:
    """Decoding with the model's own attention and cache, left-padded: for any causal LM, and the reference in tests."""

    def __init__(self, model: Any, contexts: Sequence[Tokens], counts: Sequence[int], pad_token: int) -> None:
        self.model, self.device, self.pad_token = model, model.device, pad_token
        self.contexts = list(dict.fromkeys(tuple(context) for context in contexts))
        index = {context: position for position, context in enumerate(self.contexts)}
        self.context_of = [index[tuple(c)] for c, count in zip(contexts, counts, strict=True) for _ in range(count)]
        self.cache: Any = None
        self.mask = torch.empty(0)
        self.positions = torch.empty(0)
        self.computed_tokens = self.kept_tokens = 0

    def prefill(self) -> torch.Tensor:
        """As `Decoder.prefill`."""
        longest = max(len(context) for context in self.contexts)
        padded = [[self.pad_token] * (longest - len(context)) + list(context) for context in self.contexts]
        mask = torch.tensor([[0] * (longest - len(c)) + [1] * len(c) for c in self.contexts], device=self.device)
        output = self.model(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        self.computed_tokens += mask.numel()
        rows = torch.tensor(self.context_of, device=self.device)
        self.cache = cache_in(output)
        if self.cache is None:
            raise ConfigError(
                f"model.name: {type(self.model).__name__} keeps no key-value cache, which sampling needs: take a model "
                "with attention layers"
            )
        self.cache.reorder_cache(rows)
        self.mask, self.positions = mask[rows], mask.sum(-1)[rows]
        logits: torch.Tensor = output.logits[rows, -1]
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """As `Decoder.step`."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        output = self.model(
            input_ids=torch.tensor(tokens, device=self.device)[:, None],
            attention_mask=self.mask,
            position_ids=self.positions[:, None],
            **with_cache(self.model, self.cache),
            use_cache=True,
        )
        self.computed_tokens += len(tokens)
        self.positions = self.positions + 1
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """As `Decoder.keep`."""
        selection = torch.tensor(rows, device=self.device)
        self.cache.reorder_cache(selection)
        self.mask, self.positions = self.mask[selection], self.positions[selection]

    def kept_rows(self, rows: Sequence[int], own_tokens: Sequence[int]) -> list[KeptRow]:
        """Nothing: what such a model's cache holds may be no keys and values."""
        return []
