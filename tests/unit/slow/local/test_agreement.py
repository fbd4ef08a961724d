"""Sampler against learner before the first step: models on which they differ are refused, with the difference."""

from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import ARCHITECTURES, POSITIONS, ROPE_LIMIT, make_architecture_dir
from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.slow.local import loading
from fastslow.slow.local.agreement import changing_lengths, check_agreement, compare, length_matters, lengths
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig

from runs import small_config


def engine_of(directory: Path, name: str, **model: Any) -> LocalEngine:
    config = ModelConfig(name=str(make_architecture_dir(directory / name, name)), device="cpu", **model)
    return LocalEngine(config, SlowConfig(), threads=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_tested_architecture_samples_what_it_learns(tmp_path: Path, name: str) -> None:
    engine = engine_of(tmp_path, name)
    check_agreement(engine, POSITIONS, trains=True)
    assert compare(engine, POSITIONS - 4, 4).difference < 1e-4


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_the_comparison_is_exact_in_bfloat16_too_and_leaves_no_trace(
    tmp_path: Path, lora: LoraConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: True)
    engine = engine_of(tmp_path, "qwen2", dtype="bfloat16", lora=lora)
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    assert compare(engine, 40, 8).difference < 1e-4
    assert engine.sampler.computed_tokens == engine.sampler.sampled_tokens == engine.policy_version == 0
    for name, tensor in engine.model.state_dict().items():
        assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])


def test_long_rope_is_refused_beyond_its_threshold_and_used_below(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(tmp_path, "phi3_longrope")
    check_agreement(engine, ROPE_LIMIT, trains=True)
    with pytest.raises(ConfigError) as caught:
        check_agreement(engine, POSITIONS, trains=True)
    for part in (
        "model.name: ", "Phi3ForCausalLM", "give other log-probabilities, by up to ", f"after {ROPE_LIMIT - 8} to ",
        f"They agree up to {ROPE_LIMIT} tokens, and this run's sequences may have {POSITIONS}: lower "
        "sampling.max_tokens",
    ):  # fmt: skip
        assert part in str(caught.value)
    assert compare(engine, ROPE_LIMIT - 8, 16).difference > 1.0
    check_agreement(engine, POSITIONS, trains=False)  # prompts alone: no ratio is there to be wrong
    assert f"They agree up to {ROPE_LIMIT} tokens" in caplog.text


@pytest.mark.parametrize("name", ["bart", "marian", "moshi"])
def test_decoders_that_count_padding_or_lose_their_window_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"by up to \d.* nats .*No length of its sequences is safe: take another model"
    ):
        check_agreement(engine_of(tmp_path, name), POSITIONS, trains=True)


@pytest.mark.parametrize("method", ["rl", "fst"])
def test_a_run_is_refused_before_its_directory_is_made(tmp_path: Path, method: str) -> None:
    model = make_architecture_dir(tmp_path / "model", "phi3_longrope")
    config = small_config(model, tmp_path / "run", method=method, sampling={"max_tokens": 128})
    with pytest.raises(ConfigError, match=f"They agree up to {ROPE_LIMIT} tokens"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_run_that_stays_below_the_threshold_begins(tmp_path: Path) -> None:
    model = make_architecture_dir(tmp_path / "model", "phi3_longrope")
    config = small_config(model, tmp_path / "run", method="rl", steps=1, sampling={"max_tokens": 4})
    assert train(config).steps == 1


def test_only_lengths_at_which_something_changes_are_tried(tmp_path: Path) -> None:
    def tried(name: str, longest: int, own_code: bool = False) -> list[tuple[int, int]]:
        return list(lengths(ARCHITECTURES[name](101), longest, own_code=own_code))

    assert tried("llama", 5000) == [(60, 4)]  # every length is computed alike
    assert tried("llama", 40) == [(36, 4)]
    assert tried("llama", 5000, own_code=True) == [(60, 4), (4996, 4)]
    assert tried("mistral_wide_window", 5000) == [(60, 4), (240, 16), (248, 16), (4996, 4)]
    assert tried("mistral_wide_window", 256) == [(60, 4)]
    assert tried("mistral_wide_window", 260) == [(60, 4), (240, 16), (248, 12), (256, 4)]
    dynamic = ARCHITECTURES["llama"](101)
    dynamic.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert changing_lengths(dynamic) == [POSITIONS]
    dynamic.rope_parameters = {"full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 64}}
    assert changing_lengths(dynamic) == [64]


def test_a_length_matters_where_something_changes_before_it(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "phi3_longrope")
    assert length_matters(engine, POSITIONS) and not length_matters(engine, ROPE_LIMIT)
    assert not length_matters(engine_of(tmp_path, "llama"), POSITIONS)
