"""One seed drives everything: each consumer of randomness derives its own seed from the run's seed and its own name."""

import hashlib

import numpy as np


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from any names and numbers. Stateless, so that a resumed run draws what the first one drew."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniforms(seed: int, stream: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, of one stream of a seed."""
    return np.random.Generator(np.random.Philox(key=[seed, stream])).random(count)
