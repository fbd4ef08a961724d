"""Whatever error ends a run: it is saved as it was, the message says where,
and the resumed run is the uninterrupted one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.cli.main import main
from fastslow.errors import TaskError, told
from fastslow.loop import train
from fastslow.runs.directory import config_text
from fastslow.runs.files import checkpoint_steps

from runs import record_of, small_config

PLACES = {
    # Where it breaks, at which call, and the last step that is done by then.
    "search": ("fastslow.fast.gepa.optimiser.GepaOptimiser.evolve", 2, 2),
    "rollouts": ("fastslow.training.session.TrainingSession.roll_out", 3, 2),
    "update": ("fastslow.slow.local.learner.LocalLearner._backward", 4, 3),
    "evaluation": ("fastslow.measuring.validation.evaluate_prompts", 2, 3),
    "log": ("fastslow.runs.directory.RunDirectory.append_metrics", 5, 4),
}


def broken(call: int, error: BaseException, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises at its `call`-th call, and otherwise does what `then` does."""
    calls = 0

    def function(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return then(*arguments, **keywords)

    return function


def break_at(patch: pytest.MonkeyPatch, name: str, call: int, error: BaseException) -> None:
    module, *path = name.rsplit(".", 2 if name.rsplit(".", 2)[1][0].isupper() else 1)
    target: Any = __import__(module, fromlist=["_"])
    for part in path[:-1]:
        target = getattr(target, part)
    patch.setattr(target, path[-1], broken(call, error, getattr(target, path[-1])))


@pytest.fixture(scope="module")
def whole(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("whole") / "run"
    train(small_config(tiny_model_dir, output, checkpoint_every=50))
    return record_of(output)


@pytest.mark.parametrize("error", [TaskError("the reward is 7"), RuntimeError("out of memory")], ids=["ours", "any"])
@pytest.mark.parametrize("place", PLACES)
def test_an_error_anywhere_in_the_loop_leaves_a_run_that_goes_on_as_if_nothing_had_been(
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Any],
    place: str,
    error: Exception,
) -> None:
    name, call, step = PLACES[place]
    run = tmp_path / "run"
    config = small_config(tiny_model_dir, run, checkpoint_every=50)
    with monkeypatch.context() as patch:
        break_at(patch, name, call, error)
        with pytest.raises(type(error)) as caught:
            train(config)
    assert caught.value is error
    assert checkpoint_steps(run) == [step]
    assert f"was saved in {run / 'checkpoints' / f'step_{step}'}" in told(error)
    assert f"fastslow train --resume {run}" in told(error)
    train(config, resume=run)
    assert record_of(run) == whole


def test_a_search_that_was_done_is_not_done_again(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    config = small_config(tiny_model_dir, run, checkpoint_every=50)
    for call in (3, 1):  # the second time the error comes as soon as the run goes on
        with monkeypatch.context() as patch:
            break_at(patch, PLACES["rollouts"][0], call, RuntimeError("out of memory"))
            break_at(patch, PLACES["search"][0], 3 if call == 3 else 1, AssertionError("one search too many"))
            with pytest.raises(RuntimeError, match="out of memory"):
                train(config, resume=run if call == 1 else None)
    train(config, resume=run)
    assert record_of(run) == whole


def test_weights_that_an_update_left_half_way_are_not_saved(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    config = small_config(tiny_model_dir, run, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", broken(4, RuntimeError("out of memory"), torch.optim.AdamW.step))
        with pytest.raises(RuntimeError, match=r"(?s)not saved there: the weights.*from the checkpoint after step 2"):
            train(config)
    assert checkpoint_steps(run) == [2]
    train(config, resume=run)
    train(small_config(tiny_model_dir, tmp_path / "whole", checkpoint_every=2))
    assert record_of(run) == record_of(tmp_path / "whole")


def test_where_saving_fails_too_the_first_error_is_the_one_that_is_told(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    config = small_config(tiny_model_dir, run, checkpoint_every=50)
    with monkeypatch.context() as patch:
        break_at(patch, PLACES["rollouts"][0], 2, TaskError("the reward is 7"))
        break_at(patch, "fastslow.slow.local.engine.LocalEngine.save", 1, OSError("the disk is full"))
        with pytest.raises(TaskError) as caught:
            train(config)
    message = told(caught.value)
    assert message.startswith("the reward is 7\n")
    assert "was not saved there: " in message and "could not be written: the disk is full" in message
    assert "there is no checkpoint yet, so it begins again" in message
    assert checkpoint_steps(run) == []


def config_file(model: Path, directory: Path) -> Path:
    """A config.yaml in the directory; the run that it makes."""
    run = directory / "run"
    text = config_text(small_config(model, run, checkpoint_every=50)).partition("versions:")[0]
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    return run


def test_the_command_line_tells_the_error_and_the_way_back(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config_file(tiny_model_dir, tmp_path)
    break_at(monkeypatch, PLACES["rollouts"][0], 2, TaskError("the reward is 7"))
    assert main(["train", str(tmp_path / "config.yaml"), "--quiet"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "fastslow: the reward is 7" in lines
    assert lines[-1].endswith(f"go on with: fastslow train --resume {run}")
    assert f"{run}/checkpoints/step_1" in lines[-1]


def test_code_that_ends_the_program_leaves_a_command_that_can_be_copied(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config_file(tiny_model_dir, tmp_path)
    break_at(monkeypatch, PLACES["rollouts"][0], 2, SystemExit(0))
    assert main(["train", str(tmp_path / "config.yaml"), "--quiet"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "fastslow: code that the config names ended the program: sys.exit(0)" in lines
    assert lines[-1].endswith(f"go on with: fastslow train --resume {run}")


def test_saving_that_fails_is_not_tried_twice(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tiny_model_dir, tmp_path / "run", checkpoint_every=2)
    break_at(monkeypatch, "fastslow.slow.local.engine.LocalEngine.save", 1, OSError("the disk is full"))
    with pytest.raises(OSError, match="not saved there: saving is what failed"):
        train(config)
