"""Tensors of fixed size and address that a chunk of rows is decoded in, and then the next one of the same shape."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin


def bucket(count: int) -> int:
    """The smallest of 0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96 ... that holds `count`."""
    power = 1 << max(0, count - 1).bit_length()
    return 0 if count == 0 else power * 3 // 4 if power > 16 and count <= power * 3 // 4 else power


def doubled(count: int, unit: int) -> int:
    """The smallest of unit, 2 * unit, 4 * unit ... that holds `count`."""
    return unit << max(0, -(-count // unit) - 1).bit_length()


class StaticLayer(CacheLayerMixin):
    """Keys and values of the rows' own completions. `at` (1,) on the device says where the next token goes.

    `full` is the size of the buffers, rows and room for tokens; a step sees the corner `seen` of them.
    """

    def __init__(self, at: torch.Tensor, full: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.at, self.full, self.seen = at, full, full

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Zeros: what is masked must still be finite."""
        rows, room = self.full
        self._keys, self._values = (
            states.new_zeros(rows, states.shape[1], room, states.shape[-1]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put one token a row in its place; all keys and values that are seen, those to come included."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, room = self.seen
        keys, values = self._keys[:rows, :, :room], self._values[:rows, :, :room]
        keys.index_copy_(2, self.at, key_states)
        values.index_copy_(2, self.at, value_states)
        return keys, values

    def select(self, rows: torch.Tensor) -> None:
        """Move these rows, ascending, to the front; addresses stay."""
        if self.is_initialized:
            for part in (self._keys, self._values):
                part[: len(rows)] = part[rows]

    def copies(self, row: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a row's first tokens, (KV heads, tokens, size) both."""
        return self._keys[row, :, :tokens].clone(), self._values[row, :, :tokens].clone()

    def enlarge(self, rows: int, room: int) -> None:
        """New buffers of this size with what the first rows hold."""
        self.full = self.seen = rows, room
        if self.is_initialized:
            self._keys, self._values = (_enlarged(part, rows, room) for part in (self._keys, self._values))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As transformers asks it of a cache layer."""
        return self.seen[1], 0

    def get_seq_length(self) -> int:
        """Nothing that a step may compute with: positions are given to it."""
        return 0

    def get_max_length(self) -> int:
        """Room for own tokens."""
        return self.full[1]


def _enlarged(part: torch.Tensor, rows: int, room: int) -> torch.Tensor:
    larger = part.new_zeros(rows, part.shape[1], room, part.shape[-1])
    larger[:, :, : part.shape[2]] = part[:rows]
    return larger


@dataclass(frozen=True)
class Shape:
    """Rows, the most tokens of a completion, and of each group of pools: pools, slots, nodes."""

    rows: int
    max_tokens: int
    groups: tuple[tuple[int, int, int], ...]


class Buffers:
    """What the steps of one shape read and write, besides the weights.

    Shapes: step (1,), the own tokens whose keys are there; ids, lengths, slot_of_row (rows,); noise, tokens,
    logprobs (rows, max_tokens); short (1,): some nucleus was too wide. Of each group: a mask and the rows of its
    slots, flat; keys and values by layer, (pools, KV heads, nodes, size). `layers` are the rows' own, made when the
    number of layers is known.
    """

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape

        def zeros(*size: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(*size, dtype=dtype, device=device)

        rows, columns = shape.rows, shape.max_tokens
        self.step, self.ids, self.lengths, self.slot_of_row = zeros(1), zeros(rows), zeros(rows), zeros(rows)
        self.noise = zeros(rows, columns, dtype=torch.float64)
        self.tokens, self.logprobs = zeros(rows, columns), zeros(rows, columns, dtype=torch.float32)
        self.short = zeros(1, dtype=torch.bool)
        self.masks = [zeros(pools * slots * nodes, dtype=dtype) for pools, slots, nodes in shape.groups]
        self.rows_of_slots = [zeros(pools * slots) for pools, slots, _ in shape.groups]
        self.keys: list[list[torch.Tensor]] = [[] for _ in shape.groups]
        self.values: list[list[torch.Tensor]] = [[] for _ in shape.groups]
        self.layers: list[StaticLayer] = []

    def put_prefix(self, group: int, pool: int, keys: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        """Put keys and values of a prefix, by layer (KV heads, N, size), into their place. What is beyond N stays,
        masked.
        """
        pools, _, nodes = self.shape.groups[group]
        for buffers, parts in ((self.keys[group], keys), (self.values[group], values)):
            if not buffers:
                buffers += [part.new_zeros(pools, part.shape[0], nodes, part.shape[2]) for part in parts]
            for buffer, part in zip(buffers, parts, strict=True):
                buffer[pool, :, : part.shape[1]] = part

    def select_prefixes(self, group: int, pools: torch.Tensor) -> None:
        """Move these pools of a group, ascending, to the front."""
        for buffer in (*self.keys[group], *self.values[group]):
            buffer[: len(pools)] = buffer[pools]

    def bytes_a_token(self) -> int:
        """What a token's keys and values take, in all layers; latent attention keeps less of the rows' own tokens."""
        parts = (*self.keys[0], *self.values[0])
        return sum(part.shape[1] * part.shape[3] * part.element_size() for part in parts)

    def enlarge(self, rows: int, room: int) -> None:
        """More room for the own tokens of the first rows; all of them but these are given up."""
        self.shape = Shape(rows, self.shape.max_tokens, self.shape.groups)
        for layer in self.layers:
            layer.enlarge(rows, room)
