"""No tensor of the host meets one of the device: passes over fake tensors on another device, under a guard.

Fake tensors have shapes and a device and no numbers, so nothing here needs a GPU.
What looks at a number cannot run on them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from architectures import ARCHITECTURES
from fastslow.slow.engine import Datum, LossSettings, SamplingParams, TokenSequence
from fastslow.slow.local import attention, loading, probe
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.learner import LocalLearner
from fastslow.slow.local.policy import LocalPolicy
from fastslow.slow.local.precision import in_float32
from fastslow.slow.local.probe import Sharing
from fastslow.slow.local.scoring import ForestScorer, PlainScorer, token_logprobs
from fastslow.slow.losses import LossInputs
from fastslow.slow.samplers.decoders import ForestDecoder, PlainDecoder
from fastslow.slow.samplers.drawing import draw_at_width
from fastslow.slow.samplers.static import StaticDecoder
from fastslow.slow.settings import ModelConfig, SlowConfig

DEVICE = torch.device("meta")
CONTEXTS, COUNTS = [[5, 6, 7], [5, 6, 9, 10, 11], [40]], [2, 1, 1]
GIVEN = [TokenSequence((5, 6, 7), (8, 9)), TokenSequence((5, 6), (1, 2, 3))]


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of two devices. Copies from one to the other are what they are for;
    scalars may mix.

    Indices on the host are legal for tensors of a GPU, and each costs a wait: they are refused, too. Whoever looks at a
    number sees one half.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            return 0.5
        found = {leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()}
        if len(found) > 1 and func.overloadpacket.__name__ not in ("copy_", "_to_copy"):
            raise RuntimeError(f"{func} on two devices: {found}")
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        with DEVICE:
            made = AutoModelForCausalLM.from_config(ARCHITECTURES[request.param](101)).eval()
        attention.use(made)
        with OneDevice():
            yield made


def test_the_guard_notices_what_is_mixed(model: Any) -> None:
    with pytest.raises(RuntimeError, match="two devices"):
        model(input_ids=torch.tensor([[1, 2]]))
    logits = torch.empty(4, 4, device=DEVICE)
    with pytest.raises(RuntimeError, match="two devices"):
        logits[torch.tensor([0, 1])]


@torch.no_grad()
@pytest.mark.parametrize("kind", [ForestDecoder, PlainDecoder, StaticDecoder])
def test_decoders_keep_to_the_device(model: Any, kind: type) -> None:
    more = {ForestDecoder: (32,), PlainDecoder: (0,), StaticDecoder: (32, 8)}[kind]
    decoder = kind(model, CONTEXTS, COUNTS, *more)
    found = [decoder.prefill(), decoder.step([1, 2, 3, 4])]
    decoder.keep([0, 2])
    found.append(decoder.step([1, 2]))
    assert [tuple(logits.shape) for logits in found] == [(4, 101), (4, 101), (2, 101)]
    assert {logits.device for logits in found} == {DEVICE}


@torch.no_grad()
@pytest.mark.parametrize(
    "params", [SamplingParams(8), SamplingParams(8, top_p=0.5), SamplingParams(8, temperature=0.0)]
)
def test_draws_keep_to_the_device_and_look_at_no_number(model: Any, params: SamplingParams) -> None:
    decoder = StaticDecoder(model, CONTEXTS, COUNTS, 32, 8)
    logits = decoder.prefill()
    noise = torch.zeros(4, 8, dtype=torch.float64, device=DEVICE)
    tokens, logprobs, _ = draw_at_width(logits, noise[:, 0], params, 16)
    assert tokens.device == logprobs.device == DEVICE
    decoder.begin(tokens, noise)
    for width in (16, None):
        decoder._draw_one(64, params, width)


def test_scorers_keep_to_the_device(model: Any) -> None:
    for scorer in (ForestScorer(DEVICE, torch.float32), PlainScorer(DEVICE, 0)):
        for batch in scorer.micro_batches(GIVEN, 32):
            logprobs, entropy = token_logprobs(batch.forward(model), batch, GIVEN)
            assert logprobs.device == entropy.device == DEVICE


@pytest.fixture
def learner(model: Any, monkeypatch: pytest.MonkeyPatch) -> LocalLearner:
    """A learner whose weights lie on the device. Lists of numbers that it reads are zeros, no lengths are compared."""
    for kind in (torch.Tensor, FakeTensor):
        monkeypatch.setattr(kind, "tolist", lambda tensor: [0] * len(tensor))
    monkeypatch.setattr(LossInputs, "__post_init__", lambda inputs: None)
    policy = LocalPolicy.__new__(LocalPolicy)
    policy.model = policy._base = model
    policy.slow, policy.sharing, policy.context_limit = SlowConfig(microbatch_tokens=32), Sharing(None), 256
    policy.device, policy.dtype = DEVICE, torch.float32
    return LocalLearner(policy)


def test_measuring_keeps_to_the_device(learner: LocalLearner) -> None:
    assert [len(row) for row in learner.logprobs(GIVEN)] == [2, 3]
    assert [len(row) for row in learner.kl_to_base(GIVEN)] == [2, 3]


def test_updates_keep_to_the_device(learner: LocalLearner) -> None:
    datums = [Datum(s.context_tokens, s.completion_tokens, (-1.0,) * len(s.completion_tokens), 1.0, 0.1) for s in GIVEN]
    for temperature in (1.0, 0.7):
        assert learner.train_step(datums, LossSettings(temperature=temperature), 1e-3).tokens == 5
    assert learner.policy_version == 2
    moments = [value for state in learner.optimiser.adam.state.values() for value in state.values() if value.dim()]
    assert moments and {moment.device for moment in moments} == {DEVICE}


# -- what is asked of a GPU --------------------------------------------------------------------------------------------


def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    config = ModelConfig(name="any", dtype="bfloat16")
    assert loading.compute_dtype(config, torch.device("cuda")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert loading.compute_dtype(config, torch.device("cuda")) == torch.bfloat16


def test_comparisons_in_float32_are_none_in_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with in_float32(torch.nn.Linear(2, 2)):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_want_of_memory_does_not_decide_how_a_model_is_packed(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(probe, "_compare", full)
    with pytest.raises(torch.OutOfMemoryError):
        LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"))


def test_a_checkpoint_passes_through_the_host_on_its_way_back(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"))
    engine.save(tmp_path, resumable=True)
    engine.policy.base_model()
    engine.policy.device = torch.device("meta")  # a model that went there would come back without numbers
    expected = {name: value.clone() for name, value in engine.model.state_dict().items()}
    engine.load(tmp_path)
    assert all(torch.equal(expected[name], value) for name, value in engine.model.state_dict().items())
