"""Equalities that distillation promises: of one step of the engine, and of whole runs of a tiny model."""

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.fast.frozen import FrozenOptimiser
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.runs.files import read_config
from fastslow.runs.reader import read_candidates, read_population
from fastslow.slow.engine import DistillDatum, SampleRequest, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.training.observer import Observer
from fastslow.types import Prompt

from runs import metrics_of, record_of, small_config

SYSTEM, PROMPT = (20, 21), tuple(range(30, 50))
QUESTIONS = [(50, 51), (50, 52, 53), (60,)]
LORA = LoraConfig(rank=2, alpha=4)
TEACHER = "Write the letter a.\nWrite the letter e."


def make(directory: Path, *, lora: bool = False, adapter: Path | None = None, **slow: Any) -> LocalEngine:
    config = ModelConfig(name=str(directory), device="cpu", lora=LORA if lora else None)
    return LocalEngine(config, SlowConfig(max_grad_norm=None, **slow), adapter=adapter)


@pytest.fixture(scope="module")
def datums(tiny_model_dir: Path) -> list[DistillDatum]:
    """Six rollouts of a student that has a short prompt, of different weights; the teacher has a long one."""
    requests = [SampleRequest((*SYSTEM, *question), 2, seed) for seed, question in enumerate(QUESTIONS)]
    groups = make(tiny_model_dir).sample(requests, SamplingParams(10))
    datums = [
        DistillDatum((*SYSTEM, *question), (*PROMPT, *question), completion.tokens, 1 / (50 + len(completion.tokens)))
        for question, group in zip(QUESTIONS, groups, strict=True)
        for completion in group
    ]
    # A completion that comes twice, once for another teacher.
    return [*datums, datums[0], replace(datums[0], teacher_context_tokens=(70, *QUESTIONS[0]))]


@pytest.fixture(scope="module")
def adapter(tiny_model_dir: Path, datums: list[DistillDatum], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learnt already, so that base and current weights differ."""
    engine = make(tiny_model_dir, lora=True)
    engine.distill_step(datums, 0.01)
    directory = tmp_path_factory.mktemp("adapter")
    engine.save(directory, resumable=False)
    return directory


def gradients(
    engine: LocalEngine, datums: Sequence[DistillDatum], directory: Path, **settings: float
) -> tuple[dict[str, Any], Any]:
    """The gradient of a first update, from Adam's first moment, 0.1 times the gradient; and the update's metrics."""
    metrics = engine.distill_step(datums, 1e-30, **settings)
    engine.save(directory, resumable=True)
    state = load_file(directory / "resume" / "optimizer.safetensors")
    return {k.removeprefix("exp_avg/"): 10 * v for k, v in state.items() if k.startswith("exp_avg/")}, metrics


def reference(
    student: Any,
    teacher: Any,
    datums: Sequence[DistillDatum],
    names: dict[str, torch.nn.Parameter],
    temperature: float = 1.0,
) -> tuple[dict[str, torch.Tensor], float]:
    """Equation 8 in float64, one sequence a pass, nothing of the engine in it."""
    loss = torch.zeros((), dtype=torch.float64)
    for datum in datums:
        p = _log_softmax(student, datum.context_tokens, datum.completion_tokens, temperature)
        with torch.no_grad():
            q = _log_softmax(teacher, datum.teacher_context_tokens, datum.completion_tokens, temperature)
        loss = loss + datum.token_weight * (p.exp() * (p - q)).sum()
    loss.backward()
    return {name: p.grad.float() for name, p in names.items() if p.grad is not None}, loss.item()


def _log_softmax(model: Any, context: tuple[int, ...], completion: tuple[int, ...], temperature: float) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([[*context, *completion]])).logits / temperature
    return logits[0, len(context) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_both_policies_are_taken_at_the_rollouts_temperature(
    tiny_model_dir: Path, datums: list[DistillDatum], tmp_path: Path, temperature: float
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64).eval()
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64).eval()
    expected, loss = reference(model, base, datums, dict(model.named_parameters()), temperature)
    got, metrics = gradients(make(tiny_model_dir, microbatch_tokens=40), datums, tmp_path, temperature=temperature)
    assert metrics.loss == pytest.approx(loss, abs=1e-6)
    assert max(float(value.abs().max()) for value in expected.values()) > 1e-3
    for name, value in expected.items():
        assert float((value - got[name]).abs().max()) < 1e-6, name


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("microbatch_tokens", [1, 40, 4096])
def test_one_step_is_the_same_however_it_is_cut_up(
    tiny_model_dir: Path, datums: list[DistillDatum], adapter: Path, tmp_path: Path,
    lora: bool, sharing: bool, microbatch_tokens: int,
) -> None:  # fmt: skip
    teacher = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64).eval()
    student = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64).eval()
    if lora:
        student = PeftModel.from_pretrained(student, str(adapter), is_trainable=True).double().eval()
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    expected, loss = reference(student, teacher, datums, trained)
    engine = make(
        tiny_model_dir, lora=lora, adapter=adapter if lora else None, prefix_sharing=sharing,
        microbatch_tokens=microbatch_tokens,
    )  # fmt: skip
    got, metrics = gradients(engine, datums, tmp_path)
    assert got.keys() == expected.keys()
    assert max(float(value.abs().max()) for value in expected.values()) > 1e-3
    for name, value in expected.items():
        assert float((value - got[name]).abs().max()) < 1e-6, name
    assert metrics.loss == pytest.approx(loss, abs=1e-6)
    assert metrics.grad_norm == pytest.approx(
        torch.stack([v.norm() for v in expected.values()]).norm().item(), rel=1e-5
    )
    assert metrics.tokens == sum(len(datum.completion_tokens) for datum in datums)
    assert engine.policy_version == 1


@pytest.mark.parametrize("lora", [False, True])
def test_a_student_that_is_its_own_teacher_stays(tiny_model_dir: Path, datums: list[DistillDatum], lora: bool) -> None:
    engine = make(tiny_model_dir, lora=lora, microbatch_tokens=40)
    before = {name: parameter.detach().clone() for name, parameter in engine.model.named_parameters()}
    same = [replace(datum, teacher_context_tokens=datum.context_tokens) for datum in datums]
    metrics = engine.distill_step(same, learning_rate=0.1)
    assert (metrics.loss, metrics.grad_norm) == (0.0, 0.0)
    assert all(torch.equal(before[name], parameter) for name, parameter in engine.model.named_parameters())


def test_each_context_is_computed_once_for_the_student_and_once_for_the_teacher(
    tiny_model_dir: Path, datums: list[DistillDatum]
) -> None:
    sides = [[(*d.context_tokens, *d.completion_tokens[:-1]) for d in datums]]
    sides.append([(*d.teacher_context_tokens, *d.completion_tokens[:-1]) for d in datums])
    nodes = sum(len({s[: end + 1] for s in side for end in range(len(s))}) for side in sides)
    assert make(tiny_model_dir).distill_step(datums, 1e-4).computed_tokens == nodes


def test_a_teachers_context_too_long_for_the_model_is_refused(tiny_model_dir: Path, datums: list[DistillDatum]) -> None:
    engine = make(tiny_model_dir)
    with pytest.raises(
        ConfigError, match=r"after a context of 2048 exceed the model's 2048 positions.*shorten the prompts"
    ):
        engine.distill_step([replace(datums[0], teacher_context_tokens=(30,) * 2048)], 1e-4)
    assert engine.policy_version == 0


# -- whole runs --------------------------------------------------------------------------------------------------------


def distill_config(model_dir: Path, output: Path, **overrides: Any) -> Config:
    defaults: dict[str, Any] = {"method": "distill", "distill": {"prompt": TEACHER}, "rollout_samples": 4}
    return small_config(model_dir, output, **{**defaults, **overrides})


EVOLVED: dict[str, Any] = {"distill": {"prompt": "evolve", "cycles": 2}}


def test_the_first_steps_are_those_of_prompts_alone_and_then_the_population_stays(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    train(distill_config(tiny_model_dir, tmp_path / "distill", **EVOLVED))
    train(small_config(tiny_model_dir, tmp_path / "prompt", method="prompt", steps=2))
    lines, alone = metrics_of(tmp_path / "distill"), metrics_of(tmp_path / "prompt")
    measured = ("val/mean@2", "val/best@2", "val/masked", "kl/base", "kl/base_completion")
    for line in (*lines, *alone):
        for name in measured:
            line.pop(name, None)
    assert lines[:3] == alone
    assert read_population(tmp_path / "distill") == read_population(tmp_path / "prompt")
    assert [line["policy_version"] for line in lines] == [0, 0, 0, 1, 2, 3, 4]
    assert [line["cycle"] for line in lines] == [0, 1, 2, 2, 2, 2, 2]
    for line in lines[3:]:
        # The student's rollouts are its own and new, never those of the search.
        assert (line["rollouts/sampled_rl"], line["rollouts/sampled_gepa"], line["rollouts/reused"]) == (12, 0, 0)
        assert line["slow/datums"] == 12
        assert line["reward/mean"] is not None
        assert line["slow/loss"] > 0.0
        assert line["slow/ratio_mean"] is None
    # Warm-up begins with the first step that moves the weights.
    assert [line["slow/learning_rate"] for line in lines[3:]] == [0.005, 0.01, 0.01, 0.01]


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
@pytest.mark.parametrize(("overrides", "cuts"), [({}, (1, 3)), (EVOLVED, (2, 3))])
def test_a_run_that_is_resumed_is_the_uninterrupted_run(
    tiny_model_dir: Path, tmp_path: Path, lora: dict[str, int] | None, overrides: dict[str, Any], cuts: tuple[int, ...]
) -> None:
    settings: dict[str, Any] = {
        "model": {"name": str(tiny_model_dir), "lora": lora}, "evaluation": {"every": 0}, "checkpoint_every": 1,
        "loop": {"steps_per_cycle": 3}, **overrides,
    }  # fmt: skip
    train(distill_config(tiny_model_dir, tmp_path / "whole", **settings))
    expected = record_of(tmp_path / "whole")
    for cut in cuts:
        output = tmp_path / f"cut-{cut}"
        train(distill_config(tiny_model_dir, output, **settings), observer=Killer(cut))
        assert len(metrics_of(output)) == cut + 1
        train(distill_config(tiny_model_dir, output, **settings), resume=output)
        assert record_of(output) == expected


class Listener(Observer):
    """Keeps the warnings of a run."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "warning":
            self.warnings.append(payload["message"])


def test_a_search_that_finds_nothing_is_said_and_nothing_moves(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastslow.fast.gepa.optimiser.GepaOptimiser.evolve", FrozenOptimiser.evolve)
    listener = Listener()
    train(distill_config(tiny_model_dir, tmp_path / "run", **EVOLVED), observer=listener)
    assert listener.warnings == ["the search found no better prompt than the seed prompt: there is nothing to distil"]
    lines = metrics_of(tmp_path / "run")
    assert [(line["slow/loss"], line["slow/grad_norm"]) for line in lines[3:]] == [(0.0, 0.0)] * 4
    assert lines[-1]["kl/base"] == 0.0


class Killer(Observer):
    """Ends a run after a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "step" and payload["step"] == self.step:
            signal.raise_signal(signal.SIGINT)


def test_the_teachers_prompt_is_kept_wherever_it_came_from(tiny_model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(f"{TEACHER}\n", encoding="utf-8")
    first, second, third = (tmp_path / name for name in ("text", "file", "run"))
    train(distill_config(tiny_model_dir, first))
    train(distill_config(tiny_model_dir, second, distill={"prompt": f"@{file}"}, steps=4))
    file.unlink()
    train(read_config(second).model_copy(update={"steps": 6}), resume=second)
    train(distill_config(tiny_model_dir, third, distill={"prompt": str(first)}))
    assert metrics_of(first)[-2:] == metrics_of(second)[-2:] == metrics_of(third)[-2:]
    for run in (first, second, third):
        assert read_population(run) == [Prompt.of(TEACHER)]
        assert read_config(run).distill.prompt == {"system": TEACHER}
        (given,) = read_candidates(run)
        assert (given["reason"], given["hash"]) == ("given as distill.prompt", Prompt.of(TEACHER).hash)


def test_distillation_brings_the_student_to_the_teacher(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(distill_config(tiny_model_dir, tmp_path / "run", steps=30, evaluation={"every": 30}))
    lines = metrics_of(tmp_path / "run")
    losses = [line["slow/loss"] for line in lines[1:]]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert lines[0]["kl/base"] == pytest.approx(0.0, abs=1e-6)
    assert lines[-1]["kl/base"] > 0.0
    # What was validated is the student: the trained weights under the seed prompt,
    # which is what evaluate takes as well.
    report = evaluate(tmp_path / "run", problems=4)
    assert report.rows[0].label == "seed"
    assert report.rows[0].result.mean == pytest.approx(lines[-1]["val/mean@2"])


def test_what_cannot_be_scored_is_masked_and_distilled_all_the_same(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": "toy:LettersTask", "options": {"broken_every": 5}}
    train(distill_config(tiny_model_dir, tmp_path / "run", task=task, steps=3))
    lines = metrics_of(tmp_path / "run")[1:]
    assert sum(line["rollouts/failed"] for line in lines) > 0
    assert [line["slow/datums"] for line in lines] == [12, 12, 12]
