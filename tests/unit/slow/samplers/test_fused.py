"""A decoding step of compiled parts: the same tokens, one compilation for all layers, and a way back where it fails.

The compiler is torch's own up to the kernels: its generated code is run by PyTorch instead of Triton,
which needs a GPU.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModelForCausalLM

from architectures import ARCHITECTURES
from fastslow.slow.engine import SampleRequest, SamplingParams
from fastslow.slow.local import attention
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.slow.samplers.fused import Fusion, can_fuse, is_gated_mlp, is_norm
from fastslow.slow.samplers.graphs import Replays
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.samplers.static import StaticDecoder
from fastslow.slow.samplers.static_loop import sample_static
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion

REQUESTS = [
    SampleRequest((10, 11, 12, 13, 14, 15, 16), 5, seed=1),
    SampleRequest((10, 11, 12, 40), 2, seed=2),
    SampleRequest(tuple(range(5, 96)), 4, seed=5),
]
PARAMS = SamplingParams(12)


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name](101)).eval()
    attention.use(model)
    return model


def sample(model: Any, fusion: Fusion | None) -> list[list[Completion]]:
    def make(requests: Sequence[SampleRequest]) -> StaticDecoder:
        contexts, counts = [r.context_tokens for r in requests], [r.n for r in requests]
        return StaticDecoder(model, contexts, counts, 32, 12, Replays(None), fusion=fusion)

    return sample_static(REQUESTS, PARAMS, make, frozenset())


@pytest.fixture
def counting() -> CompileCounterWithBackend:
    torch._dynamo.reset()
    return CompileCounterWithBackend("aot_eager")


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_fused_steps_draw_the_same_tokens(name: str, counting: CompileCounterWithBackend) -> None:
    model = model_of(name)
    fusion = Fusion(partial(torch.compile, fullgraph=True, backend=counting))
    expected, got = sample(model, None), sample(model, fusion)
    assert fusion.reason is None
    for one, other in zip(chain(*expected), chain(*got), strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    # Norms of up to two sizes, the MLP, rotary factors and attention; a second time where sizes begin to vary.
    assert 4 <= counting.frame_count <= 10
    assert all("forward" not in vars(module) for module in model.modules())


def test_more_layers_are_not_compiled_again(counting: CompileCounterWithBackend) -> None:
    counts = []
    for layers in (2, 6):
        torch._dynamo.reset()
        counting.frame_count = 0
        config = ARCHITECTURES["qwen3"](101)
        config.num_hidden_layers, config.layer_types = layers, ["full_attention"] * layers
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        attention.use(model)
        fusion = Fusion(partial(torch.compile, fullgraph=True, backend=counting))
        sample(model, fusion)
        assert fusion.reason is None
        counts.append(counting.frame_count)
    assert counts[0] == counts[1]


def test_a_compiler_that_fails_is_said_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no kernel\nfor this")

        return call

    model = model_of("llama")
    fusion = Fusion(broken)
    with caplog.at_level(logging.WARNING):
        assert sample(model, fusion) == sample(model, None)
    assert fusion.reason == "RuntimeError: no kernel"
    assert [r.getMessage() for r in caplog.records] == [
        "the decoding step is not compiled, so sampling is slower: RuntimeError: no kernel"
    ]


def test_an_adapter_s_layers_stay_as_they_are() -> None:
    mlp = next(module for module in model_of("llama").modules() if is_gated_mlp(module))
    assert not is_norm(mlp)
    mlp.gate_proj = torch.nn.Sequential(mlp.gate_proj)
    assert not is_gated_mlp(mlp)


@pytest.mark.parametrize(("asked", "fuses"), [("on", True), ("auto", False), ("off", False)])
def test_the_config_says_whether_steps_are_compiled(asked: Any, fuses: bool, tiny_model_dir: Path) -> None:
    model = ModelConfig(name=str(tiny_model_dir), device="cpu", dtype="float32")
    engine = LocalEngine(model, SlowConfig(sampler=ForestConfig(decoder="static", compile=asked)))
    sampler = engine.sampler
    assert isinstance(sampler, ForestSampler)
    assert (sampler.fusion is not None) == fuses
    assert not can_fuse(torch.device("cpu"))
