"""Loading: every way in which a model cannot be had is one clear ConfigError."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fastslow.errors import ConfigError
from fastslow.slow.local import loading, lora
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig

from tiny import make_tokenizer

CPU = torch.device("cpu")


def copy_of(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_a_missing_directory(tmp_path: Path) -> None:
    missing = ModelConfig(name=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"model.name: no tokenizer could be loaded from '.*nothing'"):
        loading.load_tokenizer(missing)
    with pytest.raises(ConfigError, match=r"model.name: no causal language model could be loaded from '.*nothing'"):
        loading.load_model(missing, CPU, torch.float32)


def test_a_missing_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.name: the file '.*x.gguf' does not exist"):
        LocalEngine(ModelConfig(name=str(tmp_path / "x.gguf"), device="cpu"))


def test_a_damaged_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF but no more")
    damaged = ModelConfig(name=str(tmp_path / "x.gguf"), device="cpu")
    with pytest.raises(ConfigError, match=r"^model\.name: no tokenizer could be loaded from '.*x\.gguf': \w+"):
        LocalEngine(damaged)
    with pytest.raises(
        ConfigError, match=r"^model\.name: no causal language model could be loaded from '.*x\.gguf': \w+"
    ):
        loading.load_model(damaged, CPU, torch.float32)


@pytest.mark.parametrize("damaged", ["model.safetensors", "config.json"])
def test_a_damaged_directory(tiny_model_dir: Path, tmp_path: Path, damaged: str) -> None:
    directory = copy_of(tiny_model_dir, tmp_path / "damaged")
    (directory / damaged).write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match=r"model.name: no causal language model could be loaded"):
        loading.load_model(ModelConfig(name=str(directory)), CPU, torch.float32)


@pytest.mark.parametrize("device", ["gpu", "meta", "mps", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError, match=f"model.device: '{device}'.*: use auto"):
        loading.pick_device(device)


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert loading.pick_device("cpu") == CPU
    assert loading.pick_device("auto") == torch.device("cuda" if gpus else "cpu")
    for index in range(gpus):
        assert loading.pick_device(f"cuda:{index}") == torch.device("cuda", index)
    with pytest.raises(ConfigError, match=f"model.device: 'cuda:{gpus}' is asked for"):
        loading.pick_device(f"cuda:{gpus}")


def test_bfloat16_is_emulated_by_float32_where_it_would_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(name="x", dtype="bfloat16")
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: False)
    assert loading.compute_dtype(config, CPU) == torch.float32
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: True)
    assert loading.compute_dtype(config, CPU) == torch.bfloat16


def test_no_end_of_sequence_token() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                         num_attention_heads=1, eos_token_id=None))  # fmt: skip
    with pytest.raises(ConfigError, match="neither the tokenizer nor the generation config names an end-of-sequence"):
        loading.stop_tokens(model, tokenizer)
    model.generation_config.eos_token_id = [3, 5]
    assert loading.stop_tokens(model, tokenizer) == {3, 5}
    assert loading.stop_tokens(model, make_tokenizer()) == {1, 3, 5}


def test_lora_targets_that_the_model_does_not_have(tiny_model_dir: Path) -> None:
    model = loading.load_model(ModelConfig(name=str(tiny_model_dir)), CPU, torch.float32)
    with pytest.raises(ConfigError, match=r"model.lora.targets: \['nope'\] does not fit this model"):
        lora.add_lora(model, LoraConfig(targets=["nope"]), seed=0)


def test_a_directory_without_an_adapter(tiny_model_dir: Path) -> None:
    model = loading.load_model(ModelConfig(name=str(tiny_model_dir)), CPU, torch.float32)
    with pytest.raises(ConfigError, match="no LoRA adapter for this model could be loaded"):
        lora.load_adapter(model, tiny_model_dir)


def test_the_model_is_loaded_for_evaluation_with_dropout_off(tiny_model_dir: Path, tmp_path: Path) -> None:
    directory = copy_of(tiny_model_dir, tmp_path / "dropout")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    assert not loading.load_model(ModelConfig(name=str(directory)), CPU, torch.float32).training
