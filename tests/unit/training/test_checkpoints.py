"""What becomes of a run's state when an error ends it, with an engine that can be told to fail."""

from pathlib import Path
from typing import Any

import pytest

from fastslow.config import parse_config
from fastslow.errors import ServerError
from fastslow.rollouts.store import RolloutStore
from fastslow.runs.directory import RunDirectory
from fastslow.runs.files import checkpoint_steps
from fastslow.slow.tinker.server import RefusedError
from fastslow.training.checkpoints import Checkpoints, Mark


class Engine:
    """Saves a file, or does not."""

    policy_version, intact = 3, True

    def save(self, directory: Path, *, resumable: bool) -> None:
        (directory / "weights").write_text("w")


def checkpoints(directory: Path, **engine: Any) -> Checkpoints:
    run = RunDirectory(directory)
    run.create(parse_config({"model": {"name": "m"}, "task": {"name": "t"}}))
    policy: Any = Engine()
    vars(policy).update(engine)
    return Checkpoints(run, policy)


def mark(step: int, version: int = 3) -> Mark:
    return Mark({"step": step}, RolloutStore(1), {"metrics.jsonl": 0}, version)


def test_a_refusal_of_the_server_is_saved_and_its_loss_is_not_tried(tmp_path: Path) -> None:
    there = checkpoints(tmp_path / "there")
    there.mark = mark(4)
    words = there.rescue(RefusedError("no"), 4)
    assert checkpoint_steps(tmp_path / "there") == [4]
    assert words.startswith(f"The run stopped after step 4 and was saved in {tmp_path / 'there'}/checkpoints/step_4.")
    gone = checkpoints(tmp_path / "gone")
    gone.mark = mark(4)
    words = gone.rescue(ServerError("gone"), 4)
    assert checkpoint_steps(tmp_path / "gone") == []
    assert f"fastslow train --resume {tmp_path / 'gone'} (there is no checkpoint yet, so it begins again;" in words


@pytest.mark.parametrize(("engine", "version"), [({"intact": False}, 3), ({}, 2)])
def test_weights_of_another_moment_are_not_saved(tmp_path: Path, engine: dict[str, Any], version: int) -> None:
    saves = checkpoints(tmp_path / "run", **engine)
    saves.mark = mark(4, version)
    words = saves.rescue(RuntimeError("out of memory"), 4)
    assert "was not saved there: the weights had moved on since" in words
    assert checkpoint_steps(tmp_path / "run") == []


def test_what_is_saved_already_is_not_written_again(tmp_path: Path) -> None:
    saves = checkpoints(tmp_path / "run")
    assert not saves.due
    saves.mark = mark(4)
    assert saves.due
    saves.save()
    assert not saves.due
    (tmp_path / "run" / "checkpoints" / "step_4" / "weights").write_text("untouched")
    assert "was saved in" in saves.rescue(RuntimeError("x"), 4)
    assert (tmp_path / "run" / "checkpoints" / "step_4" / "weights").read_text() == "untouched"
    saves.mark = mark(4)  # the same step, further on
    saves.rescue(RuntimeError("x"), 4)
    assert (tmp_path / "run" / "checkpoints" / "step_4" / "weights").read_text() == "w"
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step_4"]


def test_only_the_newest_are_kept_where_a_number_is_set(tmp_path: Path) -> None:
    saves = checkpoints(tmp_path / "run")
    for kept, step, left in ((None, 1, [1]), (None, 2, [1, 2]), (None, 3, [1, 2, 3]), (2, 4, [3, 4]), (1, 5, [5])):
        saves.kept, saves.mark = kept, mark(step)
        saves.save()
        assert checkpoint_steps(tmp_path / "run") == left
    place = tmp_path / "run" / "checkpoints"
    assert [path.name for path in place.iterdir()] == ["step_5"]
    for name in (".tmp-step_9", ".old-step_4", "step_4 copy"):
        (place / name).mkdir()
    saves.run.rewind({}, 5)
    assert sorted(path.name for path in place.iterdir()) == ["step_4 copy", "step_5"]


def test_an_error_before_the_first_step_leaves_nothing_to_save(tmp_path: Path) -> None:
    words = checkpoints(tmp_path / "run").rescue(RuntimeError("x"), 0)
    assert "its first step had not begun" in words
    assert "so it begins again" in words
