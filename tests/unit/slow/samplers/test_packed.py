"""Packed weights: the same products, of the weights as they are now, for large models on a CPU and many rows alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fastslow.slow.engine import SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers import packed
from fastslow.slow.samplers.packed import packed_weights
from fastslow.slow.settings import ModelConfig, SlowConfig


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(packed, "FEWEST_WEIGHTS", 0)
    monkeypatch.setattr(packed, "FEWEST_IN_A_LAYER", 0)
    return


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 16, bias=False))


needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU does not pack bfloat16"
)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), pytest.param(torch.bfloat16, 2**-6, marks=needs_bfloat16)],
)
def test_products_are_the_same_but_for_rounding_and_the_layers_are_left_as_they_were(
    dtype: torch.dtype, tolerance: float
) -> None:
    model, hidden = network().to(dtype), torch.randn(20, 3, 24).to(dtype)
    expected = model(hidden)
    with packed_weights(model, 64, 64) as layers:
        assert layers == 2
        assert all("forward" in layer.__dict__ for layer in model)
        torch.testing.assert_close(model(hidden), expected.detach(), atol=tolerance, rtol=0)
    assert not any("forward" in layer.__dict__ for layer in model)
    assert torch.equal(model(hidden), expected)


@pytest.mark.usefixtures("everything_is_large")
def test_a_cpu_that_cannot_pack_bfloat16_computes_it_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object) -> None:
        raise RuntimeError("mkldnn_reorder_linear_weight: bf16 path needs the cpu support avx_ne_convert or avx512bw")

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with packed_weights(network(), 64, 64) as layers:
        assert layers == 2  # float32 is packed there
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refused)
    model, hidden = network().bfloat16(), torch.randn(20, 24).bfloat16()
    expected = model(hidden)
    with packed_weights(model, 64, 64) as layers:
        assert layers == 0
        assert torch.equal(model(hidden), expected)


@pytest.mark.usefixtures("everything_is_large")
def test_each_use_packs_the_weights_anew() -> None:
    model, hidden = network(), torch.randn(20, 24)
    for _ in range(2):
        with packed_weights(model, 64, 64), torch.no_grad():
            found = model(hidden)
        torch.testing.assert_close(found, model(hidden).detach(), atol=1e-5, rtol=0)
        with torch.no_grad():
            model[1].weight.add_(1.0)


@pytest.mark.usefixtures("everything_is_large")
def test_an_error_inside_leaves_the_layers_as_they_were() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="inside"), packed_weights(model, 64, 64):
        raise RuntimeError("inside")
    assert not any("forward" in layer.__dict__ for layer in model)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("change", "rows", "tokens"),
    [(None, 15, 64), (None, 64, 15), (nn.Module.half, 64, 64), (nn.Module.double, 64, 64)],
)
def test_few_rows_and_other_types_are_left_alone(
    change: Callable[[nn.Module], nn.Module] | None, rows: int, tokens: int
) -> None:
    model = network() if change is None else change(network())
    with packed_weights(model, rows, tokens) as layers:
        assert layers == 0


@pytest.mark.parametrize(("fewest", "most", "layers"), [(1600, 1600, 2), (1601, 2000, 0), (0, 1599, 0)])
def test_the_models_size_decides(monkeypatch: pytest.MonkeyPatch, fewest: int, most: int, layers: int) -> None:
    monkeypatch.setattr(packed, "FEWEST_IN_A_LAYER", 0)
    monkeypatch.setattr(packed, "FEWEST_WEIGHTS", fewest)
    monkeypatch.setattr(packed, "MOST_WEIGHTS", most)
    with packed_weights(network(), 64, 64) as found:
        assert found == layers


@pytest.mark.usefixtures("everything_is_large")
def test_the_sampler_draws_with_packed_weights_what_the_learner_measures(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = []
    real = packed._multiply
    monkeypatch.setattr(packed, "_multiply", lambda *given: products.append(len(given)) or real(*given))
    engine = LocalEngine(ModelConfig(name=str(tiny_model_dir), dtype="float32", device="cpu"), SlowConfig())
    with torch.no_grad():  # since it was loaded
        engine.model.get_output_embeddings().weight.mul_(1.5)
    request = SampleRequest((5, 6, 7, 8), 16, 3)
    (completions,) = engine.sample([request], SamplingParams(16))
    assert products
    learner = engine.logprobs([TokenSequence(request.context_tokens, c.tokens) for c in completions])
    for completion, measured in zip(completions, learner, strict=True):
        assert list(completion.logprobs) == pytest.approx(measured, abs=1e-4)
