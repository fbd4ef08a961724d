import errno
import json
import math
from pathlib import Path

import pytest
import yaml

from fastslow.config import parse_config
from fastslow.errors import ConfigError, ResumeError, StorageError
from fastslow.fast.optimiser import Candidate
from fastslow.runs.directory import RunDirectory, resumed_config, write_atomically
from fastslow.runs.files import checkpoint_steps, read_config
from fastslow.runs.reader import Run, read_candidates, read_metrics, read_population
from fastslow.runs.samples import context_of
from fastslow.types import Completion, Problem, Prompt, Rollout, Turn

CONFIG = parse_config({"model": {"name": "m"}, "task": {"name": "t"}, "steps": 5})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create(CONFIG)
    return directory


def rollout(number: int) -> Rollout:
    return Rollout(f"p{number}", "h", (Turn((1,), Completion((2,), (-0.5,), "stop"), "<b>"),), 1.0, "", None, 0, "rl")


def test_config_yaml_holds_every_option_and_the_versions(run: RunDirectory) -> None:
    tree = yaml.safe_load((run.path / "config.yaml").read_text())
    assert tree["steps"] == 5
    assert tree["slow"]["clip_high"] == 3.0
    assert set(tree["versions"]) == {"python", "fastslow", "torch", "transformers", "peft", "gepa", "numpy"}
    assert read_config(run.path) == CONFIG


def test_a_used_directory_is_refused_with_the_way_out(run: RunDirectory) -> None:
    with pytest.raises(ConfigError, match="fastslow train --resume"):
        RunDirectory(run.path).create(CONFIG)


def test_two_writers_are_refused(run: RunDirectory) -> None:
    with pytest.raises(ResumeError, match="another process"):
        RunDirectory(run.path).open(CONFIG)
    run.close()
    second = RunDirectory(run.path)
    second.open(CONFIG)
    second.close()


def test_what_json_lacks_becomes_null_and_a_torn_line_is_skipped(run: RunDirectory) -> None:
    run.append_metrics({"step": 1, "loss": math.nan, "deep": [math.inf]})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(run.path) == [{"step": 1, "loss": None, "deep": [None]}]


def test_candidates_and_population_come_back(run: RunDirectory) -> None:
    seed, child = Prompt.of("seed"), Prompt.of("child \N{SNOWMAN}")
    made = Candidate(child, seed.hash, True, "better", {"p1": 1.0, "p2": 0.0}, ("Do it.",))
    run.append_candidates(1, [made], [7])
    run.write_population(1, 0, [child, seed, child], {child.hash: {"p1": 1.0, "p2": 0.0}})
    (line,) = read_candidates(run.path)
    assert (line["id"], line["parent"], line["mean"], line["feedback"]) == (7, seed.hash, 0.5, ["Do it."])
    assert read_population(run.path) == [child, seed, child]
    assert json.loads((run.path / "population.json").read_text())["population"][1]["mean"] is None


def test_samples_are_spread_over_the_step(run: RunDirectory) -> None:
    run.write_rollout_samples(3, [rollout(number) for number in range(10)], 3)
    lines = (run.path / "rollouts" / "step_3.jsonl").read_text().splitlines()
    assert [json.loads(line)["problem"] for line in lines] == ["p0", "p3", "p6"]


def test_a_sample_says_what_was_asked_and_older_samples_are_still_read(run: RunDirectory) -> None:
    problem = Problem("p0", ({"role": "user", "content": "How many?"},))
    told = context_of(problem, "4", Prompt.of("Count."))
    lines = run.write_rollout_samples(1, [rollout(0)], 1, lambda each: told)
    run.write_rollout_samples(2, [rollout(0)], 1)
    new, old = Run(run.path).samples[1][0], Run(run.path).samples[2][0]
    assert new == lines[0] and list(new)[:5] == ["problem", "prompt", "question", "reference", "components"]
    assert (new["question"], new["reference"]) == ([{"role": "user", "content": "How many?"}], "4")
    assert new["components"] == {"system": "Count."} and not {"question", "reference", "components"} & set(old)


def test_a_checkpoint_appears_whole_or_not_at_all(run: RunDirectory) -> None:
    with pytest.raises(RuntimeError), run.checkpoint(1) as directory:
        (directory / "weights").write_text("half")
        raise RuntimeError("killed")
    assert checkpoint_steps(run.path) == []
    with run.checkpoint(1) as directory:
        (directory / "weights").write_text("whole")
    assert (run.checkpoint_dir(1) / "weights").read_text() == "whole"


def test_only_the_newest_checkpoint_can_be_resumed_from(run: RunDirectory) -> None:
    for step in (2, 10):
        with run.checkpoint(step) as directory:
            (directory / "resume").mkdir()
    run.prune_resume_state()
    assert checkpoint_steps(run.path) == [2, 10]
    assert run.latest_checkpoint() == run.checkpoint_dir(10)
    assert not (run.checkpoint_dir(2) / "resume").exists()


def test_rewinding_takes_back_what_came_after(run: RunDirectory) -> None:
    run.append_metrics({"step": 1})
    run.write_rollout_samples(1, [rollout(0)], 1)
    positions = run.positions()
    run.append_metrics({"step": 2})
    run.write_rollout_samples(2, [rollout(0)], 1)
    with run.checkpoint(2):
        pass
    run.rewind(positions, 1)
    assert read_metrics(run.path) == [{"step": 1}]
    assert [path.name for path in (run.path / "rollouts").iterdir()] == ["step_1.jsonl"]
    assert checkpoint_steps(run.path) == []
    run.rewind(None, 0)
    assert read_metrics(run.path) == []


def test_a_resumed_run_may_only_change_how_long_it_goes_on(run: RunDirectory) -> None:
    assert resumed_config(run.path, ["steps=9"]).steps == 9
    with pytest.raises(
        ConfigError,
        match=r"seed=4.*only steps, max_rollouts, tracker, threads and the sections tinker and tracking may change",
    ):
        resumed_config(run.path, ["seed=4"])
    run.close()
    with pytest.raises(ResumeError, match="with another seed, slow\\.learning_rate"):
        run.open(
            parse_config({"model": {"name": "m"}, "task": {"name": "t"}, "seed": 4, "slow": {"learning_rate": 0.1}})
        )
    run.open(resumed_config(run.path, ["steps=9"]))
    assert read_config(run.path).steps == 9


def test_a_directory_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="holds no run"):
        RunDirectory(tmp_path).open(CONFIG)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with path.open(encoding="utf-8") as reader:
        write_atomically(path, "new")
        assert reader.read() == "old"  # what was open is still there, whole
    assert path.read_text(encoding="utf-8") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_write_that_breaks_off_leaves_the_old_file_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"file' could not be written: the disk is full \(.* MB are free.*Make room"):
        write_atomically(path, "n" * 100_000)
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_text_that_no_file_can_hold_is_written_all_the_same(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "a\ud800b")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a\N{REPLACEMENT CHARACTER}b"
