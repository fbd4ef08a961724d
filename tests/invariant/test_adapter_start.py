"""A run that starts from an adapter (a checkpoint of a run with LoRA) goes on from its weights, with LoRA or not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fastslow.cli.main import main
from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.experiments.designs import plasticity
from fastslow.experiments.parts import Experiment, Part
from fastslow.experiments.runner import run_experiment
from fastslow.export import export
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.plan import describe
from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig
from fastslow.training.build import check

from runs import metrics_of, record_of, small_config

LORA = {"rank": 4, "alpha": 8}
SEQUENCES = [TokenSequence((10, 11, 12), (40, 41, 42, 1)), TokenSequence((10, 60), (50, 1))]
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def first(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with LoRA, long enough to be far from its base."""
    run = tmp_path_factory.mktemp("first") / "run"
    model = {"name": str(tiny_model_dir), "lora": LORA}
    train(small_config(tiny_model_dir, run, method="rl", model=model, steps=4, slow={"learning_rate": 0.05}))
    return run


@pytest.fixture(scope="module")
def adapter(first: Path) -> Path:
    return first / "checkpoints" / "step_4"


def second(tiny_model_dir: Path, adapter: Path, output: Path, lora: Any, **overrides: Any) -> Config:
    model = {"name": str(adapter), "lora": lora}
    return small_config(tiny_model_dir, output, **{"method": "rl", "steps": 4, "model": model, **overrides})


def logprobs(model: Any) -> list[list[float]]:
    """Under a plain transformers or PEFT model, without anything of ours."""
    rows = []
    for sequence in SEQUENCES:
        tokens = torch.tensor([[*sequence.context_tokens, *sequence.completion_tokens]])
        with torch.no_grad():
            table = model(input_ids=tokens).logits[0].log_softmax(-1)
        start = len(sequence.context_tokens)
        rows.append([float(table[start - 1 + i, token]) for i, token in enumerate(sequence.completion_tokens)])
    return rows


def approximately(rows: list[list[float]]) -> Any:
    return [pytest.approx(row, abs=1e-4) for row in rows]


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_the_policy_and_its_base_are_the_adapter_as_it_was_saved(
    lora: dict[str, int] | None, adapter: Path, tiny_model_dir: Path
) -> None:
    settings = None if lora is None else LoraConfig(**lora)
    engine = LocalEngine(ModelConfig(name=str(adapter), device="cpu", lora=settings), seed=5)
    expected = logprobs(AutoPeftModelForCausalLM.from_pretrained(adapter))
    original = logprobs(AutoModelForCausalLM.from_pretrained(tiny_model_dir))
    assert max(abs(a - b) for x, y in zip(expected, original, strict=True) for a, b in zip(x, y, strict=True)) > 0.1
    assert engine.logprobs(SEQUENCES) == approximately(expected)
    assert engine.logprobs(SEQUENCES, "base") == approximately(expected)
    names = {name for name, parameter in engine.model.named_parameters() if parameter.requires_grad}
    assert names and all(("lora_" in name and ".default." in name) == (lora is not None) for name in names)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_run_goes_on_from_the_adapter_and_measures_kl_from_there(
    lora: dict[str, int] | None, adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(second(tiny_model_dir, adapter, run, lora, evaluation={"every": 4}))
    lines = metrics_of(run)
    assert lines[0]["kl/base"] == pytest.approx(0, abs=1e-6)
    assert lines[-1]["kl/base"] > 1e-3
    saved = run / "checkpoints" / "step_4"
    assert {path.name for path in saved.iterdir() if path.is_dir()} == {"resume"}  # the frozen copy is not saved
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    if lora is None:
        trained = AutoModelForCausalLM.from_pretrained(saved)
        assert not (saved / "adapter_config.json").exists()
    else:
        assert json.loads((saved / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model_dir)
        trained = PeftModel.from_pretrained(base, saved)
    # One step after another from the adapter's own weights: Adam moves a weight by at most about its rate.
    before, after = (load_file(path / ADAPTER) for path in (adapter, saved)) if lora else ({}, {})
    assert all(float((after[name] - before[name]).abs().max()) < 0.05 for name in before)
    report = evaluate(run, kl=True)
    assert report.rows[0].kl is not None and report.rows[0].kl.mean > 1e-3
    start, onward = evaluate(run, weights="base", kl=True), evaluate(adapter, config=_task(tmp_path, tiny_model_dir))
    assert start.rows[0].kl is not None and start.rows[0].kl.mean == pytest.approx(0, abs=1e-6)
    assert start.rows[0].result.mean == onward.rows[0].result.mean
    # How far the weights are from the model that the first run started from: name that model.
    total = evaluate(run, kl=True, overrides=[f"model.name={tiny_model_dir}"]).rows[0].kl
    assert total is not None and total.mean != pytest.approx(report.rows[0].kl.mean, rel=1e-3)
    settings = None if lora is None else LoraConfig(**lora)
    engine = LocalEngine(ModelConfig(name=str(adapter), device="cpu", lora=settings), seed=5)
    engine.load(saved)
    assert engine.logprobs(SEQUENCES) == approximately(logprobs(trained.eval()))
    assert engine.logprobs(SEQUENCES, "base") == approximately(
        logprobs(AutoPeftModelForCausalLM.from_pretrained(adapter))
    )


def _task(tmp_path: Path, tiny_model_dir: Path) -> Path:
    from fastslow.runs.directory import config_text

    text = config_text(small_config(tiny_model_dir, tmp_path / "none"))
    path = tmp_path / "task.yaml"
    path.write_text("\n".join(line for line in text.split("versions:")[0].splitlines()), encoding="utf-8")
    return path


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_resumed_run_from_an_adapter_is_the_uninterrupted_one(
    lora: dict[str, int] | None, adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    loop = {"steps_per_cycle": 4}
    extra = {"method": "fst", "loop": loop, "evaluation": {"every": 2}, "slow": {"kl_coefficient": 0.1}}
    train(second(tiny_model_dir, adapter, tmp_path / "whole", lora, **extra))
    train(second(tiny_model_dir, adapter, tmp_path / "cut", lora, **extra, steps=2))
    train(second(tiny_model_dir, adapter, tmp_path / "cut", lora, **extra), resume=tmp_path / "cut")
    assert record_of(tmp_path / "whole") == record_of(tmp_path / "cut")


def test_what_is_exported_names_the_adapters_own_base(adapter: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    train(second(tiny_model_dir, adapter, tmp_path / "run", LORA, method="fst", steps=2, evaluation={"every": 0}))
    export(tmp_path / "run", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"vllm serve {tiny_model_dir} --enable-lora" in text and str(adapter) not in text
    assert f'AutoModelForCausalLM.from_pretrained("{tiny_model_dir}")' in text


def test_plasticity_with_lora_begins_where_the_first_phase_ended(tiny_model_dir: Path, tmp_path: Path) -> None:
    base = json.loads(small_config(tiny_model_dir, tmp_path / "x", model={"name": str(tiny_model_dir), "lora": LORA},
                                   method="rl", steps=4, slow={"learning_rate": 0.05}).model_dump_json())  # fmt: skip
    same = {"task.name": "toy:LettersTask", "steps": 2}
    parts = [Part("rl-0", {}), *plasticity(same, [0], {"rl": "rl-{seed}"}, {})]
    run_experiment(Experiment("plasticity", base, tuple(parts)), tmp_path)
    ended, fresh, after = (metrics_of(tmp_path / name) for name in ("rl-0", "second-base-0", "second-rl-0"))
    assert after[0]["val/mean@2"] == ended[-1]["val/mean@2"]
    start = tmp_path / "rl-0" / "checkpoints" / "step_4"
    engine = LocalEngine(ModelConfig(name=str(start), device="cpu", lora=LoraConfig(**LORA)))
    assert engine.logprobs(SEQUENCES) == approximately(logprobs(AutoPeftModelForCausalLM.from_pretrained(start)))
    # The same problems under the same seed, and another policy: the phases do not begin with the same completions.
    assert fresh[1]["rollouts/completion_tokens"] != after[1]["rollouts/completion_tokens"]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 8, "alpha": 8}, r"model.lora.rank: is 8, but the adapter '.*step_4' .* has rank 4"),
        ({"rank": 4, "alpha": 16}, r"model.lora.alpha: is 16, but the adapter '.*step_4' .* has alpha 8"),
    ],
)
def test_another_rank_or_alpha_is_refused_before_a_model_loads(
    lora: dict[str, int], message: str, adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(second(tiny_model_dir, adapter, tmp_path / "run", lora))


def test_other_layers_are_refused(adapter: Path) -> None:
    lora = LoraConfig(rank=4, alpha=8, targets=["q_proj", "v_proj"])
    with pytest.raises(
        ConfigError, match=r"model.lora.targets: \['q_proj', 'v_proj'\] names the layers q_proj, v_proj"
    ):
        LocalEngine(ModelConfig(name=str(adapter), device="cpu", lora=lora))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_model_name_or_path": None}, "is an adapter that does not name its model"),
        ({"base_model_name_or_path": "/nowhere"}, r"from '/nowhere', the base of the adapter '.*copy'"),
        ({"use_rslora": True}, "model.lora: trains plain LoRA, but the adapter .* has use_rslora True"),
        ({"peft_type": "IA3"}, "model.lora: trains LoRA, but the adapter .* has the type IA3"),
    ],
)
def test_an_adapter_that_cannot_be_continued_is_refused(
    changed: dict[str, Any], message: str, adapter: Path, tmp_path: Path
) -> None:
    import shutil

    copy = shutil.copytree(adapter, tmp_path / "copy")
    settings = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**settings, **changed}))
    with pytest.raises(ConfigError, match=message):
        LocalEngine(ModelConfig(name=str(copy), device="cpu", lora=LoraConfig(**LORA)))


def test_dry_run_says_what_is_started_from(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = describe(second(tiny_model_dir, adapter, tmp_path / "run", LORA))
    assert f"{adapter}, an adapter of {tiny_model_dir}" in text
    assert "from these weights on; the base policy is the model with a frozen copy of the adapter" in text
    assert "merged" in describe(second(tiny_model_dir, adapter, tmp_path / "run", None))
    assert main(["evaluate", str(tmp_path / "none")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
