"""Tiny random models of many architectures, as Hugging Face directories, and one as a GGUF file.

A fifth of the vocabulary ends a completion, so that random weights give completions of mixed lengths.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedConfig

from tiny import make_tokenizer

POSITIONS = 256
STOP_TOKENS = [1, *range(81, 101)]

_SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None, "initializer_range": 0.3,
}  # fmt: skip
_WITHOUT_GROUPS = {key: value for key, value in _SHAPE.items() if key != "num_key_value_heads"}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, "initializer_range": 0.3,
         "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}  # fmt: skip
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 1,
        "bos_token_id": 1}  # fmt: skip
_PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3,
          "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}  # fmt: skip
_ALL_HEADS = {**_SHAPE, "num_key_value_heads": 4}
_MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "n_shared_experts": 1}  # fmt: skip
_DECODER = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.3,
            "max_position_embeddings": POSITIONS, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
            "decoder_start_token_id": 1}  # fmt: skip
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16}


def _config(name: str, *settings: dict[str, Any], **more: Any) -> Callable[[int], PreTrainedConfig]:
    def build(vocab_size: int) -> PreTrainedConfig:
        merged = {key: value for part in (*settings, more) for key, value in part.items()}
        return getattr(transformers, name)(vocab_size=vocab_size, **merged)

    return build


ARCHITECTURES: dict[str, Callable[[int], PreTrainedConfig]] = {
    "llama": _config("LlamaConfig", _SHAPE),
    "tied": _config("LlamaConfig", _SHAPE, tie_word_embeddings=True),
    "qwen2": _config("Qwen2Config", _SHAPE),
    "qwen3": _config("Qwen3Config", _SHAPE, head_dim=16),
    "qwen3_moe": _config("Qwen3MoeConfig", _SHAPE, _MOE),
    "mistral": _config("MistralConfig", _SHAPE, sliding_window=None),
    "mistral_wide_window": _config("MistralConfig", _SHAPE, sliding_window=POSITIONS),
    "phi3": _config("Phi3Config", _SHAPE),
    "gpt2": _config("GPT2Config", _GPT2),
    "gpt_neox": _config("GPTNeoXConfig", _WITHOUT_GROUPS),
    "gemma2": _config("Gemma2Config", _SHAPE, head_dim=8, sliding_window=POSITIONS),
    "gemma3": _config("Gemma3TextConfig", _SHAPE, head_dim=8, sliding_window=4),
    "gpt_oss": _config(
        "GptOssConfig", _SHAPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=POSITIONS
    ),
    "lfm2": _config("Lfm2Config", _SHAPE, layer_types=["conv", "full_attention"]),
    "deepseek_v2": _config("DeepseekV2Config", _ALL_HEADS, _MLA),
    "deepseek_v3": _config("DeepseekV3Config", _ALL_HEADS, _MLA),
    "opt": _config(
        "OPTConfig", hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=POSITIONS, init_std=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    ),
    "gptj": _config("GPTJConfig", _GPT, n_positions=POSITIONS, rotary_dim=4),
    "falcon": _config("FalconConfig", _PLAIN, max_position_embeddings=POSITIONS),
    "falcon_alibi": _config("FalconConfig", _PLAIN, max_position_embeddings=POSITIONS, alibi=True),
    "bloom": _config("BloomConfig", _PLAIN),
    "mpt": _config("MptConfig", d_model=32, n_layers=2, n_heads=4, max_seq_len=POSITIONS, initializer_range=0.3),
    "gpt_neo": _config(
        "GPTNeoConfig", hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]],
        max_position_embeddings=POSITIONS, initializer_range=0.3, bos_token_id=1, eos_token_id=1,
    ),
    "gpt_neo_local": _config(
        "GPTNeoConfig", hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        window_size=20, max_position_embeddings=POSITIONS, initializer_range=0.3, bos_token_id=1, eos_token_id=1,
    ),
}  # fmt: skip

# Where a long pass changes the rope, it changes after this many tokens.
ROPE_LIMIT = 96

# Architectures whose cached sampling gives other numbers than whole sequences: no run may train them.
BIASED: dict[str, Callable[[int], PreTrainedConfig]] = {
    "phi3_longrope": _config(
        "Phi3Config", _ALL_HEADS, original_max_position_embeddings=ROPE_LIMIT,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4,
                         "long_factor": [4.0] * 4, "original_max_position_embeddings": ROPE_LIMIT},
    ),
    "bart": _config("BartConfig", _DECODER),
    "marian": _config("MarianConfig", _DECODER),
    "moshi": _config(
        "MoshiConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, sliding_window=8,
        max_position_embeddings=POSITIONS, initializer_range=0.3, pad_token_id=0, eos_token_id=1,
    ),
}  # fmt: skip


def make_architecture_dir(directory: Path, name: str, seed: int = 0) -> Path:
    """Write a random tiny model of this architecture, in float32, with the test tokenizer."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config({**ARCHITECTURES, **BIASED}[name](len(tokenizer)))
    model.generation_config.eos_token_id = STOP_TOKENS
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_gguf(source: Path, target: Path) -> Path:
    """Write a tiny Llama directory as a float32 GGUF file with a byte-level BPE tokenizer."""
    model = LlamaForCausalLM.from_pretrained(source)
    writer = gguf.GGUFWriter(str(target), "llama")
    _write_settings(writer, model.config)
    _write_tokenizer(writer, model.config.vocab_size)
    for name, tensor in _gguf_tensors(model).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _write_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _write_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    tokens = ["<|pad|>", "<|end|>", "ab", *(chr(code) for code in range(33, 127))]
    tokens += [f"<extra{index}>" for index in range(vocab_size - len(tokens))]
    kinds = [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (vocab_size - 2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)


def _gguf_tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    """The weights under their GGUF names; query and key rows in the order that llama.cpp's rotation expects."""
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    tensors = {}
    for name, parameter in model.named_parameters():
        stem, array = name.removesuffix(".weight"), parameter.detach().numpy()
        if stem in top:
            tensors[f"{top[stem]}.weight"] = array
            continue
        layer, part = stem.removeprefix("model.layers.").split(".", 1)
        kind = names[part]
        if kind in heads:
            paired = array.reshape(heads[kind], 2, -1, array.shape[1]).swapaxes(1, 2)
            array = np.ascontiguousarray(paired.reshape(array.shape))
        tensors[f"blk.{layer}.{kind}.weight"] = array
    return tensors
