"""Our sampler: completions of many contexts over a prefix forest, in chunks that memory holds.

On a GPU it decodes at fixed shapes, in CUDA graphs (`static.py`); on a CPU in batches that shrink (`decoders.py`). The
tokens are the same, but for rounding.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.samplers.decoders import Decoder, ForestDecoder, PlainDecoder
from fastslow.slow.samplers.drawing import sample_rows
from fastslow.slow.samplers.fused import Fusion, can_fuse
from fastslow.slow.samplers.graphs import Capture, CudaCapture, Replays
from fastslow.slow.samplers.kept import Kept, KeptRow
from fastslow.slow.samplers.packed import packed_weights
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.samplers.static import StaticDecoder
from fastslow.slow.samplers.static_buffers import Buffers
from fastslow.slow.samplers.static_loop import sample_static
from fastslow.types import Completion

logger = logging.getLogger(__name__)


class ForestSampler:
    """A `Sampler` of the local policy. It reads the learner's own weights, so that there is nothing to sync."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.sampled_tokens = self.computed_tokens = self.kept_tokens = 0
        self.on_rows: Callable[[int, int], None] | None = None
        """Is told after each chunk how many completions of a call are drawn, and of how many."""
        settings = policy.slow.sampler
        self.kept = Kept(settings.kept_gib if isinstance(settings, ForestConfig) else 0.0)
        wanted = settings.decoder if isinstance(settings, ForestConfig) else "auto"
        on_gpu = policy.device.type == "cuda"
        self.static = policy.unshared_reason is None and (wanted == "static" or (wanted == "auto" and on_gpu))
        if wanted == "static" and not self.static:
            logger.warning("slow.sampler.decoder: static shares prefixes, which this model must not: it is not used")
        capture: Capture | None = CudaCapture() if self.static and on_gpu else None
        self.replays = Replays(capture)
        asked = settings.compile if isinstance(settings, ForestConfig) else "off"
        fuses = self.static and (asked == "on" or (asked == "auto" and can_fuse(policy.device)))
        self.fusion = Fusion() if fuses else None
        self._buffers: Buffers | None = None

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        """As `Sampler.sample`."""
        order = sorted(range(len(requests)), key=lambda index: (requests[index].context_tokens, index))
        results: list[list[Completion]] = [[] for _ in requests]
        rows = sum(request.n for request in requests)
        self.kept.begin()
        try:
            with packed_weights(self.policy.model, min(rows, self.policy.slow.sample_rows), params.max_tokens):
                for chunk in self._chunks(requests, order, params.max_tokens):
                    chosen = [requests[index] for index in chunk]
                    for index, completions in zip(chunk, self._sample_chunk(chosen, params), strict=True):
                        results[index] += completions
                    if self.on_rows is not None:
                        self.on_rows(sum(map(len, results)), rows)
        finally:
            self._free()
        return results

    def sync(self) -> None:
        """The weights are the learner's own: they are always current. What was kept is of the old ones."""
        self.kept.clear()

    def rest(self) -> None:
        """The weights are about to move, and the update needs the memory."""
        self.kept.clear()

    def release(self, sequences: Sequence[tuple[int, ...]]) -> None:
        """Give up what is kept of these sequences (context and completion): nothing continues them."""
        self.kept.release(sequences)

    def decoder(self, contexts: Sequence[Sequence[int]], counts: Sequence[int]) -> Decoder:
        """What extends `counts[i]` rows of each context, in the layout that was chosen for this model."""
        policy = self.policy
        if self.static:
            return StaticDecoder(policy.model, contexts, counts, policy.slow.microbatch_tokens, 1)
        return self._growing_decoder(contexts, counts, {})

    def _growing_decoder(
        self, contexts: Sequence[Sequence[int]], counts: Sequence[int], known: Mapping[int, KeptRow]
    ) -> Decoder:
        policy = self.policy
        if policy.unshared_reason is None:
            return ForestDecoder(policy.model, contexts, counts, policy.slow.microbatch_tokens, known)
        return PlainDecoder(policy.model, contexts, counts, policy.pad_token)

    def _chunks(self, requests: Sequence[SampleRequest], order: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
        """Requests in batches of about `slow.sample_rows` rows, fewer where `slow.memory_gib` holds no more;
        neighbours in the forest together.
        """
        plan, chunk = self.policy.memory(), list[int]()
        for index in order:
            rows = sum(requests[i].n for i in (*chunk, index))
            contexts = sum(len(requests[i].context_tokens) for i in (*chunk, index))
            full = rows > self.policy.slow.sample_rows
            if chunk and (full or (plan is not None and not plan.holds_rows(rows, contexts, max_tokens))):
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk

    def _sample_chunk(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        decoders: list[Decoder] = []

        def make_decoder(requests: Sequence[SampleRequest]) -> Decoder:
            known = self._known(requests)
            contexts, counts = [r.context_tokens for r in requests], [r.n for r in requests]
            decoders.append(self._growing_decoder(contexts, counts, known))
            return decoders[-1]

        def make_static(requests: Sequence[SampleRequest]) -> StaticDecoder:
            decoder = self._static_decoder(requests, params.max_tokens)
            decoders.append(decoder)
            return decoder

        kept = self.kept if self.kept.most else None
        if self.static:
            completions = sample_static(requests, params, make_static, self.policy.stop, kept)
        else:
            completions = sample_rows(requests, params, make_decoder, self.policy.stop, kept)
        self.kept.shrink()
        self.computed_tokens += sum(decoder.computed_tokens for decoder in decoders)
        self.kept_tokens += sum(decoder.kept_tokens for decoder in decoders)
        self.sampled_tokens += sum(len(c.tokens) for row in completions for c in row)
        return completions

    def _known(self, requests: Sequence[SampleRequest]) -> dict[int, KeptRow]:
        """What was kept of each request's context, by its index; it is given up with that."""
        found = self.kept.take(requests)
        return {index: row for index, row in enumerate(found) if row is not None}

    def _static_decoder(self, requests: Sequence[SampleRequest], max_tokens: int) -> StaticDecoder:
        """In the buffers of the chunk before, where they fit: then its graphs serve this one, too."""
        policy = self.policy
        buffers, self._buffers = self._buffers, None
        decoder = StaticDecoder(
            policy.model,
            [request.context_tokens for request in requests],
            [request.n for request in requests],
            policy.slow.microbatch_tokens,
            max_tokens,
            self.replays,
            buffers,
            self._known(requests),
            [index for index, request in enumerate(requests) if request.keep and self.kept.most],
            self.fusion,
        )
        self._buffers = decoder.buffers
        return decoder

    def _free(self) -> None:
        """Give buffers and graphs back: the update needs the memory, and may move the weights to other addresses."""
        if self._buffers is not None:
            self._buffers = None
            self.replays.forget()
            if self.policy.device.type == "cuda":
                torch.cuda.empty_cache()
