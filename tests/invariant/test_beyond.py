"""Whole runs of a tiny model with the options that go beyond the paper: resume, reuse, episodes, what is counted."""

import json
import math
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastslow.config import Config
from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.training.observer import Observer
from fastslow.training.session import TrainingSession
from fastslow.types import Problem, Prompt, Rollout

from runs import metrics_of, record_of, small_config

BARE = {"slow": {"gradient_context": "bare", "bare_member": True}}
DEALT = {
    "loop": {"population_size": 4, "prompts_per_problem": 2, "problems_per_step": 4},
    "fast": {"optimiser": "toy:CountingOptimiser"},
}
ROLLOUTS = {"fast": {"scores": "rollouts"}, "loop": {"population_size": 2}}


class Interrupt(Observer):
    """Presses Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_event(self, event: str, payload: dict[str, Any]) -> None:
        if event == "step" and payload["step"] == self.step:
            signal.raise_signal(signal.SIGINT)


def finished(config: Config, *, interrupted_at: int | None = None) -> Path:
    """A run to its end, by way of an interruption where one is asked for."""
    if interrupted_at is None:
        return train(config).run
    path = train(config, observer=Interrupt(interrupted_at)).run
    return train(config, resume=path).run


@pytest.mark.parametrize("options", [BARE, ROLLOUTS, DEALT], ids=["bare", "rollouts", "dealt"])
def test_a_resumed_run_gives_the_same_numbers(options: dict[str, Any], tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = finished(small_config(tiny_model_dir, tmp_path / "whole", **options))
    cut = finished(small_config(tiny_model_dir, tmp_path / "cut", **options), interrupted_at=3)
    assert record_of(cut) == record_of(whole)


def test_the_gradient_under_the_seed_prompt_is_measured_and_moves_the_weights(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    run = train(small_config(tiny_model_dir, tmp_path / "run", steps=4, **BARE)).run
    lines = metrics_of(run)
    updated = [line for line in lines[1:] if line["slow/datums"]]
    assert updated and all(line["slow/bare/ratio_mean"] > 0 and line["slow/bare/kl"] >= 0 for line in updated)
    # The ratio of the loss is the learner's to itself, to rounding; nothing is a mismatch of sampler and learner.
    assert all(math.isclose(line["slow/ratio_mean"], 1.0, rel_tol=1e-4) for line in updated)
    assert all(line["slow/mismatch_kl"] is None for line in updated)
    assert updated[-1]["policy_version"] > 0
    measured = [line for line in lines if "val/mean@2" in line]
    assert all("val/seed_prompt/mean@2" in line and "kl/seed_prompt/base" in line for line in measured)
    # `fastslow evaluate` reports both where no prompt is named.
    best, seed = evaluate(run, problems=2).rows
    assert (best.label, seed.label, seed.result.prompt.system) == ("best", "seed", "go")


def test_the_ratio_to_the_sampler_is_off_policy(tiny_model_dir: Path, tmp_path: Path) -> None:
    options = {"slow": {"gradient_context": "bare", "bare_behaviour": "sampler"}}
    lines = metrics_of(train(small_config(tiny_model_dir, tmp_path / "run", steps=4, **options)).run)
    updated = [line for line in lines[1:] if line["slow/datums"]]
    for line in updated:
        assert math.isclose(line["slow/ratio_mean"], line["slow/bare/ratio_mean"], rel_tol=1e-3)
    assert any(abs(line["slow/ratio_mean"] - 1.0) > 0.01 for line in updated)


def test_episodes_have_their_later_turns_after_the_seed_prompt_too(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = small_config(
        tiny_model_dir, tmp_path / "run", steps=4, task={"name": "toy:TalkTask"}, sampling={"max_tokens": 4}, **BARE
    )
    lines = metrics_of(train(config).run)
    assert any(line["slow/datums"] and line["slow/datums"] > 0 for line in lines[1:])
    assert any((line.get("episodes/turns") or 0) > 1 for line in lines[1:])


def test_a_search_by_rollouts_samples_nothing_and_tries_children_out(tiny_model_dir: Path, tmp_path: Path) -> None:
    run = train(small_config(tiny_model_dir, tmp_path / "run", **ROLLOUTS)).run
    lines = metrics_of(run)[1:]
    assert sum(line["rollouts/sampled_gepa"] for line in lines) == 0
    assert all(line["rollouts/sampled_rl"] == 12 for line in lines)
    assert sum(line["fast/metric_calls"] for line in lines) == sum(line["rollouts/reused_gepa"] for line in lines) > 0
    candidates = [json.loads(line) for line in (run / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    tried = [line for line in candidates if line["reason"].startswith("on trial")]
    judged = [line for line in candidates if line["hash"] in {t["hash"] for t in tried} and line["scores"]]
    assert tried and judged and {line["cycle"] for line in tried} == {2, 3}


class Dealt(TrainingSession):
    """Keeps each step's population and the (problem, prompt) of every rollout."""

    seen: ClassVar[list[tuple[list[str], list[list[Rollout]]]]] = []

    def roll_out(self, minibatch: Sequence[Problem], population: Sequence[Prompt]) -> list[list[Rollout]]:
        groups = super().roll_out(minibatch, population)
        self.seen.append(([prompt.hash for prompt in population], groups))
        return groups


@pytest.mark.parametrize("more", [{}, {"task": {"name": "toy:TalkTask"}}], ids=["one turn", "episodes"])
def test_each_problem_sees_its_share_of_the_prompts_and_all_are_used_equally(
    more: dict[str, Any], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastslow.loop.TrainingSession", Dealt)
    monkeypatch.setattr(Dealt, "seen", [])
    lines = metrics_of(train(small_config(tiny_model_dir, tmp_path / "run", **{**DEALT, **more})).run)
    assert len(Dealt.seen) == 6
    hands = set()
    for population, groups in Dealt.seen:
        # 4 problems x 4 rollouts over 4 prompts; 2 prompts a problem, 2 rollouts under each.
        used = Counter(rollout.prompt_hash for group in groups for rollout in group)
        assert used == dict.fromkeys(population, 4) and len(used) == 4
        for group in groups:
            mine = Counter(rollout.prompt_hash for rollout in group)
            assert list(mine.values()) == [2, 2] and len({rollout.problem_id for rollout in group}) == 1
            hands.add(frozenset(mine))
    assert len(hands) > 2, "who meets whom changes"
    assert sum(line["rollouts/reused_rl"] for line in lines[1:]) > 0, "rollouts of the search serve what is dealt"


def test_all_prompts_a_problem_is_the_default_bit_for_bit(tiny_model_dir: Path, tmp_path: Path) -> None:
    runs = {
        name: train(small_config(tiny_model_dir, tmp_path / name, loop={"prompts_per_problem": each})).run
        for name, each in {"left out": None, "all": 2}.items()
    }
    assert record_of(runs["left out"]) == record_of(runs["all"])


@pytest.mark.parametrize("method", ["rl", "distill"])
def test_methods_that_roll_out_under_one_prompt_stay_as_they_are(
    method: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    options = {"method": method, "distill": {"cycles": 1}, "steps": 4}
    runs = {
        name: train(small_config(tiny_model_dir, tmp_path / name, loop={"prompts_per_problem": each}, **options)).run
        for name, each in {"left out": None, "one": 1}.items()
    }
    assert record_of(runs["left out"]) == record_of(runs["one"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "prompt"}, "fast.scores: 'rollouts' lets RL's rollouts score prompts, and method 'prompt'"),
        ({"loop": {"reuse_max_age": 0, "population_size": 2}}, "loop.reuse_max_age: 0 keeps no rollout"),
        ({"fast": {"scores": "rollouts", "max_backoff": 2}}, "fast.max_backoff: 2 pauses searches"),
        ({"fast": {"scores": "rollouts", "trials": 2}}, "fast.trials: 2 leaves no place"),
        ({"fast": {"scores": "rollouts", "ties": "problems"}}, "fast.ties: problems is not for fast.scores: rollouts"),
        ({"fast": {"scores": "rollouts", "held_out": 0.25}}, "fast.held_out: 0.25 is not for fast.scores: rollouts"),
    ],
)
def test_rollouts_that_cannot_score_prompts_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(Path("model"), Path("run"), **{**ROLLOUTS, **options})
