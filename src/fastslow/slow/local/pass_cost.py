"""What a training pass takes beside weights and gradients, measured on a model at a few short lengths.

A pass over T tokens keeps tensors from forward to backward, and works beside them in one layer at a time. Both
are a constant, a part for each token and a part for each pair of a query and a key that it is compared with.
Three lengths give the three.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.attention import BLOCK_QUERIES, MAX_BLOCKS, PrefixPool, attending
from fastslow.slow.local.forest import pack_forests
from fastslow.slow.local.head import HEAD_ELEMENTS
from fastslow.slow.local.live_bytes import LiveBytes
from fastslow.slow.local.precision import decoder_layers
from fastslow.slow.local.scoring import SLICE_ELEMENTS, ForestScorer, PlainScorer

# Tokens of the shortest pass; the others have two and three times as many, and all of them one block of queries.
SHORTEST = 37
ROWS = 16
# Copies in float32 of a slice of logits: the slice itself, its probabilities, and what the gradient is made of.
SLICE_COPIES, FLOAT32 = 3, 4


@dataclass(frozen=True)
class Growth:
    """Bytes as a function of tokens and of pairs of queries and keys."""

    constant: float
    per_token: float
    per_pair: float

    def __call__(self, tokens: int, pairs: int) -> float:
        """Bytes."""
        return self.constant + self.per_token * tokens + self.per_pair * pairs


@dataclass(frozen=True)
class PassCost:
    """Bytes of a training pass. `kept` until the backward pass, `work` beside it; of a row of logits, of its hidden
    state, and of a token's keys and values in all layers, of which the share `copied` may be there a second time.
    `forests`: passes are packed forests, otherwise padded rows.
    """

    kept: Growth
    work: Growth
    per_row: float
    hidden_row: float
    keys_per_token: float
    copied: float
    vocabulary: int
    queries: int
    slice_elements: int
    forests: bool

    def peak(self, tokens: int, longest: int, rows: int, *, sides: int = 1) -> float:
        """Most bytes that a pass over `tokens` tokens takes, of sequences of up to `longest`,
        with `rows` rows of logits.

        `sides`: 2 where a teacher's logits are there as well.
        """
        pairs = self.pairs(tokens, longest)
        kept = self.kept(tokens, pairs) + self._copies(tokens, longest)
        return kept + max(self.work(tokens, pairs), sides * self._head(rows))

    def pairs(self, tokens: int, longest: int) -> int:
        """Pairs of queries and keys, at most: in a forest each block of queries sees its ancestors and itself."""
        if not self.forests:
            return tokens * longest
        queries = self._block(tokens)
        return sum(
            min(queries, tokens - start) * (min(longest, start) + min(queries, tokens - start))
            for start in range(0, tokens, queries)
        )

    def _block(self, tokens: int) -> int:
        return max(self.queries, -(-tokens // MAX_BLOCKS))

    def _copies(self, tokens: int, longest: int) -> float:
        """Keys and values of ancestors that do not stand side by side are copied for each block of queries."""
        if not self.forests or tokens <= longest:
            return 0.0
        blocks = -(-tokens // self._block(tokens))
        return self.keys_per_token * self.copied * (tokens + (blocks - 1) * min(longest, tokens))

    def _head(self, rows: int) -> float:
        at_once = min(rows, max(1, HEAD_ELEMENTS // self.vocabulary))
        in_slice = FLOAT32 * SLICE_COPIES * min(at_once * self.vocabulary, self.slice_elements)
        sliced = 2 * self.hidden_row * rows if rows > at_once else 0.0
        return self.per_row * at_once + in_slice + sliced


def measure(model: Any, scorer: ForestScorer | PlainScorer, *, limit: int | None, recomputes: bool) -> PassCost:
    """Make a few short passes forwards and backwards; weights and gradients are left as they are. Fake tensors will do.

    `limit`: positions of the model. `recomputes`: its layers keep their inputs alone.
    """
    parameters = list(model.parameters())
    apart = {shape for p in parameters for shape in (tuple(p.shape), tuple(p.shape)[::-1])}
    one, two, three = _lengths({size for shape in apart for size in shape}, limit)
    points = [_passed(model, scorer, tokens, 1, apart) for tokens in (one, two, three)]
    rows = min(ROWS, one)
    kept_rows, _, logits = _passed(model, scorer, three, rows, apart)
    config = model.config.get_text_config()
    device = parameters[0].device
    return PassCost(
        _through((one, two, three), [kept for kept, _, _ in points]),
        _through((one, two, three), [peak - kept for kept, peak, _ in points]),
        per_row=(kept_rows - points[2][0]) / max(1, rows - 1),
        hidden_row=config.hidden_size * logits.element_size(),
        keys_per_token=_keys_per_token(model, scorer, one) if isinstance(scorer, ForestScorer) else 0.0,
        copied=1.0 / len(decoder_layers(model)) if recomputes else 1.0,
        vocabulary=logits.shape[-1],
        queries=BLOCK_QUERIES.get(device.type, 1024),
        slice_elements=SLICE_ELEMENTS[device.type == "cuda"],
        forests=isinstance(scorer, ForestScorer),
    )


def _lengths(taken: set[int], limit: int | None) -> tuple[int, int, int]:
    """Three lengths that no weight has, so that an activation is not taken for a weight's gradient."""
    most = SHORTEST if limit is None else max(1, min(SHORTEST, (limit - 1) // 3))

    def candidates() -> Iterator[int]:
        yield from range(most, most + 6)
        yield from range(most, 0, -1)

    free = (n for n in candidates() if not {n, 2 * n, 3 * n} & taken and (limit is None or 3 * n < limit))
    shortest = next(free, most)
    return shortest, 2 * shortest, 3 * shortest


def _passed(
    model: Any, scorer: ForestScorer | PlainScorer, tokens: int, rows: int, apart: set[tuple[int, ...]]
) -> tuple[int, int, torch.Tensor]:
    """Bytes kept after the forward pass, the peak, and the logits, whose memory becomes that of their gradient."""
    text = tuple(index % 7 for index in range(tokens + 1))
    sequence = TokenSequence(text[: tokens + 1 - rows], text[tokens + 1 - rows :])
    (batch,) = scorer.micro_batches([sequence], tokens)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad(), LiveBytes(apart) as live:
        logits = batch.forward(model)
        kept = live.now
        torch.autograd.grad(logits, trained, logits.detach().fill_(1.0), allow_unused=True)
    return kept, live.peak, logits.detach()


def _through(lengths: tuple[int, int, int], values: list[int]) -> Growth:
    """The parabola through three points; a line where it would bend downwards."""
    (one, two, three), (a, b, c) = lengths, values
    per_pair = max(0.0, ((c - b) / (three - two) - (b - a) / (two - one)) / (three - one))
    per_token = (c - b) / (three - two) - per_pair * (two + three)
    return Growth(max(0.0, c - per_token * three - per_pair * three**2), per_token, per_pair)


@torch.no_grad()
def _keys_per_token(model: Any, scorer: ForestScorer, tokens: int) -> float:
    (forest,) = pack_forests([tuple(range(tokens))], tokens)
    pool = PrefixPool(0, 1, torch.empty(0))
    with attending(forest, scorer.device, scorer.dtype, pool) as mask:
        model(
            input_ids=torch.zeros(1, tokens, dtype=torch.long, device=scorer.device),
            position_ids=torch.tensor([forest.positions], device=scorer.device),
            attention_mask=mask,
            logits_to_keep=1,
            use_cache=False,
        )
    return sum(t.numel() * t.element_size() for t in (*pool.keys, *pool.values)) / tokens
