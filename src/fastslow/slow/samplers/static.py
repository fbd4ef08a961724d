"""The decoder for a GPU: fixed shapes and addresses, so that a step can be captured, and no step waits for the host.

What differs from `ForestDecoder`, which gives the same numbers: rows come in buckets, and finished ones stay as padding
until half of a bucket is idle; a step works on tensors that are there already, and draws its tokens on the device.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache

from fastslow.slow.engine import SamplingParams
from fastslow.slow.local.attention import PrefixPool, additive_mask
from fastslow.slow.local.cascade import Cascade, PoolGroup, attend_parts, cascading
from fastslow.slow.local.forest import Forest, pack_forests
from fastslow.slow.samplers.cache_names import with_cache
from fastslow.slow.samplers.decoders import POOL_TOKENS, Tokens, kept_row, prefill_pack, visible_nodes
from fastslow.slow.samplers.drawing import NUCLEUS_CANDIDATES, draw_at_width
from fastslow.slow.samplers.fused import Fusion
from fastslow.slow.samplers.graphs import Replays, Step
from fastslow.slow.samplers.kept import KeptRow
from fastslow.slow.samplers.static_buffers import Buffers, Shape, StaticLayer, bucket, doubled

# Room for own tokens and the nodes of pools are these numbers times a power of two.
ROOM, NODES = 64, 64
# Up to this share of a GPU's free memory, room for whole completions is taken at once;
# otherwise it doubles as they grow.
SHARE_OF_MEMORY = 0.25
# A replayed step and the same step done again: most rows must draw the same token,
# at log-probabilities so near (in nats).
SAME_TOKENS = 0.75
NATS = {torch.float32: 1e-3}
NARROW_NATS = 0.25


@dataclass
class _Group:
    """Pools of about one length with about as many rows each. `contexts` are rows of `visible`; the last sees all."""

    pools: list[int]
    room: int
    slots: int
    nodes: int
    contexts: dict[int, int]
    visible: torch.Tensor | None = None


class StaticDecoder:
    """A `Decoder` over prefix pools whose steps have fixed shapes. The model must run on the `fastslow` attention.

    Each context must have a row. `buffers` are those of an earlier decoder with the same `replays`, used again where
    they fit. `known` is what was kept, by context; `keep` are the contexts whose rows may be kept. `fusion` compiles
    the steps' small operations.
    """

    def __init__(
        self,
        model: Any,
        contexts: Sequence[Tokens],
        counts: Sequence[int],
        budget_tokens: int,
        max_tokens: int,
        replays: Replays | None = None,
        buffers: Buffers | None = None,
        known: Mapping[int, KeptRow] | None = None,
        keep: Collection[int] = (),
        fusion: Fusion | None = None,
    ) -> None:
        self.model, self.device, self.fusion = model, model.device, fusion
        self.known, self.kept_contexts = known or {}, frozenset(keep)
        self._pools: dict[int, PrefixPool] = {}
        self.replays = replays or Replays(None)
        self.forests = pack_forests(contexts, budget_tokens, related_from=POOL_TOKENS)
        self.context_of_row = [index for index, count in enumerate(counts) for _ in range(count)]
        self.context_lengths = [len(context) for context in contexts]
        self.pool_of_context = {context: pool for pool, f in enumerate(self.forests) for context in f.members}
        self.groups = self._grouped()
        shape = Shape(
            bucket(len(self.context_of_row)), max_tokens, tuple((g.room, g.slots, g.nodes) for g in self.groups)
        )
        if buffers is None or buffers.shape != shape:
            self.replays.forget()
            buffers = Buffers(shape, self.device, model.dtype)
        self.buffers = buffers
        self.rows = shape.rows
        self.own_tokens = self.computed_tokens = self.kept_tokens = 0
        self.width: int | None = NUCLEUS_CANDIDATES
        self.cache: Cache | None = None
        self._pool_groups: list[PoolGroup] = []

    # -- the protocol of a decoder -------------------------------------------------------------------------------------

    def prefill(self) -> torch.Tensor:
        """As `Decoder.prefill`."""
        found: dict[int, torch.Tensor] = {}
        for number, group in enumerate(self.groups):
            group.visible = torch.ones(len(group.contexts) + 1, group.nodes, dtype=torch.bool, device=self.device)
            for place, pool in enumerate(group.pools):
                forest = self.forests[pool]
                found |= zip(forest.members, self._prefill(number, place, forest), strict=True)
        buffers = self.buffers
        if not buffers.layers:
            full = buffers.shape.rows, self._first_room()
            buffers.layers = [StaticLayer(buffers.step, full) for _ in buffers.keys[0]]
        self.cache = Cache(layers=list(buffers.layers))
        buffers.step.zero_()
        self._write(buffers.lengths, [self.context_lengths[context] for context in self.context_of_row])
        self._lay_out()
        return torch.stack([found[context] for context in self.context_of_row])

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """As `Decoder.step`, outside of any graph."""
        self._write(self.buffers.ids, tokens)
        self._reserve(self.own_tokens + 1)
        logits = self._forward(self._room())
        self.buffers.step.add_(1)
        self._count()
        return logits[: len(tokens)]

    def keep(self, rows: Sequence[int]) -> None:
        """As `Decoder.keep`; the rows ascend."""
        buffers = self.buffers
        selection = torch.tensor(rows, device=self.device)
        for tensor in (buffers.ids, buffers.lengths, buffers.noise):
            tensor[: len(rows)] = tensor[selection]
        for layer in buffers.layers:
            layer.select(selection)
        self.context_of_row = [self.context_of_row[row] for row in rows]
        self.rows = bucket(len(rows))
        self._lay_out()

    def kept_rows(self, rows: Sequence[int], own_tokens: Sequence[int]) -> list[KeptRow]:
        """As `Decoder.kept_rows`."""
        found = []
        for row, own in zip(rows, own_tokens, strict=True):
            context = self.context_of_row[row]
            pool = self.pool_of_context[context]
            forest = self.forests[pool]
            path = forest.paths[forest.members.index(context)]
            found.append(kept_row(self._pools[pool], path, self.buffers.layers, row, own))
        return found

    # -- drawing on the device -----------------------------------------------------------------------------------------

    def begin(self, tokens: torch.Tensor, noise: torch.Tensor) -> None:
        """Before the first `draw_block`: every row's first token (rows,), and the noise of its draws (rows,
        max_tokens).
        """
        self.buffers.ids[: len(tokens)] = tokens
        self.buffers.noise[: len(noise)] = noise

    def draw_block(self, count: int, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
        """The next `count` tokens of every row and their log-probabilities, (rows, count) both, on the device.

        Rows that come to their end go on like the others: whoever reads the tokens cuts them.
        """
        buffers, start, ids = self.buffers, self.own_tokens, self.buffers.ids.clone()
        self._reserve(start + count)
        buffers.short.zero_()
        self._advance(count, params)
        if params.top_p < 1.0 and bool(buffers.short):
            # A nucleus was wider than that: the block again, and all that follow, over the whole vocabulary.
            self.width = None
            buffers.ids.copy_(ids)
            buffers.step.fill_(start)
            self.own_tokens = start
            self._advance(count, params)
        rows, drawn = len(self.context_of_row), slice(start + 1, start + count + 1)
        return buffers.tokens[:rows, drawn], buffers.logprobs[:rows, drawn]

    def _advance(self, count: int, params: SamplingParams) -> None:
        for _ in range(count):
            room, width = self._room(), self.width

            def step(room: int = room, width: int | None = width) -> None:
                self._draw_one(room, params, width)

            key = (self.rows, room, params, width, tuple(group.mask.shape for group in self._pool_groups))
            if not self.buffers.layers[0].is_initialized:
                step()  # it makes the layers' buffers, which must not lie in a graph's memory
            elif self.replays.to_prove(key):
                self._prove(key, step)
            else:
                self.replays.run(key, step)
            self._count()

    def _draw_one(self, room: int, params: SamplingParams, width: int | None) -> None:
        """What a graph captures: one token of every row, from what the last step has left."""
        buffers, rows = self.buffers, self.rows
        logits = self._forward(room)
        at = buffers.step + 1
        tokens, logprobs, short = draw_at_width(logits, buffers.noise[:rows].index_select(1, at)[:, 0], params, width)
        if short is not None:
            buffers.short.logical_or_(short)
        buffers.tokens[:rows].index_copy_(1, at, tokens[:, None])
        buffers.logprobs[:rows].index_copy_(1, at, logprobs[:, None])
        buffers.ids[:rows].copy_(tokens)
        buffers.step.add_(1)

    def _forward(self, room: int) -> torch.Tensor:
        """Logits of every row of the bucket, (rows, vocabulary). Doing it twice is doing it once."""
        if self.fusion is not None and self.fusion.reason is None:
            try:
                with self.fusion.applied(self.model) as attend:
                    return self._logits(room, attend)
            except Exception as error:  # whatever a compiler says of a foreign model, it is run as it is
                self.fusion.give_up(error)
        return self._logits(room, attend_parts)

    def _logits(self, room: int, attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        buffers, rows = self.buffers, self.rows
        for layer in buffers.layers:
            layer.seen = rows, room
        own_mask = additive_mask(torch.arange(room, device=self.device) <= buffers.step, torch.float32)
        with cascading(Cascade(self._pool_groups, buffers.slot_of_row[:rows], own_mask, attend)):
            output = self.model(
                input_ids=buffers.ids[:rows, None],
                position_ids=(buffers.lengths[:rows] + buffers.step)[:, None],
                attention_mask=torch.zeros(rows, 1, 1, 1, device=self.device, dtype=self.model.dtype),
                **with_cache(self.model, self.cache),
                use_cache=True,
            )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    # -- a recording is compared once ----------------------------------------------------------------------------------

    def _prove(self, key: Hashable, step: Step) -> None:
        """Replay a step, do it again as it is, and give recordings up where the two differ.

        A forward pass that computes with a number of the host would repeat the recorded step's number for ever.
        """
        buffers, at, fed = self.buffers, self.own_tokens + 1, self.buffers.ids.clone()
        self.replays.run(key, step)
        tokens, logprobs = (part[: self.rows, at].clone() for part in (buffers.tokens, buffers.logprobs))
        buffers.ids.copy_(fed)
        buffers.step.fill_(self.own_tokens)
        step()
        same = tokens == buffers.tokens[: self.rows, at]
        gaps = (logprobs - buffers.logprobs[: self.rows, at]).abs()[same]
        allowed = NATS.get(self.model.dtype, NARROW_NATS)
        if float(same.double().mean()) < SAME_TOKENS or not float(gaps.max()) <= allowed:
            self.replays.give_up(f"{int((~same).sum())} of {self.rows} rows draw another token than without it")
        self.replays.proven = True

    # -- shapes --------------------------------------------------------------------------------------------------------

    def _grouped(self) -> list[_Group]:
        """Pools of about one length with about as many rows, together."""
        rows = Counter(self.pool_of_context[context] for context in self.context_of_row)
        found: dict[tuple[int, int], list[int]] = {}
        for pool, forest in enumerate(self.forests):
            found.setdefault((doubled(len(forest), NODES), bucket(rows[pool])), []).append(pool)
        groups = []
        for (nodes, slots), pools in sorted(found.items()):
            members = [context for pool in pools for context in self.forests[pool].members]
            groups.append(_Group(pools, bucket(len(pools)), slots, nodes, {c: i for i, c in enumerate(members)}))
        return groups

    def _prefill(self, number: int, place: int, forest: Forest) -> torch.Tensor:
        """Logits of a pack's contexts, (contexts, vocabulary); its keys and values go to a place in group `number`."""
        group, nothing = self.groups[number], torch.empty(0)
        pool = PrefixPool(0, 0, nothing)
        logits, computed = prefill_pack(self.model, forest, pool, self.known)
        self.computed_tokens += computed
        self.kept_tokens += len(forest) - computed
        if not self.kept_contexts.isdisjoint(forest.members):
            self._pools[group.pools[place]] = PrefixPool(0, 0, nothing, pool.keys, pool.values)
        self.buffers.put_prefix(number, place, pool.keys, pool.values)
        assert group.visible is not None
        visible = visible_nodes(forest).to(self.device)
        for context, row in zip(forest.members, visible, strict=True):
            mine = group.visible[group.contexts[context]]
            mine.zero_()
            mine[: len(forest)] = row
        return logits

    def _lay_out(self) -> None:
        """Give every row a slot of its pool; groups shrink to the pools and slots that are still needed."""
        self._pool_groups = []
        slot_of_row, before = [0] * len(self.context_of_row), 0
        for number, group in enumerate(self.groups):
            rows_of_pool: dict[int, list[int]] = {}
            for row, context in enumerate(self.context_of_row):
                rows_of_pool.setdefault(self.pool_of_context[context], []).append(row)
            live = [place for place, pool in enumerate(group.pools) if pool in rows_of_pool]
            if bucket(len(live)) < group.room:
                self.buffers.select_prefixes(number, torch.tensor(live, dtype=torch.int64, device=self.device))
                group.pools, group.room = [group.pools[place] for place in live], bucket(len(live))
            if not group.room:
                continue
            most = max(len(rows_of_pool.get(pool, ())) for pool in group.pools)
            group.slots = min(group.slots, bucket(most))
            rows_of_slots = [[0] * group.slots for _ in range(group.room)]
            seen = [[len(group.contexts)] * group.slots for _ in range(group.room)]
            for place, pool in enumerate(group.pools):
                for slot, row in enumerate(rows_of_pool.get(pool, ())):
                    rows_of_slots[place][slot] = row
                    seen[place][slot] = group.contexts[self.context_of_row[row]]
                    slot_of_row[row] = before + place * group.slots + slot
            before += group.room * group.slots
            self._pool_groups.append(self._views(number, group, rows_of_slots, seen))
        # Padding looks into the first slot: what it left from before might be no slot any more.
        self._write(self.buffers.slot_of_row, slot_of_row + [0] * (self.rows - len(slot_of_row)))

    def _views(self, number: int, group: _Group, rows_of_slots: list[list[int]], seen: list[list[int]]) -> PoolGroup:
        """The group as attention sees it, in the corners of its buffers that are in use."""
        assert group.visible is not None
        buffers, slots = self.buffers, group.room * group.slots
        mask = buffers.masks[number][: slots * group.nodes].view(group.room, group.slots, group.nodes)
        mask.copy_(additive_mask(group.visible[torch.tensor(seen, device=self.device)], mask.dtype))
        rows = buffers.rows_of_slots[number][:slots].view(group.room, group.slots)
        rows.copy_(torch.tensor(rows_of_slots, device=self.device))
        keys, values = ([part[: group.room] for part in parts[number]] for parts in (buffers.keys, buffers.values))
        return PoolGroup(mask, rows, keys, values)

    def _room(self) -> int:
        """Own tokens that the next step sees: those that are there, its own, and what fills the room up."""
        return min(doubled(self.own_tokens + 1, ROOM), self.buffers.layers[0].full[1])

    def _first_room(self) -> int:
        """Own tokens that buffers are made for."""
        most = doubled(self.buffers.shape.max_tokens, ROOM)
        if self.device.type != "cuda":
            return most
        free, _ = torch.cuda.mem_get_info(self.device)
        return most if self.buffers.bytes_a_token() * most * self.rows <= SHARE_OF_MEMORY * free else ROOM

    def _reserve(self, own_tokens: int) -> None:
        """Room for so many own tokens a row."""
        _, room = self.buffers.layers[0].full
        if own_tokens > room:
            self.replays.forget()
            self.buffers.enlarge(self.rows, doubled(own_tokens, ROOM))

    def _write(self, tensor: torch.Tensor, values: Sequence[int]) -> None:
        """Numbers of the host into the first places of a tensor."""
        tensor[: len(values)] = torch.tensor(list(values), device=self.device)

    def _count(self) -> None:
        self.own_tokens += 1
        self.computed_tokens += self.rows
