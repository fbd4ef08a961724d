"""Packing: whatever the sequences, the forests say the same as the sequences alone."""

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.slow.local import forest as forests_of
from fastslow.slow.local.forest import Forest, pack_forests, shared_prefix_length

# A small alphabet, so that prefixes are shared and sequences repeat.
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), max_size=12)
MANY = settings(max_examples=150, deadline=None)


def brute_force_mask(forest: Forest) -> torch.Tensor:
    mask = torch.zeros(len(forest), len(forest), dtype=torch.bool)
    for node in range(len(forest)):
        ancestor = node
        while ancestor >= 0:
            mask[node, ancestor] = True
            ancestor = forest.parents[ancestor]
    return mask


@MANY
@given(SEQUENCES, st.integers(1, 30))
def test_every_path_reproduces_its_sequence(sequences: list[list[int]], budget: int) -> None:
    forests = pack_forests(sequences, budget)
    found = {}
    for forest in forests:
        for member, path in zip(forest.members, forest.paths, strict=True):
            assert [forest.positions[node] for node in path] == list(range(len(path)))
            assert [forest.parents[node] for node in path] == [-1, *path[:-1]]
            found[member] = [forest.tokens[node] for node in path]
    assert found == dict(enumerate(sequences))
    assert sum(len(forest.members) for forest in forests) == len(sequences)


@MANY
@given(SEQUENCES, st.integers(1, 30))
def test_the_budget_holds_unless_one_sequence_alone_exceeds_it(sequences: list[list[int]], budget: int) -> None:
    for forest in pack_forests(sequences, budget):
        longest = max(len(sequences[member]) for member in forest.members)
        assert len(forest) <= budget or len(forest) == longest, "what it begins with costs nothing more"


@MANY
@given(SEQUENCES)
def test_a_forest_holds_every_distinct_prefix_once(sequences: list[list[int]]) -> None:
    prefixes = {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}
    assert sum(map(len, pack_forests(sequences, 1000))) == len(prefixes)


@MANY
@given(SEQUENCES, st.integers(1, 30))
def test_blocks_attend_to_the_transitive_closure_of_the_parents_and_look_at_nothing_else(
    sequences: list[list[int]], budget: int
) -> None:
    for forest in pack_forests(sequences, budget):
        expected = brute_force_mask(forest)
        for queries in (1, 3, 100):
            whole = torch.zeros_like(expected)
            for block in forest.blocks(queries):
                assert block.keys == sorted(block.keys)
                whole[block.start : block.stop, block.keys] = block.mask
                seen = expected[block.start : block.stop].any(0).nonzero()[:, 0].tolist()
                assert block.keys == seen
            assert torch.equal(whole, expected)


@MANY
@given(SEQUENCES, st.integers(1, 30), st.data())
def test_blocks_of_some_nodes_attend_to_all_their_ancestors(
    sequences: list[list[int]], budget: int, data: st.DataObject
) -> None:
    for forest in pack_forests(sequences, budget):
        nodes = sorted(data.draw(st.sets(st.sampled_from(range(len(forest))))))
        expected = brute_force_mask(forest)[nodes]
        for queries in (1, 3, 100):
            whole = torch.zeros_like(expected)
            for block in forest.blocks_of(nodes, queries):
                assert block.keys == sorted(block.keys) and block.stop - block.start <= queries
                whole[block.start : block.stop, block.keys] = block.mask
                assert block.keys == expected[block.start : block.stop].any(0).nonzero()[:, 0].tolist()
            assert torch.equal(whole, expected)


def test_a_block_takes_no_node_that_would_add_more_keys_than_it_shares() -> None:
    (forest,) = pack_forests([[1, 2, 3, 4], [1, 2, 3, 5], [6, 7, 8]], 100)
    ends = [path[-1] for path in forest.paths]
    assert [(block.start, block.stop) for block in forest.blocks_of(ends, 10)] == [(0, 2), (2, 3)]


@MANY
@given(SEQUENCES, st.integers(1, 30))
def test_the_turns_of_an_episode_are_never_parted(sequences: list[list[int]], budget: int) -> None:
    forests = pack_forests([[3, *sequence] for sequence in sequences] + [[3, 4], [3, 4, 5, 6], [3, 4, 5, 6, 7]], budget)
    turns = [forest for forest in forests if {len(sequences) + i for i in range(3)} & set(forest.members)]
    assert len(turns) == 1


def test_a_small_forest_by_hand() -> None:
    (forest,) = pack_forests([[1, 2, 4], [1, 2, 3], [1, 2]], 10)
    assert forest.tokens == [1, 2, 3, 4]
    assert forest.positions == [0, 1, 2, 2]
    assert forest.parents == [-1, 0, 1, 1]
    assert forest.members == [2, 1, 0]
    assert forest.paths == [[0, 1], [0, 1, 2], [0, 1, 3]]
    (last,) = forest.blocks(3)[1:]
    assert (last.start, last.stop, last.keys, last.mask.tolist()) == (3, 4, [0, 1, 3], [[True, True, True]])


def test_unrelated_sequences_part_once_a_forest_is_large_enough() -> None:
    sequences = [[1, 2, 3, 4], [1, 2, 3, 5], [1, 6, 7], [8, 9]]
    assert [f.members for f in pack_forests(sequences, 100, related_from=5)] == [[0, 1], [2, 3]]
    assert [f.members for f in pack_forests(sequences, 100, related_from=1)] == [[0, 1], [2], [3]]


def test_a_sequence_that_shares_as_much_as_it_adds_is_related() -> None:
    assert [f.members for f in pack_forests([[1, 2, 3, 4], [1, 2, 5, 6]], 100, related_from=1)] == [[0, 1]]
    assert [f.members for f in pack_forests([[1, 2, 3], [1, 2, 5, 6, 7]], 100, related_from=1)] == [[0], [1]]


def test_duplicates_of_a_sequence_over_the_budget_share_its_forest() -> None:
    forests = pack_forests([[1, 2, 3, 4]] * 3, 2)
    assert [(len(forest), forest.members) for forest in forests] == [(4, [0, 1, 2])]


def long_prompts(prompts: int, length: int, rollouts: int) -> list[list[int]]:
    """Each prompt of `length` tokens with its rollouts of 100."""
    return [[p] * length + [1000 + r] * 100 for p in range(prompts) for r in range(rollouts)]


def test_a_long_prompt_whose_rollouts_fit_one_pack_is_not_cut_apart() -> None:
    forests = pack_forests(long_prompts(4, 600, 6), 2048)
    assert [len(forest) for forest in forests] == [1200] * 4
    assert sorted(member for forest in forests for member in forest.members) == list(range(24))


def test_short_prompts_fill_one_pack_after_another() -> None:
    forests = pack_forests(long_prompts(4, 100, 6), 2048)
    assert [len(forest) for forest in forests] == [2000, 900]
    assert forests[0].members == list(range(17))


def test_packs_that_a_sampler_keeps_apart_are_filled() -> None:
    forests = pack_forests(long_prompts(4, 600, 6), 2048, related_from=10_000)
    assert [len(forest) for forest in forests] == [2000, 2000, 2000]


@settings(max_examples=40, deadline=None)
@given(SEQUENCES.filter(bool), st.integers(1, 30))
def test_cuts_that_save_nodes_are_the_best_of_all(sequences: list[list[int]], budget: int) -> None:
    ordered = sorted(map(tuple, sequences))
    continues = [False, *(b[: len(a)] == a for a, b in pairwise(ordered))]
    places = [place for place in range(1, len(ordered)) if not continues[place]]
    sizes = []
    for cuts in (c for count in range(len(ordered)) for c in combinations(places, count)):
        packs = [range(a, b) for a, b in pairwise((0, *cuts, len(ordered)))]
        nodes = [len({ordered[i][: end + 1] for i in pack for end in range(len(ordered[i]))}) for pack in packs]
        chains = [all(continues[i] for i in pack[1:]) for pack in packs]
        if all(size <= budget or chain for size, chain in zip(nodes, chains, strict=True)):
            sizes.append(sum(nodes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forests_of, "WORTH_A_CUT", 1)
        patch.setattr(forests_of, "PACK_NODES", 0)
        assert sum(map(len, pack_forests(sequences, budget))) == min(sizes)


def test_packing_does_not_depend_on_the_order_of_the_sequences() -> None:
    sequences = [[1, 2, 3], [2], [1, 2], [1, 5]]
    forward, backward = pack_forests(sequences, 4), pack_forests(sequences[::-1], 4)
    assert [forest.tokens for forest in forward] == [forest.tokens for forest in backward] == [[1, 2, 3, 5], [2]]


def test_nothing_to_pack_gives_no_forest() -> None:
    assert pack_forests([], 8) == []


def test_empty_sequences_and_budgets_are_errors() -> None:
    with pytest.raises(ValueError, match=r"^a sequence is empty$"):
        pack_forests([[1], []], 8)
    with pytest.raises(ValueError, match="budget_tokens is 0"):
        pack_forests([[1]], 0)


def test_shared_prefix_length() -> None:
    assert shared_prefix_length([1, 2, 3], [1, 2]) == 2
    assert shared_prefix_length([1, 2], [2, 2]) == 0
    assert shared_prefix_length([], [1]) == 0
