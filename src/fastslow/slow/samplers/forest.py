"""Our sampler: completions of many contexts over a prefix forest, in chunks that memory holds."""

from collections.abc import Iterator, Sequence

from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.samplers.decoders import Decoder, ForestDecoder, PlainDecoder
from fastslow.slow.samplers.drawing import sample_rows
from fastslow.types import Completion


class ForestSampler:
    """A `Sampler` of the local policy. It reads the learner's own weights, so that there is nothing to sync."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.sampled_tokens = self.computed_tokens = 0

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        """As `Sampler.sample`."""
        order = sorted(range(len(requests)), key=lambda index: (requests[index].context_tokens, index))
        results: list[list[Completion]] = [[] for _ in requests]
        for chunk in self._chunks(requests, order):
            chosen = [requests[index] for index in chunk]
            for index, completions in zip(chunk, self._sample_chunk(chosen, params), strict=True):
                results[index] += completions
        return results

    def sync(self) -> None:
        """The weights are the learner's own: they are always current."""

    def decoder(self, contexts: Sequence[Sequence[int]], counts: Sequence[int]) -> Decoder:
        """What extends `counts[i]` rows of each context, in the layout that was chosen for this model."""
        policy = self.policy
        if policy.unshared_reason is None:
            return ForestDecoder(policy.model, contexts, counts, policy.slow.microbatch_tokens)
        return PlainDecoder(policy.model, contexts, counts, policy.pad_token)

    def _chunks(self, requests: Sequence[SampleRequest], order: Sequence[int]) -> Iterator[list[int]]:
        """Requests in batches of about `slow.sample_rows` rows, neighbours in the forest together."""
        chunk: list[int] = []
        for index in order:
            if chunk and sum(requests[i].n for i in chunk) + requests[index].n > self.policy.slow.sample_rows:
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk

    def _sample_chunk(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[list[Completion]]:
        decoders: list[Decoder] = []

        def make_decoder(requests: Sequence[SampleRequest]) -> Decoder:
            decoders.append(self.decoder([r.context_tokens for r in requests], [r.n for r in requests]))
            return decoders[-1]

        completions = sample_rows(requests, params, make_decoder, self.policy.stop)
        self.computed_tokens += sum(decoder.computed_tokens for decoder in decoders)
        self.sampled_tokens += sum(len(c.tokens) for row in completions for c in row)
        return completions
