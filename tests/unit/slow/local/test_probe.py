"""The decision about prefix sharing: numbers on ordinary text in float32, where no noise hides or fakes an error."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from architectures import ARCHITECTURES, POSITIONS
from fastslow.slow.local import attention, loading, probe
from fastslow.slow.local.forest import Forest
from fastslow.slow.local.precision import in_float32
from fastslow.slow.local.probe import decide_sharing
from fastslow.slow.settings import ModelConfig

from tiny import make_tokenizer

TOKENIZER = make_tokenizer()
OWN_ATTENTION = "its attention does not go through transformers' attention interface"
UNSHARED = {
    "gemma2": "NotImplementedError: its attention uses softcap",
    "gemma3": "its sliding attention over 4 tokens is shorter than the sequences",
    "gpt_oss": "NotImplementedError: its attention uses s_aux",
    "lfm2": "it has layers of type conv",
    **dict.fromkeys(["gptj", "falcon", "falcon_alibi", "bloom", "mpt", "gpt_neo", "gpt_neo_local"], OWN_ATTENTION),
}


def random_model(name: str, dtype: torch.dtype, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(ARCHITECTURES[name](len(TOKENIZER))).eval().to(dtype)


def noisy(kind: str, seed: int, layers: int = 24) -> Any:
    """A deep random model, whose own bfloat16 noise is a tenth of its logits."""
    torch.manual_seed(seed)
    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    settings = config(
        vocab_size=len(TOKENIZER), hidden_size=64, intermediate_size=128, num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=POSITIONS, initializer_range=0.3,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return model(settings).eval().to(torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gets_the_same_decision_in_both_precisions(name: str, dtype: torch.dtype) -> None:
    model = random_model(name, dtype)
    original, weights = model.config._attn_implementation, {k: v.clone() for k, v in model.state_dict().items()}
    sharing = decide_sharing(model, TOKENIZER, POSITIONS)
    assert sharing.reason == UNSHARED.get(name)
    assert model.config._attn_implementation == (attention.NAME if sharing.reason is None else original)
    for key, value in model.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, weights[key])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_that_is_noisy_in_bfloat16_still_shares(kind: str, seed: int) -> None:
    sharing = decide_sharing(noisy(kind, seed), TOKENIZER, POSITIONS)
    assert sharing.reason is None
    assert "in bfloat16 they are" in sharing.evidence


def siblings_are_seen(forest: Forest, queries: int) -> list[Any]:
    """A mask that is wrong: every node of a block sees all that stands before it there, other branches too."""
    blocks = right_blocks(forest, queries)
    for block in blocks:
        size = block.stop - block.start
        block.mask[:, -size:] = torch.ones(size, size, dtype=torch.bool).tril()
    return blocks


def one_ancestor_is_missing(forest: Forest, queries: int) -> list[Any]:
    """A mask that is hardly wrong: nobody but itself sees the third token."""
    blocks = right_blocks(forest, queries)
    for block in blocks:
        third = block.keys.index(2) if 2 in block.keys else None
        if third is not None:
            own = block.mask[2 - block.start, third].clone() if block.start <= 2 < block.stop else None
            block.mask[:, third] = False
            if own is not None:
                block.mask[2 - block.start, third] = own
    return blocks


right_blocks = Forest.blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrong", [siblings_are_seen, one_ancestor_is_missing])
@pytest.mark.parametrize("made", ["llama", "qwen3_moe", "gpt2", "noisy"])
def test_a_mask_that_is_wrong_on_purpose_is_caught(
    made: str, wrong: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = noisy("llama", 0).to(dtype) if made == "noisy" else random_model(made, dtype)
    original = model.config._attn_implementation
    monkeypatch.setattr(Forest, "blocks", wrong)
    sharing = decide_sharing(model, TOKENIZER, POSITIONS)
    assert sharing.reason is not None and sharing.reason.startswith("packed log-probabilities differ by")
    assert model.config._attn_implementation == original


def test_an_error_that_only_bfloat16_has_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention._attend_in_blocks

    def wrong(query: torch.Tensor, *rest: Any) -> torch.Tensor:
        return right(query, *rest) if query.dtype == torch.float32 else torch.zeros_like(query)

    monkeypatch.setattr(attention, "_attend_in_blocks", wrong)
    assert decide_sharing(random_model("llama", torch.float32), TOKENIZER, POSITIONS).reason is None
    reason = decide_sharing(random_model("llama", torch.bfloat16), TOKENIZER, POSITIONS).reason
    assert reason is not None and reason.startswith("in bfloat16 packing moves log-probabilities by")


@pytest.mark.parametrize(
    ("settings", "longest", "reason"),
    [
        ({"sliding_window": 16}, 2048, "its sliding attention over 16 tokens is shorter than the sequences"),
        ({"sliding_window": 16}, 0, "its sliding attention over 16 tokens is shorter than the sequences"),
        ({"sliding_window": 2048}, 2048, None),
        ({"sliding_window": 16, "layer_types": ["full_attention"] * 2}, 2048, None),
        ({"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}, 2048, "its sliding attention"),
        ({"attention_chunk_size": 32}, 2048, "its chunked attention over 32 tokens is shorter than the sequences"),
        ({"layer_types": ["linear_attention", "full_attention"]}, 2048, "it has layers of type linear_attention"),
        ({}, 0, None),
    ],
)
def test_layers_that_do_not_see_everything_are_found_in_the_config(
    tiny_model_dir: Path, settings: dict, longest: int, reason: str | None
) -> None:
    model = loading.load_model(ModelConfig(name=str(tiny_model_dir)), torch.device("cpu"), torch.float32)
    for key, value in settings.items():
        setattr(model.config, key, value)
    found = decide_sharing(model, TOKENIZER, longest).reason
    assert (found is None) if reason is None else (found is not None and found.startswith(reason))


def test_a_tokenizer_without_letters_and_a_short_context_are_no_obstacle(tiny_model_dir: Path) -> None:
    model = loading.load_model(ModelConfig(name=str(tiny_model_dir)), torch.device("cpu"), torch.float32)

    def tokenizer(text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": []}

    assert decide_sharing(model, tokenizer, 12).reason is None  # type: ignore[arg-type]


def test_ordinary_text_is_what_is_compared() -> None:
    tokens = probe.ordinary_tokens(random_model("llama", torch.float32), TOKENIZER, 80)
    assert TOKENIZER.decode(tokens) == probe.TEXT[:80]


def test_float32_for_a_moment_leaves_nothing_behind_even_after_an_error() -> None:
    model = random_model("tied", torch.bfloat16)
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    with pytest.raises(RuntimeError, match="in the middle"), in_float32(model):
        assert model(ids).logits.dtype == torch.float32

        def stop(*_: Any) -> None:
            raise RuntimeError("in the middle")

        model.model.layers[1].mlp.register_forward_pre_hook(stop)
        model(ids)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    model.model.layers[1].mlp._forward_pre_hooks.clear()
    assert torch.equal(model(ids).logits, before)


def test_float32_for_a_moment_is_the_float32_model() -> None:
    model = random_model("llama", torch.bfloat16)
    wide = copy.deepcopy(model).float()
    ids = torch.tensor([[5, 6, 7, 8]])
    with in_float32(model):
        assert torch.equal(model(ids).logits, wide(ids).logits)
