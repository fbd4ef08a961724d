"""A policy whose numbers are no longer finite: said in the step where it happens, never trained on, never saved."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastslow.cli.main import main
from fastslow.errors import ConfigError, DivergedError, told
from fastslow.loop import train
from fastslow.runs.directory import config_text
from fastslow.runs.files import checkpoint_steps
from fastslow.slow.engine import Datum, DistillDatum, LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.learner import LocalLearner
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.training.observer import SilentObserver

from runs import metrics_of, small_config

NAN = float("nan")
LOSS = LossSettings(kl_coefficient=0.0)
DATUMS = [Datum((10, 11, 12), (40, 41, 1), (-3.0, -3.0, -3.0), a, 1 / 6) for a in (1.0, -1.0)]
LORA = LoraConfig(rank=4, alpha=8)


class Warnings(SilentObserver):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_event(self, name: str, data: Any) -> None:
        if name == "warning":
            self.said.append(data["message"])


def engine_of(directory: Path, lora: LoraConfig | None = None, **slow: Any) -> LocalEngine:
    return LocalEngine(ModelConfig(name=str(directory), device="cpu", lora=lora), SlowConfig(**slow), seed=7)


def weights_of(engine: LocalEngine) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in engine.model.named_parameters()}


def poisoned(source: Path, target: Path, name: str, file: str = "model.safetensors", value: float = NAN) -> Path:
    """A copy of a checkpoint with one bad value in one tensor."""
    shutil.copytree(source, target)
    tensors = load_file(target / file)
    tensors[name].view(-1)[3] = value
    save_file(tensors, target / file, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_an_update_that_is_not_finite_moves_nothing_and_the_next_one_is_as_if_it_had_not_been(
    bad: str, lora: LoraConfig | None, tiny_model_dir: Path, tmp_path: Path
) -> None:
    engine, untouched = engine_of(tiny_model_dir, lora), engine_of(tiny_model_dir, lora)
    for each in (engine, untouched):
        each.train_step(DATUMS, LOSS, 0.01)
    before = weights_of(engine)
    # An advantage that overflows makes the loss infinite; a weight of 1e30 makes gradients whose norm overflows.
    odd = (1e38, 1e30) if bad == "loss" else (1.0, 1e30)
    metrics = engine.train_step([Datum((10, 11), (40, 1), (-3.0, -3.0), *odd)], LOSS, 0.01)
    assert metrics.not_finite == bad
    assert engine.policy_version == 1
    assert all(torch.equal(value, before[name]) for name, value in weights_of(engine).items())
    for each in (engine, untouched):
        assert each.train_step(DATUMS, LOSS, 0.01).not_finite is None
        each.save(tmp_path / str(id(each)), resumable=True)
    first, second = (tmp_path / str(id(each)) for each in (engine, untouched))
    for path in (path for path in first.rglob("*.safetensors")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_distillation_leaves_such_an_update_out_as_well(tiny_model_dir: Path) -> None:
    engine = engine_of(tiny_model_dir)
    before = weights_of(engine)
    metrics = engine.distill_step([DistillDatum((10, 11), (60, 10, 11), (40, 1), float("inf"))], 0.01)
    assert metrics.not_finite == "loss" and engine.policy_version == 0
    assert all(torch.equal(value, before[name]) for name, value in weights_of(engine).items())
    assert engine.distill_step([DistillDatum((10, 11), (60, 10, 11), (40, 1), 0.5)], 0.01).not_finite is None
    assert engine.policy_version == 1


def test_weights_that_overflow_in_an_update_are_an_error_that_names_them(tiny_model_dir: Path) -> None:
    engine = engine_of(tiny_model_dir, weight_decay=30.0)  # a weight w becomes about -3e38 w
    with pytest.raises(DivergedError, match=r"slow.learning_rate: the update at 1e\+37 made weights NaN .* 'model\."):
        engine.train_step(DATUMS, LOSS, 1e37)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("params", [SamplingParams(4), SamplingParams(4, 0.0), SamplingParams(4, 0.6, 0.95)])
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_no_token_is_drawn_from_logits_that_are_not_finite(
    value: float, params: SamplingParams, sharing: bool, tiny_model_dir: Path
) -> None:
    engine = engine_of(tiny_model_dir, prefix_sharing=sharing)
    requests = [SampleRequest((10, 11), 2, 0), SampleRequest((50,), 1, 0)]
    assert engine.sample(requests, params)
    with torch.no_grad():
        engine.model.lm_head.weight[40] = value
    with pytest.raises(DivergedError, match="the policy's logits are not finite"):
        engine.sample(requests, params)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_model_with_such_a_weight_is_refused_with_the_tensors_name(
    value: float, tiny_model_dir: Path, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    bad = poisoned(tiny_model_dir, tmp_path / "bad", name, value=value)
    message = rf"model.name: the weights of '.*bad' are not finite: 1 of the 2048 values of tensor '{name}'"
    with pytest.raises(ConfigError, match=message):
        engine_of(bad)


def test_an_adapter_and_a_state_with_such_a_weight_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model_dir, LORA)
    engine.train_step(DATUMS, LOSS, 0.01)
    engine.save(tmp_path / "good", resumable=True)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    bad = poisoned(tmp_path / "good", tmp_path / "bad", name, "adapter_model.safetensors")
    inside = r"tensor '.*layers.0.self_attn.q_proj.lora_A"
    with pytest.raises(ConfigError, match=rf"the weights of the adapter '.*bad' are not finite: 1 .*{inside}"):
        engine.load(bad)
    for lora in (LORA, None):
        with pytest.raises(ConfigError, match=inside):
            engine_of(bad, lora)
    with pytest.raises(ConfigError, match=inside):
        LocalEngine(ModelConfig(name=str(tiny_model_dir), device="cpu"), adapter=bad)
    state = load_file(tmp_path / "good" / "resume" / "optimizer.safetensors")
    moment = next(name for name in state if name.startswith("exp_avg/"))
    worse = poisoned(tmp_path / "good", tmp_path / "worse", moment, "resume/optimizer.safetensors")
    with pytest.raises(ConfigError, match=rf"optimizer.safetensors' are not finite: 1 .*tensor '{moment}'"):
        engine.load(worse)


def test_a_rate_that_breaks_the_model_ends_the_run_and_the_last_good_checkpoint_is_named(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", tmp_path / "run.yaml"
    config = small_config(tiny_model_dir, run, slow={"learning_rate": 1e6}, steps=20)
    file.write_text(config_text(config).split("versions:")[0], encoding="utf-8")
    assert main(["train", str(file), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "the weights have not moved for 3 steps" in said
    assert "There is no good checkpoint yet: start again with a lower slow.learning_rate" in said
    lines = metrics_of(run)
    assert [line["slow/skipped_updates"] for line in lines] == [None, 0, 1, 0, 0]
    assert lines[-1]["policy_version"] == 1 and lines[3]["kl/base"] is not None
    assert checkpoint_steps(run) == [2]  # nothing is saved after the run has stopped


def test_three_updates_in_a_row_end_a_run_and_two_do_not(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the updates from the fifth on some have a NaN loss; the checkpoint after four is the last before them."""
    honest, bad = LocalLearner._backward, {5, 6, 8}
    calls = iter(range(1, 100))

    def backward(self: Any, *given: Any) -> None:
        honest(self, *given)
        if next(calls) in bad:
            given[-1].loss = NAN

    monkeypatch.setattr(LocalLearner, "_backward", backward)
    settings: dict[str, Any] = {"method": "rl", "slow": {"microbatch_tokens": 100000}, "evaluation": {"every": 0}}
    observer = Warnings()
    result = train(small_config(tiny_model_dir, tmp_path / "two", steps=9, **settings), observer=observer)
    assert result.steps == 9
    skipped = [line["slow/skipped_updates"] for line in metrics_of(tmp_path / "two")]
    assert sum(each or 0 for each in skipped) == 3
    said = [message for message in observer.said if "the loss is NaN or infinite: the update was left out" in message]
    assert [int(message.split(":")[0].removeprefix("step ")) for message in said] == [
        step for step, each in enumerate(skipped) if each
    ]
    calls, bad = iter(range(1, 100)), {5, 6, 7}
    with pytest.raises(DivergedError, match="have not moved for 3 steps") as caught:
        train(small_config(tiny_model_dir, tmp_path / "three", steps=9, **settings))
    lines = metrics_of(tmp_path / "three")
    assert lines[-1]["slow/skipped_updates"] is not None and lines[-1]["policy_version"] == 4
    good = max(step for step in checkpoint_steps(tmp_path / "three") if lines[step]["policy_version"] < 4)
    assert f"model.name: {tmp_path / 'three' / 'checkpoints' / f'step_{good}'})" in told(caught.value)
    # A run that is resumed in between remembers how many there were.
    calls, bad = iter(range(1, 100)), {5, 6, 7}
    cut = len(lines) - 2
    train(small_config(tiny_model_dir, tmp_path / "cut", steps=cut, **settings))
    with pytest.raises(DivergedError, match="have not moved for 3 steps"):
        train(small_config(tiny_model_dir, tmp_path / "cut", steps=9, **settings), resume=tmp_path / "cut")
    assert metrics_of(tmp_path / "cut") == lines


def test_a_policy_that_cannot_be_sampled_ends_the_run_in_that_step(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = LocalEngine.train_step

    def train_step(self: Any, datums: Any, loss: Any, learning_rate: float) -> Any:
        metrics = honest(self, datums, loss, learning_rate)
        if self.policy_version == 3:
            self.model.lm_head.weight.data[40] = NAN
        return metrics

    monkeypatch.setattr(LocalEngine, "train_step", train_step)
    config = small_config(tiny_model_dir, tmp_path / "run", method="fst", checkpoint_every=1, evaluation={"every": 0})
    with pytest.raises(
        DivergedError, match=r"the policy's logits are not finite(.|\n)*The last good checkpoint is"
    ) as e:
        train(config)
    lines = metrics_of(tmp_path / "run")
    good = max(line["step"] for line in lines if line["policy_version"] < 3 and line["step"])
    assert f"step_{good})" in told(e.value)
    assert all(line["policy_version"] <= 3 for line in lines)
