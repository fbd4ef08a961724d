"""Equalities that the loop promises, on real runs of a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import InfrastructureError
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.measuring.evaluation import evaluate_prompts
from fastslow.runs.reader import Run, read_candidates, read_population

from runs import metrics_of, record_of, small_config


def test_fst_with_one_frozen_prompt_is_rl(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(small_config(tiny_model_dir, tmp_path / "rl", method="rl"))
    train(
        small_config(
            tiny_model_dir, tmp_path / "fst", loop={"population_size": 1}, fast={"optimiser": "frozen"}, method="fst"
        )
    )
    rl, fst = metrics_of(tmp_path / "rl"), metrics_of(tmp_path / "fst")
    assert rl == fst
    assert len(rl) == 7
    assert any(line["slow/grad_norm"] for line in rl)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(small_config(tiny_model_dir, tmp_path / name, seed=seed))
    assert record_of(tmp_path / "a") == record_of(tmp_path / "b")
    assert metrics_of(tmp_path / "a") != metrics_of(tmp_path / "c")


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
def test_a_run_that_is_resumed_in_the_middle_of_a_cycle_is_the_uninterrupted_run(
    tiny_model_dir: Path, tmp_path: Path, lora: dict[str, int] | None
) -> None:
    model = {"name": str(tiny_model_dir), "lora": lora}
    loop = {"steps_per_cycle": 4}
    train(small_config(tiny_model_dir, tmp_path / "whole", model=model, loop=loop))
    train(small_config(tiny_model_dir, tmp_path / "cut", model=model, loop=loop, steps=2, evaluation={"every": 3}))
    train(small_config(tiny_model_dir, tmp_path / "cut", model=model, loop=loop), resume=tmp_path / "cut")
    whole, cut = record_of(tmp_path / "whole"), record_of(tmp_path / "cut")
    # A run that ends at step 2 evaluates there; the uninterrupted one does not.
    for line in cut["metrics"]:
        if line["step"] == 2:
            for name in ("val/mean@2", "val/best@2", "val/masked", "kl/base", "kl/base_completion"):
                line.pop(name, None)
    assert whole["metrics"] == cut["metrics"]
    assert whole["weights"] == cut["weights"]


def test_counts_add_up_and_reuse_saves_samples(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(small_config(tiny_model_dir, tmp_path / "reuse"))
    train(small_config(tiny_model_dir, tmp_path / "none", loop={"reuse_max_age": 0}))
    for name in ("reuse", "none"):
        total = 0
        for line in metrics_of(tmp_path / name):
            total += line["rollouts/sampled"]
            assert line["rollouts/sampled_total"] == total
            assert line["fast/metric_calls"] <= 24
            if line["step"]:
                assert line["rollouts/sampled_rl"] + line["rollouts/reused_rl"] == 12
            served = line["rollouts/sampled_gepa"] + line["rollouts/reused_gepa"]
            assert served == line["fast/metric_calls"]
    assert sum(line["rollouts/reused_rl"] for line in metrics_of(tmp_path / "reuse")) > 0
    assert sum(line["rollouts/reused"] for line in metrics_of(tmp_path / "none")) == 0


def test_rollouts_of_rl_score_prompts_where_anchors_come_from_the_store(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(
        small_config(
            tiny_model_dir, tmp_path / "run", loop={"reuse_max_age": 4}, fast={"anchors_from_store": 0.5}, steps=4
        )
    )
    later = [line for line in metrics_of(tmp_path / "run") if line["cycle"] == 2 and line["fast/metric_calls"]]
    assert later[0]["rollouts/reused_gepa"] > 0


def test_prompts_alone_leave_the_weights_as_they_are(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(small_config(tiny_model_dir, tmp_path / "run", method="prompt", steps=2))
    lines = metrics_of(tmp_path / "run")
    assert [line["policy_version"] for line in lines] == [0, 0, 0]
    assert lines[-1]["rollouts/sampled_gepa"] > 0
    assert lines[-1]["kl/base"] == 0.0
    children = [line for line in read_candidates(tmp_path / "run") if line["parent"] is not None]
    assert any("Write the letter" in child["components"]["system"] for child in children)


def test_the_same_weights_under_the_same_prompt_are_measured_once(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def counted(*arguments: Any) -> Any:
        measured.extend(prompt.hash for prompt in arguments[3])
        return evaluate_prompts(*arguments)

    monkeypatch.setattr("fastslow.measuring.validation.evaluate_prompts", counted)
    train(small_config(tiny_model_dir, tmp_path / "prompt", method="prompt", steps=3, evaluation={"every": 1}))
    lines = metrics_of(tmp_path / "prompt")
    assert all("val/mean@2" in line and "kl/base" in line for line in lines)
    assert len(measured) == len(set(measured)) <= len(lines)
    measured.clear()
    train(small_config(tiny_model_dir, tmp_path / "rl", method="rl", steps=3, evaluation={"every": 1}))
    assert len(measured) == len({line["policy_version"] for line in metrics_of(tmp_path / "rl")}) > 1


def test_training_moves_the_reward(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": "toy:LettersTask", "options": {"validation": 12}}
    evaluation = {"every": 40, "problems": 12, "k": 4}
    slow = {"learning_rate": 0.003}
    train(
        small_config(
            tiny_model_dir, tmp_path / "run", method="rl", steps=40, task=task, slow=slow, evaluation=evaluation
        )
    )
    lines = metrics_of(tmp_path / "run")
    assert lines[-1]["val/mean@4"] > lines[0]["val/mean@4"] + 0.1
    assert lines[-1]["kl/base"] > 0.0


def test_broken_scoring_masks_rollouts_and_never_scores_them_zero(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": "toy:LettersTask", "options": {"broken_every": 5}}
    train(small_config(tiny_model_dir, tmp_path / "run", method="rl", task=task, steps=3))
    failed = 0
    for line in metrics_of(tmp_path / "run")[1:]:
        text = (tmp_path / "run" / "rollouts" / f"step_{line['step']}.jsonl").read_text(encoding="utf-8")
        rollouts = [json.loads(rollout) for rollout in text.splitlines()]
        assert len(rollouts) == 12
        broken = [rollout for rollout in rollouts if rollout["failure"] is not None]
        scored = [rollout["reward"] for rollout in rollouts if rollout["failure"] is None]
        assert [(rollout["reward"], "timed out" in rollout["failure"]) for rollout in broken] == [(None, True)] * len(
            broken
        )
        assert line["rollouts/failed"] == len(broken)
        assert line["reward/mean"] == pytest.approx(sum(scored) / len(scored))
        assert line["slow/datums"] <= len(scored)
        failed += len(broken)
    assert failed >= 6  # one of five calls of the scorer breaks


def test_scoring_that_is_down_stops_the_run_and_saves_it(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": "toy:LettersTask", "options": {"broken_every": 1}}
    config = small_config(tiny_model_dir, tmp_path / "run", method="rl", task=task, evaluation={"every": 0})
    with pytest.raises(InfrastructureError, match="the sandbox timed out"):
        train(config)
    assert (tmp_path / "run" / "checkpoints" / "step_0").is_dir()


class Listener:
    """An observer that keeps everything it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        self.events.append((kind, payload))


def test_an_evaluation_that_cannot_be_scored_is_said_and_the_run_goes_on_until_training_cannot(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    task = {"name": "toy:LettersTask", "options": {"broken_every": 1}}
    listener = Listener()
    with pytest.raises(InfrastructureError, match="fastslow train --resume"):
        train(small_config(tiny_model_dir, tmp_path / "run", method="rl", task=task), observer=listener)
    (line,) = metrics_of(tmp_path / "run")
    assert "val/mean@2" not in line
    warnings = [payload["message"] for kind, payload in listener.events if kind == "warning"]
    assert warnings[0].startswith("step 0: not evaluated: no rollout of the evaluation could be scored")
    assert [kind for kind, _ in listener.events][-1] == "abort"
    assert "InfrastructureError" in listener.events[-1][1]["error"]


def test_a_run_that_breaks_while_it_starts_gives_its_lock_back(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*unused: Any) -> None:
        raise MemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("fastslow.measuring.validation.evaluate_prompts", out_of_memory)
        listener = Listener()
        with pytest.raises(MemoryError):
            train(small_config(tiny_model_dir, tmp_path / "run"), observer=listener)
    assert listener.events[-1] == ("abort", {"error": "MemoryError: no memory"})
    train(small_config(tiny_model_dir, tmp_path / "run"), resume=tmp_path / "run")
    train(small_config(tiny_model_dir, tmp_path / "whole"))
    assert record_of(tmp_path / "run") == record_of(tmp_path / "whole")


def test_each_kind_of_problems_is_measured_under_its_own_prompt_and_that_survives_a_resume(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    task = {"name": "toy:KindsTask"}
    for name in ("whole", "cut"):
        train(small_config(tiny_model_dir, tmp_path / name, task=task, steps=6 if name == "whole" else 3))
    train(small_config(tiny_model_dir, tmp_path / "cut", task=task), resume=tmp_path / "cut")
    assert record_of(tmp_path / "whole") == record_of(tmp_path / "cut")
    by_kind = Run(tmp_path / "whole").by_kind
    assert set(by_kind) == {"even", "odd"}
    assert set(by_kind.values()) <= {prompt.hash for prompt in read_population(tmp_path / "whole")}
    lines = [line for line in metrics_of(tmp_path / "whole") if "val/mean@2" in line]
    assert all("val/by_kind/mean@2" in line for line in lines)
    report = evaluate(tmp_path / "whole", prompt="population")
    assert report.by_kind is not None
    assert report.by_kind[0] == pytest.approx(lines[-1]["val/by_kind/mean@2"])
    assert evaluate(tmp_path / "whole", prompt="best").by_kind is None


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_fresh_rollouts_have_ratio_1_in_a_run_at_any_temperature(
    tiny_model_dir: Path, tmp_path: Path, temperature: float
) -> None:
    sampling = {"max_tokens": 8, "temperature": temperature}
    train(small_config(tiny_model_dir, tmp_path / "run", steps=1, sampling=sampling, evaluation={"every": 0}))
    _, line = metrics_of(tmp_path / "run")
    assert line["rollouts/reused"] > 0  # those that the prompt search sampled are of the same policy version
    assert line["slow/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert line["slow/ratio_max"] == pytest.approx(1.0, abs=1e-4)
