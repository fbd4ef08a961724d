"""The decoder for a GPU against the one for a CPU: the same tokens, whatever ends when, and with every step replayed.

There is no GPU here: `recording.CpuCapture` does what a CUDA graph does. What only a GPU can show is `make check-gpu`.
"""

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import ARCHITECTURES, STOP_TOKENS
from fastslow.errors import DivergedError
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.local import attention
from fastslow.slow.local.cascade import attend_part, merge_parts
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers import drawing, static, static_loop
from fastslow.slow.samplers.decoders import ForestDecoder
from fastslow.slow.samplers.drawing import sample_rows
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.slow.samplers.graphs import Replays
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.samplers.static import StaticDecoder
from fastslow.slow.samplers.static_buffers import Buffers, bucket, doubled
from fastslow.slow.samplers.static_loop import sample_static
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion
from recording import CpuCapture

STOP = frozenset(STOP_TOKENS)
# Shared prefixes, a prefix of another, a pack of its own (91 tokens), nothing asked for; 33 rows in a bucket of 48.
REQUESTS = [
    SampleRequest((10, 11, 12, 13, 14, 15, 16), 15, seed=1),
    SampleRequest((10, 11, 12, 40), 2, seed=2),
    SampleRequest((50,), 0, seed=3),
    SampleRequest((10, 11, 12), 7, seed=4),
    SampleRequest(tuple(range(5, 96)), 8, seed=5),
    SampleRequest((50, 51), 1, seed=6),
]
BUDGET = 32


def model_of(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name](101)).eval()
    attention.use(model)
    return model


@pytest.fixture(scope="module")
def llama() -> Any:
    return model_of("llama")


def growing(model: Any, params: SamplingParams, stop: frozenset[int] = STOP) -> list[list[Completion]]:
    def make(requests: Sequence[SampleRequest]) -> ForestDecoder:
        return ForestDecoder(model, [r.context_tokens for r in requests], [r.n for r in requests], BUDGET)

    return sample_rows(REQUESTS, params, make, stop)


class Static:
    """Samples by static decoders; `decoder` is the last one."""

    decoder: StaticDecoder

    def __init__(self, model: Any, replays: Replays | None = None) -> None:
        self.model, self.replays = model, replays or Replays(CpuCapture())

    def make(self, requests: Sequence[SampleRequest], max_tokens: int, buffers: Buffers | None = None) -> StaticDecoder:
        contexts, counts = [r.context_tokens for r in requests], [r.n for r in requests]
        self.decoder = StaticDecoder(self.model, contexts, counts, BUDGET, max_tokens, self.replays, buffers)
        return self.decoder

    def sample(self, params: SamplingParams, stop: frozenset[int] = STOP) -> list[list[Completion]]:
        return sample_static(REQUESTS, params, lambda requests: self.make(requests, params.max_tokens), stop)


def assert_same(got: list[list[Completion]], expected: list[list[Completion]], atol: float = 3e-5) -> None:
    assert [len(group) for group in got] == [len(group) for group in expected]
    for one, other in zip(chain(*got), chain(*expected), strict=True):
        assert one.tokens == other.tokens
        assert one.finish_reason == other.finish_reason
        assert one.logprobs == pytest.approx(other.logprobs, abs=atol)


@pytest.mark.parametrize("name", ["llama", "tied", "qwen3", "gpt2", "opt", "deepseek_v3", "qwen3_moe"])
def test_the_tokens_are_those_of_the_growing_decoder(name: str) -> None:
    model, params = model_of(name), SamplingParams(24)
    sampler = Static(model)
    got, expected = sampler.sample(params), growing(model, params)
    assert_same(got, expected)
    lengths = [len(completion.tokens) for group in got for completion in group]
    assert min(lengths) < 3 and max(lengths) > 8  # rows end early, and the batch shrinks while others go on
    assert sampler.decoder.rows < 48
    assert sampler.replays.replayed > 5 and sampler.replays.proven and sampler.replays.reason is None


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(1),
        SamplingParams(2),
        SamplingParams(9, temperature=0.0),
        SamplingParams(20, temperature=0.7),
        SamplingParams(20, temperature=1.3, top_p=0.8),
    ],
    ids=str,
)
def test_every_way_of_drawing(llama: Any, params: SamplingParams) -> None:
    assert_same(Static(llama).sample(params), growing(llama, params))


def test_a_nucleus_that_is_too_wide_is_drawn_again(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "NUCLEUS_CANDIDATES", 4)
    monkeypatch.setattr(static, "NUCLEUS_CANDIDATES", 4)
    widths = []
    draw = static.draw_at_width

    def spy(logits: Any, noise: Any, params: Any, width: int | None) -> Any:
        widths.append(width)
        return draw(logits, noise, params, width)

    monkeypatch.setattr(static, "draw_at_width", spy)
    params = SamplingParams(20, temperature=2.0, top_p=0.95)
    assert_same(Static(llama).sample(params), growing(llama, params))
    assert {4, None} == set(widths)
    assert 4 not in widths[widths.index(None) :]  # it is not tried again and again


@pytest.mark.parametrize("every", [1, 3, 64])
def test_it_does_not_matter_how_often_the_host_looks(llama: Any, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(static_loop, "LOOK_EVERY", every)
    params = SamplingParams(17)
    assert_same(Static(llama).sample(params), growing(llama, params))


def test_the_host_looks_once_in_eight_tokens(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    take = static_loop._take
    monkeypatch.setattr(static_loop, "_take", lambda *given: looks.append(given) or take(*given))
    Static(llama).sample(SamplingParams(25), stop=frozenset())
    assert len(looks) == 1 + 3


@pytest.mark.parametrize("at_once", [True, False], ids=["room for all at once", "room that doubles"])
def test_completions_that_outgrow_their_room(llama: Any, monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    if not at_once:
        monkeypatch.setattr(StaticDecoder, "_first_room", lambda self: static.ROOM)
    params, sampler = SamplingParams(150), Static(llama)
    assert_same(sampler.sample(params, frozenset({81})), growing(llama, params, frozenset({81})), atol=5e-5)
    assert sampler.decoder.buffers.layers[0].full[1] == 256
    assert sampler.replays.captured >= 3  # one for each room at least: 64, 128, 256


def test_room_is_taken_at_once_only_where_memory_has_it(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Static(llama).make(REQUESTS[:2], 1000)
    with torch.inference_mode():
        decoder.prefill()
    a_token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, KV heads, size, bytes
    assert decoder.buffers.bytes_a_token() == a_token
    decoder.device = torch.device("cuda")
    for free, room in ((4 * a_token * 1024 * 24, 1024), (4 * a_token * 1024 * 24 - 4, 64)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        assert decoder._first_room() == room


def test_a_chunk_of_the_same_shape_uses_buffers_and_graphs_again(llama: Any) -> None:
    sampler, params = Static(llama), SamplingParams(24)
    first = sample_static(REQUESTS, params, lambda r: sampler.make(r, 24), frozenset())
    buffers, captured = sampler.decoder.buffers, sampler.replays.captured
    again = sample_static(REQUESTS, params, lambda r: sampler.make(r, 24, buffers), frozenset())
    assert sampler.decoder.buffers is buffers and sampler.replays.captured == captured == 1
    assert_same(again, first, atol=0)
    fewer = sample_static(REQUESTS[:2], params, lambda r: sampler.make(r, 24, buffers), frozenset())
    assert sampler.decoder.buffers is not buffers and sampler.replays.captured == captured + 1
    assert_same(fewer, first[:2])


def test_logits_follow_the_rows_through_steps_and_departures(llama: Any) -> None:
    """As a `Decoder`, which the comparison of sampler and learner takes it for."""
    contexts, counts = [[5, 6, 7], [5, 6, 9, 10, 11], [40]], [2, 1, 1]
    one, other = ForestDecoder(llama, contexts, counts, 4), StaticDecoder(llama, contexts, counts, 4, 1)
    with torch.no_grad():
        pairs = [(one.prefill(), other.prefill())]
        rows = 4
        for kept in ([0, 1, 2, 3], [1, 2, 3], [0, 2], [1]):
            for decoder in (one, other):
                decoder.keep(kept)
            rows = len(kept)
            tokens = [20 + row for row in range(rows)]
            pairs += [(one.step(tokens), other.step(tokens)) for _ in range(2)]
    for expected, got in pairs:
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


# -- what cannot be captured -------------------------------------------------------------------------------------------


def test_a_step_that_looks_at_a_number_is_not_captured_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model, params = model_of("llama"), SamplingParams(24)
    hook = model.model.layers[0].register_forward_pre_hook(lambda module, args: args[0].nonzero() is None or None)
    sampler = Static(model)
    with caplog.at_level(logging.WARNING):
        got = sampler.sample(params)
    hook.remove()
    assert_same(got, growing(model, params))
    assert sampler.replays.captured == 0
    assert sampler.replays.reason == "RuntimeError: operation not permitted while recording: nonzero"
    assert caplog.text.count("is not captured as a CUDA graph, so sampling is slower") == 1
    sampler.sample(params)
    assert caplog.text.count("is not captured") == 1


def test_a_step_that_computes_with_a_number_of_the_host_is_found_out() -> None:
    """A recording repeats that number for ever. One replay is compared with its step, and recordings are given up."""
    model, params = model_of("llama"), SamplingParams(24)
    calls = [0]

    def shift(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if output.logits.shape[1] == 1 and not torch.is_grad_enabled():
            calls[0] += 1
            output.logits = output.logits.roll(calls[0], -1)
        return output

    model.register_forward_hook(shift, with_kwargs=True)
    sampler = Static(model)
    sampler.sample(params, frozenset())
    assert sampler.replays.reason is not None and "draw another token than without it" in sampler.replays.reason
    assert sampler.replays.capture is None and sampler.replays.replayed == 2


def test_logits_that_are_not_finite_are_never_drawn_from() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(DivergedError, match="the policy's logits are not finite"):
        Static(model).sample(SamplingParams(8))


# -- the choice --------------------------------------------------------------------------------------------------------


def engine_of(directory: Any, decoder: str, **slow: Any) -> LocalEngine:
    settings = SlowConfig(sampler=ForestConfig(decoder=decoder), **slow)  # type: ignore[arg-type]
    return LocalEngine(ModelConfig(name=str(directory), device="cpu"), settings)


@pytest.mark.parametrize(
    ("decoder", "kind"), [("auto", ForestDecoder), ("growing", ForestDecoder), ("static", StaticDecoder)]
)
def test_on_a_cpu_the_decoder_is_static_only_where_it_is_asked_for(
    decoder: str, kind: type, tiny_model_dir: Any
) -> None:
    sampler = engine_of(tiny_model_dir, decoder).sampler
    assert isinstance(sampler, ForestSampler)
    assert type(sampler.decoder([[1, 2]], [1])) is kind


def test_an_engine_samples_the_same_in_chunks_of_many_shapes(tiny_model_dir: Any) -> None:
    engines = [engine_of(tiny_model_dir, decoder, sample_rows=8) for decoder in ("growing", "static")]
    requests = [SampleRequest(tuple(range(8, 12 + i)), 1 + i, seed=i) for i in range(6)]
    expected, got = (engine.sample(requests, SamplingParams(12)) for engine in engines)
    assert_same(got, expected)
    sampler = engines[1].sampler
    assert isinstance(sampler, ForestSampler)
    assert sampler._buffers is None  # memory is given back
    assert sampler.sampled_tokens == sum(len(c.tokens) for group in got for c in group)
    assert sampler.computed_tokens > sampler.sampled_tokens


def test_a_model_that_must_not_share_falls_back_and_says_so(
    tiny_model_dir: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(tiny_model_dir, "static", prefix_sharing=False)
    assert "slow.sampler.decoder: static shares prefixes, which this model must not: it is not used" in caplog.text
    plain = engine_of(tiny_model_dir, "auto", prefix_sharing=False)
    requests = [SampleRequest((8, 9, 10), 3, seed=1)]
    assert engine.sample(requests, SamplingParams(6)) == plain.sample(requests, SamplingParams(6))


# -- parts -------------------------------------------------------------------------------------------------------------


def test_two_parts_of_the_keys_merge_to_attention_over_all() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 2, 1, 4, 8, generator=generator)
    keys, values = (torch.randn(3, 2, 11, size, generator=generator) for size in (8, 5))
    mask = torch.zeros(11).masked_fill(torch.arange(11) % 4 == 3, torch.finfo(torch.float32).min)
    whole, whole_sum = attend_part(query, keys, values, mask)
    halves = [attend_part(query, keys[:, :, part], values[:, :, part], mask[part]) for part in (slice(7), slice(7, 11))]
    merged = merge_parts(*halves[0], *halves[1])
    expected = (query[:, :, 0] @ keys.transpose(2, 3) + mask).softmax(-1) @ values
    torch.testing.assert_close(whole[:, :, 0], expected)
    torch.testing.assert_close(merged, whole)
    torch.testing.assert_close(whole_sum[0, 0, 0, 0], (query[0, 0, 0, 0] @ keys[0, 0].T + mask).logsumexp(-1))


def test_sizes_come_in_few_steps() -> None:
    assert [bucket(n) for n in (0, 1, 2, 3, 5, 9, 17, 24, 25, 33, 48, 49, 65, 97, 128)] == [
        0, 1, 2, 4, 8, 16, 24, 24, 32, 48, 48, 64, 96, 128, 128,
    ]  # fmt: skip
    assert [doubled(n, 64) for n in (0, 1, 64, 65, 128, 129, 1000)] == [64, 64, 64, 128, 128, 256, 1024]
