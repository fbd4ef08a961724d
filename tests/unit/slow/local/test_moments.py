"""Moments of 8 bits: refused where they cannot be; by the real library, which also runs on a CPU, kept and restored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastslow.errors import ConfigError
from fastslow.slow.build import check_engine
from fastslow.slow.engine import Datum, LossSettings
from fastslow.slow.local import moments
from fastslow.slow.local.adamw import MasterAdamW
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.moments import check_optimiser
from fastslow.slow.settings import ModelConfig, SlowConfig

from runs import small_config

KINDS = ("adamw_8bit", "paged_adamw_8bit")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_gpu_or_the_library_they_are_refused_before_a_model_loads(
    kind: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowConfig.model_validate({"optimiser": kind})
    with pytest.raises(ConfigError, match=f"slow.optimiser: '{kind}' is for a GPU, and the model runs on cpu"):
        check_optimiser(slow, CPU)
    config = small_config(tiny_model_dir, tmp_path / "run", slow={"optimiser": kind}, model={"device": "cpu"})
    with pytest.raises(ConfigError, match="is for a GPU"):
        check_engine(config, moves_weights=True, needs_distributions=False)
    check_engine(config, moves_weights=False, needs_distributions=False)
    monkeypatch.setattr(moments, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package bitsandbytes: pip install 'fastslow\[8bit\]'"):
        check_optimiser(slow, CUDA)
    monkeypatch.setattr(moments, "find_spec", lambda name: object())
    check_optimiser(slow, CUDA)
    check_optimiser(SlowConfig(), CPU)


# -- the library itself ------------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    """A table, a matrix of two blocks of moments and more, and a vector that is too small for 8 bits."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(300, 32, dtype=dtype)
        self.matrix = torch.nn.Linear(32, 300, dtype=dtype)

    def backward(self, seed: int) -> None:
        inputs = torch.randint(300, (20,), generator=torch.Generator().manual_seed(seed))
        self.matrix(self.table(inputs)).float().square().mean().backward()


def optimiser_of(net: Net, kind: str) -> MasterAdamW:
    return MasterAdamW(net, SlowConfig.model_validate({"optimiser": kind, "weight_decay": 0.1}))


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("bitsandbytes", minversion="0.50", reason="bitsandbytes with optimisers for a CPU")


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_state_goes_on_bit_for_bit(library: Any, tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    first, second = Net(dtype), Net(dtype)
    one = optimiser_of(first, kind)
    for seed in range(3):
        first.backward(seed)
        one.step(1e-2)
    one.save(tmp_path)
    second.load_state_dict(first.state_dict())
    two = optimiser_of(second, kind)
    second.backward(7)
    two.step(1e-2)  # what the state is put over
    second.load_state_dict(first.state_dict())
    two.load(tmp_path)
    for seed in range(3, 5):
        for net, optimiser in ((first, one), (second, two)):
            net.backward(seed)
            optimiser.step(1e-2)
    for name, master in one.masters.items():
        assert torch.equal(master, two.masters[name]), name


def test_matrices_have_moments_of_8_bits_and_tables_and_small_tensors_of_32(library: Any, tmp_path: Path) -> None:
    net = Net()
    optimiser = optimiser_of(net, "adamw_8bit")
    net.backward(0)
    optimiser.step(1e-2)
    optimiser.save(tmp_path)
    saved = {name: tensor.dtype for name, tensor in load_file(tmp_path / "optimizer.safetensors").items()}
    for moment in ("state1", "state2"):
        assert saved[f"{moment}/matrix.weight"] == torch.uint8
        assert saved[f"{moment}/table.weight"] == saved[f"{moment}/matrix.bias"] == torch.float32
    assert not any(name.startswith("qmap") for name in saved)
    # Another optimiser of the process has no exceptions of this one.
    other = optimiser_of(torch.nn.Sequential(torch.nn.Linear(100, 100)), "adamw_8bit")  # type: ignore[arg-type]
    assert other.adam.mng.index2config == {} != optimiser.adam.mng.index2config  # type: ignore[attr-defined]


def test_updates_are_near_those_of_32_bits(library: Any) -> None:
    nets = {kind: Net() for kind in ("adamw", "adamw_8bit")}
    tables: list[torch.Tensor] = []
    start = Net().matrix.weight.detach().clone()
    for kind, net in nets.items():
        optimiser = optimiser_of(net, kind)
        for seed in range(10):
            net.backward(seed)
            optimiser.step(1e-3)
            if not seed:
                tables.append(net.table.weight.detach().clone())
    moved = [(net.matrix.weight.detach() - start).flatten() for net in nets.values()]
    assert float(torch.cosine_similarity(moved[0], moved[1], dim=0)) > 0.98
    torch.testing.assert_close(*tables, rtol=0, atol=1e-6)  # the first step of both has the same gradients


def test_an_engine_that_is_saved_goes_on_as_if_nothing_had_been(
    library: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    def make() -> LocalEngine:
        return LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"), SlowConfig(optimiser="adamw_8bit"))

    datums = [
        Datum((20, 21), (30, 31, 5), (-2.0, -3.0, -1.0), 1.0, 0.1),
        Datum((22,), (40, 5), (-2.0, -1.0), -1.0, 0.2),
    ]
    one, two = make(), make()
    one.train_step(datums, LossSettings(), 1e-3)
    one.save(tmp_path, resumable=True)
    two.load(tmp_path)
    for engine in (one, two):
        engine.train_step(datums, LossSettings(), 1e-3)
    states = [engine.model.state_dict() for engine in (one, two)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
