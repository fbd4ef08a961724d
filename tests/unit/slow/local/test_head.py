"""Logits in slices: the same numbers and gradients as whole ones, never more than a slice, for every architecture."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from architectures import ARCHITECTURES, make_architecture_dir
from fastslow.slow.engine import Datum, DistillDatum, LossSettings, TokenSequence
from fastslow.slow.local import head
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig

SEQUENCES = [
    TokenSequence((5, 6, 7), (8, 9, 10, 11, 12)),
    TokenSequence((5, 6, 7), (8, 9, 13)),
    TokenSequence((5, 20), (21, 22, 23, 24)),
]
SCALED = {
    "cohere": ("CohereConfig", {"logit_scale": 0.25}),
    "granite": ("GraniteConfig", {"logits_scaling": 3.0}),
    "gemma2": ("Gemma2Config", {"final_logit_softcapping": 2.0}),
}
TOKENS = 3  # in a slice


def make(directory: Path, *, lora: LoraConfig | None = None, dtype: Any = "float32", **slow: Any) -> LocalEngine:
    config = ModelConfig(name=str(directory), device="cpu", lora=lora, dtype=dtype)
    return LocalEngine(config, SlowConfig(max_grad_norm=None, **slow))


def in_slices(monkeypatch: pytest.MonkeyPatch, engine: LocalEngine) -> list[int]:
    """From now on slices hold three tokens; gives the rows of every product with the head."""
    layer = engine.policy.model.get_output_embeddings()
    monkeypatch.setattr(head, "HEAD_ELEMENTS", TOKENS * layer.weight.shape[0])
    rows: list[int] = []
    layer.register_forward_hook(lambda *seen: rows.append(seen[2].flatten(0, -2).shape[0]))
    return rows


def datums(engine: LocalEngine) -> list[Datum]:
    values = engine.logprobs(SEQUENCES)
    return [
        Datum(s.context_tokens, s.completion_tokens, tuple(v - 0.3 for v in row), (-1.0) ** i * (1 + i), 1 / 12)
        for i, (s, row) in enumerate(zip(SEQUENCES, values, strict=True))
    ]


def distilled() -> list[DistillDatum]:
    return [DistillDatum(s.context_tokens, (30, 31, *s.context_tokens), s.completion_tokens, 0.1) for s in SEQUENCES]


def trained_gradients(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, update: Any) -> tuple[dict[str, Any], Any]:
    """The gradients of one update that moves nothing, and its metrics."""
    found: dict[str, torch.Tensor] = {}
    step = engine.learner.optimiser.step

    def recording(learning_rate: float) -> float:
        masters = engine.learner.optimiser.masters
        found.update({name: p.grad.clone() for name, p in masters.items() if p.grad is not None})
        return step(learning_rate)

    with monkeypatch.context() as patch:
        patch.setattr(engine.learner.optimiser, "step", recording)
        return found, update(engine)


def reinforce(engine: LocalEngine) -> Any:
    return engine.train_step(
        datums(engine), LossSettings(kl_coefficient=0.1, temperature=0.7, entropy_coefficient=0.2), 1e-30
    )


def distil(engine: LocalEngine) -> Any:
    return engine.distill_step(distilled(), 1e-30, 0.7)


def assert_same(a: tuple[dict[str, Any], Any], b: tuple[dict[str, Any], Any], tolerance: float = 2e-6) -> None:
    assert a[0].keys() == b[0].keys()
    assert max(float(value.abs().max()) for value in a[0].values()) > 1e-3
    for name, value in a[0].items():
        scale = max(1.0, float(value.abs().max()))
        assert float((value - b[0][name]).abs().max()) < tolerance * scale, name
    for key in ("loss", "grad_norm", "entropy", "tokens", "computed_tokens"):
        assert getattr(a[1], key) == pytest.approx(getattr(b[1], key), rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("name", ["llama", "tied", "gemma2", "gpt2", "opt", "qwen3_moe", "bloom", "deepseek_v3"])
def test_sliced_numbers_are_those_of_whole_logits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(make_architecture_dir(tmp_path, name))
    whole = engine.logprobs(SEQUENCES)
    updates = [trained_gradients(engine, monkeypatch, update) for update in (reinforce, distil)]
    rows = in_slices(monkeypatch, engine)
    for got, expected in zip(engine.logprobs(SEQUENCES), whole, strict=True):
        assert got == pytest.approx(expected, abs=1e-5)
    for update, expected_update in zip((reinforce, distil), updates, strict=True):
        assert_same(trained_gradients(engine, monkeypatch, update), expected_update)
    assert rows and max(rows) <= TOKENS


@pytest.mark.parametrize("name", sorted(SCALED))
def test_what_a_model_does_behind_its_head_is_done_to_slices(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, settings = SCALED[name]
    shape = ARCHITECTURES["llama"](0).to_dict()
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")

    def build(vocab_size: int) -> Any:
        kept = {key: shape[key] for key in keys}
        more = {"head_dim": 8, "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
        return getattr(transformers, kind)(
            vocab_size=vocab_size, max_position_embeddings=256, **kept, **more, **settings
        )

    monkeypatch.setitem(ARCHITECTURES, "scaled", build)
    engine = make(make_architecture_dir(tmp_path, "scaled"))
    whole, expected = engine.logprobs(SEQUENCES), trained_gradients(engine, monkeypatch, reinforce)
    rows = in_slices(monkeypatch, engine)
    for got, wanted in zip(engine.logprobs(SEQUENCES), whole, strict=True):
        assert got == pytest.approx(wanted, abs=1e-5)
    assert_same(trained_gradients(engine, monkeypatch, reinforce), expected)
    assert rows and max(rows) <= TOKENS


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_lora_and_its_base_go_in_slices(targets: Any, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(tiny_model_dir, lora=LoraConfig(rank=2, alpha=4, targets=targets))
    for name, parameter in engine.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    divergences = engine.kl_to_base(SEQUENCES)
    assert max(map(max, divergences)) > 1e-3
    updates = [trained_gradients(engine, monkeypatch, update) for update in (reinforce, distil)]
    rows = in_slices(monkeypatch, engine)
    for got, expected in zip(engine.kl_to_base(SEQUENCES), divergences, strict=True):
        assert got == pytest.approx(expected, abs=1e-5)
    for update, expected_update in zip((reinforce, distil), updates, strict=True):
        assert_same(trained_gradients(engine, monkeypatch, update), expected_update, 5e-6)
    assert rows and max(rows) <= TOKENS


def test_full_parameters_diverge_from_their_base_in_slices(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(tiny_model_dir)
    engine.distill_step([replace(d, token_weight=1.0) for d in distilled()], 0.01)
    whole = engine.kl_to_base(SEQUENCES)
    assert max(map(max, whole)) > 1e-3
    in_slices(monkeypatch, engine)
    for got, expected in zip(engine.kl_to_base(SEQUENCES), whole, strict=True):
        assert got == pytest.approx(expected, abs=1e-5)


def test_a_head_that_cannot_be_sliced_stays_whole_and_says_so(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(tiny_model_dir)
    whole = engine.logprobs(SEQUENCES)
    in_slices(monkeypatch, engine)
    right = head.Head.__call__
    monkeypatch.setattr(head.Head, "__call__", lambda self, hidden: right(self, hidden) + 0.1)
    with caplog.at_level(logging.WARNING):
        assert engine.logprobs(SEQUENCES) == whole
    assert "LlamaForCausalLM: its logits cannot be computed in slices" in caplog.text


@pytest.mark.parametrize("frozen", ["model.*", "lm_head.weight"])
def test_a_head_of_which_one_side_is_frozen_goes_in_slices(
    frozen: str, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(tiny_model_dir, freeze=[frozen])
    expected = [trained_gradients(engine, monkeypatch, update) for update in (reinforce, distil)]
    assert ("lm_head.weight" in expected[0][0]) == (frozen == "model.*")
    rows = in_slices(monkeypatch, engine)
    for update, wanted in zip((reinforce, distil), expected, strict=True):
        assert_same(trained_gradients(engine, monkeypatch, update), wanted)
    assert rows and max(rows) <= TOKENS


def test_the_heads_gradient_is_added_to_what_is_there() -> None:
    layer = torch.nn.Linear(4, 7)
    hidden, upstream = torch.randn(5, 4, requires_grad=True), torch.randn(5, 7)
    (layer(hidden) * upstream).sum().backward()
    expected = [2 * p.grad for p in (layer.weight, layer.bias)] + [2 * hidden.grad]  # type: ignore[operator]
    place = layer.weight.grad.data_ptr()  # type: ignore[union-attr]
    network = torch.nn.Module()
    network.get_output_embeddings = lambda: layer  # type: ignore[assignment]
    with head.gradient_in_place(network):
        (layer(hidden) * upstream).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.data_ptr() == place
    for got, wanted in zip([layer.weight.grad, layer.bias.grad, hidden.grad], expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4)])
@pytest.mark.parametrize("sharing", [True, False])
def test_activation_checkpointing_gives_the_same_gradients_to_the_bit(
    lora: LoraConfig | None, sharing: bool, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, recomputed = (
        make(tiny_model_dir, lora=lora, prefix_sharing=sharing, activation_checkpointing=on) for on in (False, True)
    )
    passes = {id(engine): 0 for engine in (kept, recomputed)}
    for engine in (kept, recomputed):
        layer = next(m for m in engine.model.modules() if type(m).__name__ == "LlamaDecoderLayer")

        def count(*_: Any, engine: LocalEngine = engine) -> None:
            passes[id(engine)] += 1

        layer.mlp.register_forward_pre_hook(count)
    for update in (reinforce, distil):
        expected, got = (trained_gradients(engine, monkeypatch, update) for engine in (kept, recomputed))
        assert expected[0].keys() == got[0].keys()
        assert all(torch.equal(value, got[0][name]) for name, value in expected[0].items())
        assert expected[1] == got[1] or str(expected[1]) == str(got[1])
    assert passes[id(recomputed)] > passes[id(kept)]
