"""Drawing completions: the sampling loop over a decoder, and the draw itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fastslow.seeding import uniforms
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.finite import check_logprobs
from fastslow.slow.samplers.decoders import Decoder
from fastslow.slow.samplers.kept import Kept
from fastslow.types import Completion, FinishReason

NUCLEUS_CANDIDATES = 1024
BLOCK = 512


@dataclass
class Row:
    """What was drawn of one completion of a request so far. `kept`: its keys and values are kept, or need not be."""

    request: SampleRequest
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    kept: bool = False

    def take(self, token: int, logprob: float, stop: frozenset[int]) -> None:
        """Append one draw; after the first token that ends the row nothing is taken any more."""
        if self.finish_reason == "stop":
            return
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in stop:
            self.finish_reason = "stop"


@dataclass
class _NoisyRow(Row):
    noise: np.ndarray = field(default_factory=lambda: np.empty(0))


def completions_of(requests: Sequence[SampleRequest], rows: Sequence[Row]) -> list[list[Completion]]:
    """The rows as completions of their requests, in order."""
    completions = iter(Completion(tuple(row.tokens), tuple(row.logprobs), row.finish_reason) for row in rows)
    return [[next(completions) for _ in range(request.n)] for request in requests]


@torch.inference_mode()
def sample_rows(
    requests: Sequence[SampleRequest],
    params: SamplingParams,
    make_decoder: Callable[[Sequence[SampleRequest]], Decoder],
    stop: frozenset[int],
    kept: Kept | None = None,
) -> list[list[Completion]]:
    """Completions of each request. Finished rows leave the batch at once; `kept` gets what they keep.

    Raises: DivergedError where logits are not finite: nothing can be drawn from them.
    """
    rows = [
        _NoisyRow(request, noise=uniforms(request.seed, index, params.max_tokens))
        for request in requests
        for index in range(request.n)
    ]
    if rows:
        _decode(rows, make_decoder(requests), params, stop, kept)
    return completions_of(requests, rows)


def keep_finished(batch: Sequence[Row], decoder: Decoder, kept: Kept | None) -> None:
    """Keep keys and values of the rows that have come to their end and may be continued. What was cut off is not."""
    if kept is None:
        return
    places = [
        place for place, row in enumerate(batch) if row.request.keep and row.finish_reason == "stop" and not row.kept
    ]
    # The last token of a row has been drawn, but not computed.
    found = decoder.kept_rows(places, [len(batch[place].tokens) - 1 for place in places])
    for place, one in zip(places, found, strict=False):
        row = batch[place]
        row.kept = True
        kept.put((*row.request.context_tokens, *row.tokens), one)


def _decode(
    rows: list[_NoisyRow], decoder: Decoder, params: SamplingParams, stop: frozenset[int], kept: Kept | None
) -> None:
    active = rows
    logits = decoder.prefill()
    for position in range(params.max_tokens):
        noise = torch.tensor(np.array([row.noise[position] for row in active]), device=logits.device)
        tokens, logprobs = draw(logits, noise, params)
        chosen, drawn = tokens.tolist(), logprobs.tolist()
        # NaN and infinity among a row's logits make the log-probability of any draw from it NaN.
        check_logprobs([drawn], "the policy's logits")
        for row, token, logprob in zip(active, chosen, drawn, strict=True):
            row.take(token, logprob, stop)
        keep_finished(active, decoder, kept)
        going = [index for index, row in enumerate(active) if row.finish_reason != "stop"]
        if not going or position + 1 == params.max_tokens:
            return
        if len(going) < len(active):
            decoder.keep(going)
            active = [active[index] for index in going]
        logits = decoder.step([chosen[index] for index in going])


def draw(logits: torch.Tensor, noise: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row by inverse transform sampling, and its log-probability.

    Shapes: logits (rows, vocabulary); noise (rows,) in [0, 1); returns (rows,) int64 and (rows,) float32.
    The log-probability is that of the tempered distribution before the nucleus is cut out; greedy draws, which have
    none, report temperature 1.
    """
    tokens, logprobs, short = draw_at_width(logits, noise, params, NUCLEUS_CANDIDATES)
    if short is not None and bool(short):
        tokens, logprobs, _ = draw_at_width(logits, noise, params, None)
    return tokens, logprobs


def draw_at_width(
    logits: torch.Tensor, noise: torch.Tensor, params: SamplingParams, width: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `draw`, without looking at a number, so that a GPU need not wait: the nucleus is looked for among the `width`
    likeliest tokens (None: among all), and the third result, (), bool, says whether some row's nucleus is wider.
    It is None where no nucleus is cut out.
    """
    scaled = logits.float() if params.temperature in (0.0, 1.0) else logits.float() / params.temperature
    peaks = scaled.amax(-1, keepdim=True)
    weights = _padded_weights(scaled, peaks)
    blocks = weights.view(len(weights), -1, BLOCK)
    sums = blocks.sum(-1).double()
    totals = sums.sum(-1)
    short = None
    if params.temperature == 0.0:
        tokens = scaled.argmax(-1)
    elif params.top_p < 1.0:
        tokens, short = _draw_from_nucleus(weights / totals[:, None].float(), noise, params.top_p, width)
    else:
        tokens = _draw_by_blocks(blocks, sums, noise * totals)
    logprobs = scaled.gather(-1, tokens[:, None])[:, 0] - peaks[:, 0] - totals.log().float()
    return tokens, logprobs, short


def _padded_weights(scaled: torch.Tensor, peaks: torch.Tensor) -> torch.Tensor:
    """exp(scaled - peak), filled up with zeros to whole blocks."""
    vocabulary = scaled.shape[-1]
    weights = scaled.new_empty(len(scaled), -(-vocabulary // BLOCK) * BLOCK)
    weights[:, vocabulary:].zero_()
    torch.sub(scaled, peaks, out=weights[:, :vocabulary])
    weights[:, :vocabulary].exp_()
    return weights


def _draw_by_blocks(blocks: torch.Tensor, sums: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Inverse transform sampling in two steps, so that the vocabulary is summed once: the block, then the token."""
    rows = torch.arange(len(blocks), device=blocks.device)
    block = _first_above(sums.cumsum(-1), targets)
    before = sums.cumsum(-1)[rows, block] - sums[rows, block]
    inside = _first_above(blocks[rows, block].cumsum(-1, dtype=torch.float64), targets - before)
    return block * BLOCK + inside


def _first_above(cumulative: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Index of the first entry above its row's target; where rounding leaves none, the last one that adds anything."""
    found = torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
    last = (cumulative < cumulative[:, -1:]).sum(-1)
    return torch.minimum(found, last)


def _draw_from_nucleus(
    probs: torch.Tensor, noise: torch.Tensor, top_p: float, width: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from the smallest set of most likely tokens whose mass reaches `top_p`;
    whether `width` is too few for a row.
    """
    if width is None:
        values, indices = probs.sort(dim=-1, descending=True)
        short = torch.zeros((), dtype=torch.bool, device=probs.device)
    else:
        values, indices = probs.topk(min(width, probs.shape[-1]), dim=-1)
        short = (values.sum(-1) < top_p).any()
    before = values.cumsum(-1) - values
    nucleus = values.masked_fill(before >= top_p, 0.0)
    cumulative = nucleus.cumsum(-1, dtype=torch.float64)
    return indices.gather(-1, _first_above(cumulative, noise * cumulative[:, -1])[:, None])[:, 0], short
