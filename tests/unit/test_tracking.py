from importlib.util import find_spec
from pathlib import Path

import pytest

from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.runs.reader import read_metrics
from fastslow.training.tracking import check_tracker, make_tracker, scalars

from runs import small_config


def test_tensorboard_gets_every_number_of_every_step(tiny_model_dir: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small_config(tiny_model_dir, tmp_path / "run", tracker="tensorboard", steps=2)
    train(config, observer=make_tracker(config))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    written = {(name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)}
    expected = {
        (name, line["step"]): value
        for line in read_metrics(tmp_path / "run")
        for name, value in line.items()
        if isinstance(value, int | float) and name != "step"
    }
    assert {step for _, step in expected} == {0, 1, 2}
    assert len({name for name, _ in expected}) > 30
    assert written == pytest.approx(expected)


def test_what_was_not_measured_is_left_out() -> None:
    assert scalars({"step": 3, "a": 1.5, "b": None, "c": "text", "d": 2}) == {"a": 1.5, "d": 2}


@pytest.mark.skipif(find_spec("trackio") is not None, reason="trackio is installed")
def test_a_missing_tracker_is_named_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'fastslow\[trackio\]'"):
        check_tracker("trackio")
