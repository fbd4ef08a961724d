"""The two decoders step by step against whole forward passes, and what they do not compute."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from architectures import ARCHITECTURES
from fastslow.errors import ConfigError
from fastslow.slow.local import attention
from fastslow.slow.samplers.decoders import ForestDecoder, GrowingLayer, PlainDecoder

CONTEXTS = [[5, 6, 7], [5, 6, 9, 10, 11], [40]]
COUNTS = [2, 1, 1]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()


def make(kind: str, model: Any, contexts: list[list[int]], counts: list[int], budget: int = 64) -> Any:
    if kind == "forest":
        attention.use(model)
    else:
        model.set_attn_implementation("sdpa")
    if kind == "forest":
        return ForestDecoder(model, contexts, counts, budget)
    return PlainDecoder(model, contexts, counts, pad_token=0)


def reference(model: Any, rows: list[list[int]]) -> torch.Tensor:
    model.set_attn_implementation("sdpa")
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "budget"), [("forest", 64), ("forest", 1), ("plain", 0)])
def test_logits_follow_the_rows_through_steps_and_departures(model: Any, kind: str, budget: int) -> None:
    decoder = make(kind, model, CONTEXTS, COUNTS, budget)
    rows = [list(context) for context, count in zip(CONTEXTS, COUNTS, strict=True) for _ in range(count)]
    got = [decoder.prefill()]
    expected_rows = [[list(row) for row in rows]]
    for step, kept in enumerate([[0, 1, 2, 3], [1, 2, 3], [1, 2], [0]]):
        decoder.keep(kept)
        rows = [rows[index] for index in kept]
        tokens = [20 + step * 4 + index for index in range(len(rows))]
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        got.append(decoder.step(tokens))
        expected_rows.append([list(row) for row in rows])
    for logits, expected in zip(got, expected_rows, strict=True):
        close(logits, reference(model, expected))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["forest", "plain"])
def test_growing_past_the_first_buffer(model: Any, kind: str) -> None:
    decoder = make(kind, model, [[5, 6]], [2])
    decoder.prefill()
    tail = [[10 + i % 60, 80 - i % 60] for i in range(40)]
    for tokens in tail:
        logits = decoder.step(tokens)
    close(logits, reference(model, [[5, 6, *(tokens[row] for tokens in tail)] for row in range(2)]))


@torch.no_grad()
def test_a_forest_computes_shared_prefixes_once(model: Any) -> None:
    decoder = make("forest", model, CONTEXTS, COUNTS)
    decoder.prefill()
    assert decoder.computed_tokens == 7  # 5 6 7, 9 10 11 and 40
    decoder.step([1, 2, 3, 4])
    decoder.keep([2])
    decoder.step([5])
    assert decoder.computed_tokens == 7 + 4 + 1


@torch.no_grad()
def test_the_plain_decoder_computes_a_repeated_context_once(model: Any) -> None:
    decoder = make("plain", model, [[5, 6, 7], [8], [5, 6, 7]], [1, 2, 1])
    logits = decoder.prefill()
    assert decoder.computed_tokens == 2 * 3  # two distinct contexts, padded to three tokens
    close(logits, reference(model, [[5, 6, 7], [8], [8], [5, 6, 7]]))


@torch.no_grad()
def test_a_pack_may_be_longer_than_a_window_that_no_sequence_fills() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["mistral_wide_window"](101)).eval()
    model.config.sliding_window = 8
    contexts = [[index, index + 1, index + 2, index + 3] for index in range(10, 16)]
    decoder = make("forest", model, contexts, [1] * 6)
    decoder.prefill()
    assert decoder.computed_tokens == 24
    close(decoder.step([50] * 6), reference(model, [[*context, 50] for context in contexts]))


def test_a_model_without_a_key_value_cache_is_refused() -> None:
    mamba = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, state_size=2))
    with torch.no_grad(), pytest.raises(ConfigError, match=r"model.name: MambaForCausalLM keeps no key-value cache"):
        PlainDecoder(mamba, [[1, 2]], [1], pad_token=0).prefill()


def test_a_growing_layer_holds_what_it_was_given_and_selects_rows() -> None:
    layer = GrowingLayer()
    given = torch.randn(3, 2, 40, 4)
    for position in range(40):
        keys, values = layer.update(given[:, :, position : position + 1], -given[:, :, position : position + 1])
    assert torch.equal(keys, given)
    assert torch.equal(values, -given)
    assert layer.get_seq_length() == 40
    layer.select(torch.tensor([2, 0]))
    keys, _ = layer.update(given[:2, :, :1], given[:2, :, :1])
    assert torch.equal(keys[:, :, :40], given[[2, 0]])


def test_attention_refuses_ingredients_that_it_would_ignore() -> None:
    tensor = torch.zeros(1, 1, 1, 4)
    with pytest.raises(NotImplementedError, match="its attention uses softcap"):
        attention.fastslow_attention(torch.nn.Module(), tensor, tensor, tensor, None, softcap=50.0)
