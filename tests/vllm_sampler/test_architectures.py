"""Sampler and learner agree on models whose tensors vLLM holds in another form: biases, norms, tied heads."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

from fastslow.slow.engine import LossSettings
from fastslow.types import Completion

from tiny import make_tokenizer
from vllm_cases import PARAMS, REQUESTS, TOLERANCE, datums_of, gap, make_engine

pytestmark = pytest.mark.slow

SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None,
    "initializer_range": 0.3, "head_dim": 32,
}  # fmt: skip
ARCHITECTURES = {
    "qwen2": (Qwen2Config, {"hidden_size": 64}),
    "qwen3-tied": (Qwen3Config, {"tie_word_embeddings": True}),
}
STOP_TOKENS = [1, *range(81, 101)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampler_and_learner_agree_before_and_after_updates(name: str, tmp_path: Path) -> None:
    make, settings = ARCHITECTURES[name]
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make(vocab_size=len(tokenizer), **{**SHAPE, **settings}))
    model.generation_config.eos_token_id = STOP_TOKENS
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = make_engine(tmp_path)
    datums = datums_of(engine)
    for _ in range(2):
        assert gap(engine) < TOLERANCE
        engine.train_step(datums, LossSettings(), 3e-3)
    assert gap(engine) < TOLERANCE
    completions: list[Completion] = [c for group in engine.sample(REQUESTS, PARAMS) for c in group]
    for completion in completions:  # several tokens end a completion
        stopped = completion.tokens[-1] in STOP_TOKENS
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert not set(completion.tokens[:-1]) & set(STOP_TOKENS)
    assert len({len(c.tokens) for c in completions}) > 2
