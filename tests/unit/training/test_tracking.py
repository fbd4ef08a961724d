import inspect
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastslow.cli.progress import make_observer
from fastslow.errors import ConfigError
from fastslow.loop import train
from fastslow.runs.metrics import gaps
from fastslow.runs.reader import Run, read_metrics
from fastslow.training.build import check
from fastslow.training.observer import SilentObserver
from fastslow.training.trackers import scalars
from fastslow.training.tracking import check_tracker, make_tracker

from runs import small_config


def test_tensorboard_gets_every_number_of_every_step(tiny_model_dir: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small_config(tiny_model_dir, tmp_path / "run", tracker="tensorboard", steps=2)
    train(config)  # from Python too: nobody hands the tracker over
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    written = {(name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)}
    expected = {
        (name, line["step"]): value
        for line in read_metrics(tmp_path / "run")
        for name, value in line.items()
        if isinstance(value, int | float)
        and name != "step"
        # No search, or no evaluation, in this step: a gap, not a zero.
        and not (value == 0 and name in gaps(line))
    }
    assert {step for _, step in expected} == {0, 1, 2}
    assert ("time/evolve_s", 1) in written and ("time/evolve_s", 2) not in written  # T is 2: one search
    texts = {name: [event.step for event in events.Tensors(name)] for name in events.Tags()["tensors"]}
    assert texts["samples/text_summary"] == [1, 2]
    assert texts["prompts/population/text_summary"] == texts["prompts/candidates/text_summary"] == [1]
    (shown,) = events.Tensors("prompts/population/text_summary")
    assert "rank `1`" in shown.tensor_proto.string_val[0].decode()
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert len({name for name, _ in expected}) > 30
    assert written == pytest.approx(expected)


def test_what_was_not_measured_is_left_out() -> None:
    assert scalars({"step": 3, "a": 1.5, "b": None, "c": "text", "d": 2}) == {"a": 1.5, "d": 2}


def test_a_missing_tracker_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.training.tracking.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fastslow\[trackio\]'"):
        check_tracker("trackio")


OWN = """
class Tracker:
    made = []

    def __init__(self, config):
        self.output, self.kinds, self.steps = config.output, [], []
        self.made.append(self)

    def on_event(self, kind, payload):
        self.kinds.append(kind)
        if kind == "step":
            self.steps.append(payload["step"])


class Broken:
    def on_event(self, kind, payload):
        raise OSError("the disk is full")


class Wanting:
    def __init__(self, project):
        self.project = project

    def on_event(self, kind, payload): ...


class Raising:
    def __init__(self):
        raise OSError("no server")


class Mute: ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`own_tracker.py` in the current directory."""
    (tmp_path / "own_tracker.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_tracker", raising=False)
    return tmp_path


def test_a_tracker_of_ones_own_gets_every_event_once_beside_the_observer(tiny_model_dir: Path, own: Path) -> None:
    class Listener(SilentObserver):
        kinds: ClassVar[list[str]] = []

        def on_event(self, kind: str, payload: dict[str, Any]) -> None:
            self.kinds.append(kind)

    config = small_config(tiny_model_dir, own / "run", tracker="own_tracker:Tracker", steps=2)
    train(config, observer=Listener())
    (tracker,) = sys.modules["own_tracker"].Tracker.made
    assert tracker.output == str(own / "run")
    assert tracker.steps == [0, 1, 2]
    assert (tracker.kinds[0], tracker.kinds[-1]) == ("start", "end")
    assert tracker.kinds == Listener.kinds and tracker.kinds.count("samples") == 2
    kept = [line for lines in Run(own / "run").samples.values() for line in lines]
    prompts = {line["hash"]: line["components"] for line in Run(own / "run").candidates}
    assert kept and all(line["components"] == prompts[line["prompt"]] for line in kept)
    assert {line["question"][0]["content"] for line in kept} <= {f"n{number}" for number in range(12)}


def test_the_command_line_does_not_make_the_tracker_a_second_time() -> None:
    assert "config" not in inspect.signature(make_observer).parameters


def test_a_tracker_that_breaks_at_the_start_leaves_the_run_free(tiny_model_dir: Path, own: Path) -> None:
    config = small_config(tiny_model_dir, own / "run", tracker="own_tracker:Broken", steps=2)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="the disk is full"):
        train(config)
    assert signal.getsignal(signal.SIGINT) is before
    train(small_config(tiny_model_dir, own / "run", steps=2), resume=own / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", r"tracker: 'tensorbord' is unknown\. Did you mean 'tensorboard'\? Known: none, tensorboard"),
        ("own_tracker:Nothing", r"tracker: 'own_tracker:Nothing' cannot be imported: .*package\.module:name"),
        ("nowhere:Tracker", r"tracker: 'nowhere:Tracker' cannot be imported"),
        ("math:pi", r"tracker: 'math:pi' is 3\.14.*name a class with `on_event`"),
        (
            "own_tracker:Wanting",
            r"tracker: the constructor of 'own_tracker:Wanting' wants 'project': give it a default",
        ),
        ("own_tracker:Raising", r"tracker: 'own_tracker:Raising' cannot be made: OSError: no server"),
        ("own_tracker:Mute", r"tracker: 'own_tracker:Mute' gave .*, which has no method `on_event"),
    ],
)
def test_a_tracker_that_cannot_be_meant_is_refused_before_any_model_loads(own: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config = small_config(Path("no-model"), own / "run", tracker=name)
        check(config)
        make_tracker(config)
    assert not (own / "run").exists()
