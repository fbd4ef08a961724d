"""Models of transformers before and after 5.24, which renamed the key-value cache, are sampled from alike."""

import inspect
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fastslow.slow.local import attention
from fastslow.slow.samplers.cache_names import cache_in, with_cache
from fastslow.slow.samplers.decoders import ForestDecoder, PlainDecoder
from fastslow.slow.samplers.static import StaticDecoder

CONTEXTS = ((3, 4, 5, 6), (3, 4, 7))
HERE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"


def llama(kind: type = LlamaForCausalLM) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    return kind(config).eval()


class Renamed(LlamaForCausalLM):
    """Takes and gives its cache by the other name of the two, and no other."""

    if HERE == "cache":

        def forward(self, *, past_key_values: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
            output = super().forward(cache=past_key_values, **kwargs)
            return SimpleNamespace(logits=output.logits, past_key_values=output.cache)

    else:

        def forward(self, *, cache: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
            output = super().forward(past_key_values=cache, **kwargs)
            return SimpleNamespace(logits=output.logits, cache=output.past_key_values)


class Wrapped:
    """As PEFT wraps a model: its own forward pass takes anything."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def get_base_model(self) -> Any:
        return self.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


@pytest.mark.parametrize("decoder", ["plain", "forest", "static"])
@torch.no_grad()
def test_both_names_give_the_same_logits_and_no_warning(decoder: str) -> None:
    def steps(model: Any) -> list[torch.Tensor]:
        made: Any = {
            "plain": lambda: PlainDecoder(model, CONTEXTS, (1, 1), 0),
            "forest": lambda: ForestDecoder(model, CONTEXTS, (1, 1), 64),
            "static": lambda: StaticDecoder(model, CONTEXTS, (1, 1), 64, 4),
        }[decoder]()
        return [made.prefill(), made.step([8, 9]), made.step([10, 11])]

    models = [llama(), llama(Renamed)]
    if decoder != "plain":
        for model in models:
            attention.use(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        one, other = (steps(model) for model in models)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def test_an_adapter_hands_the_name_of_its_base_on() -> None:
    other = "past_key_values" if HERE == "cache" else "cache"
    assert with_cache(llama(), 1) == {HERE: 1}
    assert with_cache(Wrapped(llama(Renamed)), 1) == {other: 1}
    assert cache_in(SimpleNamespace(cache=2)) == cache_in(SimpleNamespace(past_key_values=2)) == 2
    assert cache_in(SimpleNamespace(cache=None)) is None
