"""The sampling loop over a `StaticDecoder`: the host looks at the tokens every few steps only."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fastslow.seeding import uniforms
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.finite import check_logprobs
from fastslow.slow.samplers.drawing import Row, completions_of, draw, keep_finished
from fastslow.slow.samplers.kept import Kept
from fastslow.slow.samplers.static import StaticDecoder
from fastslow.slow.samplers.static_buffers import bucket
from fastslow.types import Completion

# Steps between two looks. A row that ends is computed for half as many steps too long, on average.
LOOK_EVERY = 8


@torch.inference_mode()
def sample_static(
    requests: Sequence[SampleRequest],
    params: SamplingParams,
    make_decoder: Callable[[Sequence[SampleRequest]], StaticDecoder],
    stop: frozenset[int],
    kept: Kept | None = None,
) -> list[list[Completion]]:
    """Completions of each request, the same as `drawing.sample_rows` gives.

    Raises: DivergedError where logits are not finite: nothing can be drawn from them.
    """
    asked = [request for request in requests if request.n]
    rows = [Row(request) for request in asked for _ in range(request.n)]
    if rows:
        noise = [uniforms(request.seed, i, params.max_tokens) for request in asked for i in range(request.n)]
        _decode(rows, np.array(noise), make_decoder(asked), params, stop, kept)
    return completions_of(requests, rows)


def _decode(
    rows: list[Row],
    noise: np.ndarray,
    decoder: StaticDecoder,
    params: SamplingParams,
    stop: frozenset[int],
    kept: Kept | None,
) -> None:
    logits = decoder.prefill()
    noise_on_device = torch.from_numpy(noise).to(logits.device)
    tokens, logprobs = draw(logits, noise_on_device[:, 0], params)
    decoder.begin(tokens, noise_on_device)
    active, done = _take(rows, tokens[:, None], logprobs[:, None], stop), 1
    batch = rows
    keep_finished(batch, decoder, kept)
    while active and done < params.max_tokens:
        if 2 * bucket(len(active)) <= bucket(len(batch)):
            decoder.keep([index for index, row in enumerate(batch) if row.finish_reason != "stop"])
            batch = active
        count = min(LOOK_EVERY, params.max_tokens - done)
        active = _take(batch, *decoder.draw_block(count, params), stop)
        keep_finished(batch, decoder, kept)
        done += count


def _take(rows: list[Row], tokens: torch.Tensor, logprobs: torch.Tensor, stop: frozenset[int]) -> list[Row]:
    """Give each row its tokens, the one moment at which the host waits for the device; the rows that go on."""
    chosen, drawn = tokens.tolist(), logprobs.tolist()
    going = [row.finish_reason != "stop" for row in rows]
    # NaN and infinity among a row's logits make the log-probability of any draw from it NaN. Padding does not count.
    check_logprobs([part for part, goes in zip(drawn, going, strict=True) if goes], "the policy's logits")
    for row, ids, values in zip(rows, chosen, drawn, strict=True):
        for token, logprob in zip(ids, values, strict=True):
            row.take(token, logprob, stop)
    return [row for row in rows if row.finish_reason != "stop"]
