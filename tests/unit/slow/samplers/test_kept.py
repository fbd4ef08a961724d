"""Keys and values of live episodes: what is kept, what goes first, and how a pool is filled from it."""

from typing import Any

import pytest
import torch

from fastslow.slow.engine import SampleRequest
from fastslow.slow.local.attention import PrefixPool
from fastslow.slow.local.forest import pack_forests
from fastslow.slow.samplers.kept import GIB, Kept, KeptRow, fill_pool

HEADS, SIZE, LAYERS = 2, 3, 2
TOKEN_BYTES = 2 * LAYERS * HEADS * SIZE * 4


def states(tokens: list[int], *, scale: float = 1.0) -> list[torch.Tensor]:
    """Keys that say which token they are of, one tensor a layer."""
    row = torch.tensor(tokens, dtype=torch.float32)[None, :, None].expand(HEADS, -1, SIZE)
    return [scale * (row + 100 * layer) for layer in range(LAYERS)]


def pool_of(tokens: list[int]) -> PrefixPool:
    return PrefixPool(0, 0, torch.empty(0), states(tokens), states(tokens, scale=-1.0))


def row_of(pool: PrefixPool, path: list[int], own: list[int]) -> KeptRow:
    return KeptRow(pool, path, states(own) if own else [], states(own, scale=-1.0) if own else [])


def request(context: tuple[int, ...], known: int) -> SampleRequest:
    return SampleRequest(context, 1, 0, known, keep=True)


def kept(tokens: int = 1000) -> Kept:
    store = Kept(tokens * TOKEN_BYTES / GIB)
    store.begin()
    return store


def test_a_row_is_found_by_its_tokens_and_given_up_with_that() -> None:
    store, row = kept(), row_of(pool_of([1, 2]), [0, 1], [3])
    store.put((1, 2, 3, 4), row)
    asked = [request((1, 2, 3, 4, 9), 4), request((1, 2, 3, 4, 8), 4), request((1, 2, 3, 4), 0), request((7, 7), 2)]
    assert store.take(asked) == [row, row, None, None]
    assert (store.take(asked), len(store), store.bytes) == ([None] * 4, 0, 0)


def test_bytes_count_a_shared_pool_once_and_until_its_last_row_goes() -> None:
    store, pool = kept(), pool_of([1, 2])
    store.put((1, 2, 3, 4), row_of(pool, [0, 1], [3]))
    store.put((1, 2, 5), row_of(pool, [0, 1], []))
    store.put((1, 2, 5), row_of(pool, [0, 1], []))
    assert (len(store), store.bytes) == (2, 3 * TOKEN_BYTES)
    store.release([(1, 2, 3, 4), (9,)])
    assert store.bytes == 2 * TOKEN_BYTES
    store.clear()
    assert (len(store), store.bytes) == (0, 0)


def test_without_room_what_nothing_has_continued_goes_first_and_then_the_latest() -> None:
    store = kept(tokens=5)
    for call, names in enumerate([(0,), (1, 2), (3, 4)]):
        if call:
            store.begin()
        for name in names:
            store.put((name,), row_of(pool_of([name]), [0], [name]))
    store.shrink()
    assert [store.take([request((name, 9), 1)])[0] is not None for name in range(5)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_without_room_for_anything_nothing_is_kept() -> None:
    store = kept(tokens=1)
    store.put((1, 2), row_of(pool_of([1, 2]), [0, 1], []))
    store.shrink()
    assert (len(store), store.bytes) == (0, 0)


@pytest.mark.parametrize("size", [(HEADS, 1, SIZE + 1), (1, 1, SIZE)])
def test_a_cache_that_holds_no_keys_and_values_is_not_kept(size: tuple[int, ...]) -> None:
    store, compressed = kept(), [torch.zeros(size)] * LAYERS
    store.put((1, 2), KeptRow(pool_of([1]), [0], compressed, compressed))
    assert (len(store), store.bytes) == (0, 0)


def fill(contexts: list[list[int]], known: dict[int, KeptRow]) -> tuple[PrefixPool, Any]:
    (forest,) = pack_forests(contexts, 100)
    pool = PrefixPool(0, 0, torch.empty(0))
    fill_pool(pool, forest, {forest.members.index(context): row for context, row in known.items()})
    return pool, forest


def test_a_pool_gets_what_is_known_from_pools_and_rows_and_the_rest_is_fresh() -> None:
    old, other = pool_of([50, 1, 2, 60]), pool_of([7])
    contexts = [[1, 2, 3, 4, 5], [1, 2, 6, 6], [7, 8, 9]]
    known = {0: row_of(old, [1, 2], [3]), 1: row_of(old, [1, 2], [6]), 2: row_of(other, [0], [8])}
    pool, forest = fill(contexts, known)
    assert pool.fresh is not None
    fresh = pool.fresh.tolist()
    assert [forest.tokens[node] for node in fresh] == [4, 5, 6, 9]
    there = [node for node in range(len(forest)) if node not in fresh]
    tokens = [forest.tokens[node] for node in there]
    for layer in range(LAYERS):
        assert torch.equal(pool.keys[layer][:, there], states(tokens)[layer])
        assert torch.equal(pool.values[layer][:, there], states(tokens, scale=-1.0)[layer])


def test_the_end_of_a_context_is_computed_though_another_episode_has_it() -> None:
    pool, forest = fill([[1, 2, 3, 4], [1, 2]], {0: row_of(pool_of([1, 2, 3]), [0, 1, 2], [])})
    assert pool.fresh is not None
    assert [forest.tokens[node] for node in pool.fresh.tolist()] == [2, 4]
