"""What holds of runs holds of runs with episodes of several turns."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.loop import train
from fastslow.measuring.evaluate import evaluate
from fastslow.runs.files import read_lines, sample_files
from fastslow.runs.reader import read_candidates
from fastslow.slow.local.engine import LocalEngine
from fastslow.types import Rollout

from runs import metrics_of, record_of, small_episodes

TALK = {"name": "toy:TalkTask"}


def config(model: Path, output: Path, **overrides: Any) -> Any:
    return small_episodes(model, output, **{"task": TALK, "steps": 4, **overrides})


@pytest.fixture(scope="module")
def whole(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of fst."""
    output = tmp_path_factory.mktemp("episodes") / "whole"
    train(config(tiny_model_dir, output))
    return output


def test_fst_trains_on_turns_and_writes_what_they_were(whole: Path) -> None:
    lines = metrics_of(whole)
    trained = [line for line in lines if line["step"]]
    assert all(1.0 < line["episodes/turns"] <= 3.0 for line in trained)
    # 12 rollouts a step, those of groups of equal rewards left out.
    rollouts = [12 * line["reward/informative_groups"] for line in trained]
    assert any(line["slow/datums"] > count for line, count in zip(trained, rollouts, strict=True)), "one datum a turn"
    assert any(line["episodes/cut_off_max_turns"] for line in trained)
    assert all(line["episodes/computed_tokens"] > 0 for line in trained)
    assert sum(line["episodes/kept_tokens"] for line in trained) > 0
    assert sum(line["rollouts/reused_rl"] for line in lines) > 0
    assert all(line["episodes/forks"] == 0 for line in trained)
    children = [line for line in read_candidates(whole) if line["parent"] is not None]
    assert any("Write the letter" in child["components"]["system"] for child in children)
    sample = next(line for line in _samples(whole) if len(line["turns"]) == 3)
    assert sample["turns"][1]["messages"][0]["content"].startswith("and ") and sample["end"] in ("done", "max_turns")


def test_the_learner_agrees_with_the_sampler_on_every_turn(whole: Path) -> None:
    first = next(line for line in metrics_of(whole) if line["slow/datums"])
    assert first["slow/ratio_max"] == pytest.approx(1.0, abs=2e-3)


def test_a_run_that_dies_between_two_turns_ends_like_the_uninterrupted_one(
    whole: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, output = record_of(whole), tmp_path / "killed"
    sample, calls = LocalEngine.sample, 0

    def dies(self: LocalEngine, *arguments: Any) -> Any:
        nonlocal calls
        calls += any(request.continued_tokens for request in arguments[0])
        if calls in deaths:
            raise KeyboardInterrupt
        return sample(self, *arguments)

    monkeypatch.setattr(LocalEngine, "sample", dies)
    for death in (2, 5, 9):
        calls, deaths = 0, {death}
        with pytest.raises(KeyboardInterrupt):
            train(config(tiny_model_dir, output), resume=output if output.exists() else None)
    deaths = set()
    train(config(tiny_model_dir, output), resume=output)
    assert record_of(output) == expected


@pytest.mark.parametrize("method", ["rl", "prompt", "distill"])
def test_every_method_takes_episodes(method: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    distill = {"distill": {"cycles": 1}} if method == "distill" else {}
    train(config(tiny_model_dir, tmp_path / method, method=method, steps=3, **distill))
    lines = metrics_of(tmp_path / method)
    assert lines[-1]["step"] == 3
    assert all("kl/base" in line for line in lines if "val/mean@2" in line)
    assert lines[-1]["rollouts/sampled_tokens"] > 0
    if method == "distill":
        assert lines[-1]["slow/datums"] > 12 and lines[-1]["slow/loss"] > 0.0


def test_a_stream_may_mix_tasks_of_one_turn_and_of_several(tiny_model_dir: Path, tmp_path: Path) -> None:
    task = {"name": "stream", "options": {"steps": 2, "tasks": [{"name": "toy:LettersTask"}, TALK]}}
    train(config(tiny_model_dir, tmp_path / "run", task=task))
    lines = metrics_of(tmp_path / "run")
    assert ["episodes/turns" in line for line in lines] == [False, False, False, True, True]
    assert "val/talk/mean@2" in lines[0] and "val/letters/mean@2" in lines[-1]


def test_environments_that_break_cost_their_rollouts_and_never_the_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    trouble = {"0": "raise", "3": "hang", "5": "exit"}
    task = {"name": "toy:TalkTask", "options": {"trouble": trouble}}
    episodes = {"max_turns": 3, "step_timeout_s": 0.5}
    train(
        config(
            tiny_model_dir,
            tmp_path / "run",
            method="rl",
            steps=3,
            task=task,
            episodes=episodes,
            max_failure_fraction=1.0,
        )
    )
    lines = [line for line in metrics_of(tmp_path / "run") if line["step"]]
    failed = sum(line["episodes/environment_failed"] for line in lines)
    hung = sum(line["episodes/environment_timed_out"] for line in lines)
    assert failed and hung
    assert sum(line["rollouts/failed"] for line in lines) == failed + hung


def test_a_run_with_episodes_is_evaluated_with_its_own_limits(whole: Path) -> None:
    result = evaluate(whole, prompt="best", k=2, problems=3, kl=True).rows[0]
    assert result.kl is not None and result.kl.tokens > 0
    assert max(len(rollout.turns) for rollout in result.result.rollouts) == 3


def _samples(run: Path) -> list[dict[str, Any]]:
    return [line for path in sample_files(run) for line in read_lines(path)]


def test_rollouts_of_the_store_hold_turns(whole: Path) -> None:
    store = max((whole / "checkpoints").glob("step_*/resume/store.jsonl"), key=lambda path: int(path.parts[-3][5:]))
    rollouts = [Rollout.from_json(r) for line in store.read_text().splitlines() for r in json.loads(line)["rollouts"]]
    assert max(len(rollout.turns) for rollout in rollouts) == 3
    assert all(rollout.trace is not None for rollout in rollouts)
