"""Seeds are part of what a run is: the same names give the same numbers, in every version."""

import numpy as np
import pytest

from fastslow.seeding import derive_seed, uniforms


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # The first 16 hexadecimal digits of `printf '1\x1fa' | sha256sum`, halved; and of no input at all.
        ((1, "a"), 0xAAA8BE88BD4AFA32 // 2),
        ((), 0xE3B0C44298FC1C14 // 2),
    ],
)
def test_a_seed_is_half_of_the_first_eight_bytes_of_the_digest(parts: tuple[str | int, ...], expected: int) -> None:
    assert derive_seed(*parts) == expected


def test_seeds_tell_their_parts_apart() -> None:
    seeds = [derive_seed(*parts) for parts in [(1, 2), (12,), (2, 1), (1, "2", ""), ("a", "b"), ("ab",)]]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(1, "2") == derive_seed("1", 2)  # a number is as good as its digits
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_uniforms_are_the_philox_stream_of_their_seed() -> None:
    found = uniforms(7, 3, 3)
    assert found.dtype == np.float64
    assert found.tolist() == [0.4821286018761155, 0.7241355726248441, 0.05025403948627161]


def test_streams_and_seeds_differ_and_a_longer_draw_starts_alike() -> None:
    assert uniforms(7, 3, 5)[:2].tolist() == uniforms(7, 3, 2).tolist()
    draws = {tuple(uniforms(seed, stream, 2)) for seed, stream in [(7, 3), (3, 7), (7, 4), (8, 3)]}
    assert len(draws) == 4
    assert uniforms(0, 0, 0).shape == (0,)
