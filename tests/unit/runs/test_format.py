"""What stands in a run directory, byte for byte, and what opening, resuming and rewinding do to it."""

import json
import locale
import math
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastslow.config import parse_config
from fastslow.config.run import Config
from fastslow.errors import ConfigError, ResumeError
from fastslow.fast.optimiser import Candidate, Reflection, Usage
from fastslow.runs.config_text import config_text
from fastslow.runs.directory import RunDirectory, file_size, finite, resumed_config, write_atomically
from fastslow.runs.files import checkpoint_steps, read_config
from fastslow.runs.reader import Run, read_candidates, read_metrics, read_population, read_reflections
from fastslow.types import Completion, Prompt, Rollout, Turn

SNOWMAN = "\N{SNOWMAN}"
TREE: dict[str, Any] = {"model": {"name": "m"}, "task": {"name": "t"}, "steps": 5}


def config(**changes: Any) -> Config:
    return parse_config({**TREE, **changes})


@pytest.fixture(autouse=True)
def plain_locale() -> Iterator[None]:
    """A machine whose locale knows ASCII alone: the files are UTF-8 there too."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "deep" / "run")
    directory.create(config())
    return directory


def rollout(number: int, reward: float | None = 0.5) -> Rollout:
    failure = "crashed" if reward is None else None
    completion = Completion((2,), (-0.5,), "length")
    return Rollout(f"p{number}", "h", (Turn((1,), completion, f"<b>{SNOWMAN}"),), reward, "Do it.", failure, 4, "gepa")


def checkpoint(run: RunDirectory, step: int, resume: bool = True) -> None:
    with run.checkpoint(step) as directory:
        (directory / "weights").write_text(f"{step}")
        if resume:
            (directory / "resume").mkdir()


def in_checkpoints(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_config_is_readable_yaml_in_the_order_of_its_options_with_what_it_ran_with() -> None:
    text = config_text(config(output=f"runs/{SNOWMAN}"))
    tree = yaml.safe_load(text)
    versions = tree.pop("versions")
    assert list(tree) == list(Config.model_fields)
    assert f"output: runs/{SNOWMAN}\n" in text
    assert versions["python"] == platform.python_version()
    assert {name: versions[name] for name in ("torch", "numpy")} == {
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.runs.config_text.PACKAGES", ("numpy", "no-such-package"))
    versions = yaml.safe_load(config_text(config()))["versions"]
    assert versions == {"python": platform.python_version(), "numpy": version("numpy"), "no-such-package": None}


def test_a_candidate_is_a_line_with_everything_that_is_known_of_it(run: RunDirectory) -> None:
    seed, child = Prompt.of("seed"), Prompt.of(SNOWMAN)
    scored = Candidate(child, seed.hash, True, "better", {"p1": 1.0, "p2": 0.5}, ("Do it.", "Now."))
    run.append_candidates(3, [scored, Candidate(seed, None, False, "worse")], [7, 8])
    first, second = (run.path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert SNOWMAN in first
    assert json.loads(first) == {
        "id": 7,
        "hash": child.hash,
        "parent": seed.hash,
        "cycle": 3,
        "components": {"system": SNOWMAN},
        "accepted": True,
        "reason": "better",
        "mean": 0.75,
        "scores": {"p1": 1.0, "p2": 0.5},
        "feedback": ["Do it.", "Now."],
    }
    assert json.loads(second) | {"hash": "", "components": {}} == {
        "id": 8, "hash": "", "parent": None, "cycle": 3, "components": {}, "accepted": False, "reason": "worse",
        "mean": None, "scores": {}, "feedback": [],
    }  # fmt: skip


@pytest.mark.parametrize("ids", [[], [1, 2]])
def test_every_candidate_has_a_number(run: RunDirectory, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        run.append_candidates(1, [Candidate(Prompt.of("a"), None, True, "seed")], ids)


def test_the_population_is_a_file_that_people_can_read(run: RunDirectory) -> None:
    prompt = Prompt.of(SNOWMAN)
    run.write_population(2, 40, [prompt], {prompt.hash: {"p1": 1.0, "p2": 0.5}})
    assert (run.path / "population.json").read_text(encoding="utf-8") == (
        '{\n  "cycle": 2,\n  "step": 40,\n  "population": [\n    {\n      "hash": "' + prompt.hash + '",\n'
        '      "components": {\n        "system": "' + SNOWMAN + '"\n      },\n      "mean": 0.75\n    }\n  ]\n}\n'
    )
    assert read_population(run.path) == [prompt]


@pytest.mark.parametrize(("by_kind", "found"), [(None, {}), ({}, {}), ({SNOWMAN: "h1"}, {SNOWMAN: "h1"})])
def test_the_best_prompt_of_each_kind_stands_beside_the_population(
    run: RunDirectory, by_kind: dict[str, str] | None, found: dict[str, str]
) -> None:
    assert Run(run.path).by_kind == {}
    assert read_population(run.path) == []
    run.write_population(1, 0, [Prompt.of("a")], {}, by_kind)
    assert ("by_kind" in json.loads((run.path / "population.json").read_text(encoding="utf-8"))) == bool(found)
    assert Run(run.path).by_kind == found


def test_the_library_keeps_the_population_of_each_task(run: RunDirectory) -> None:
    run.write_library({"star": [{"system": SNOWMAN}]})
    assert (run.path / "library.json").read_text(encoding="utf-8") == (
        '{\n  "star": [\n    {\n      "hash": "' + Prompt.of(SNOWMAN).hash + '",\n'
        '      "components": {\n        "system": "' + SNOWMAN + '"\n      }\n    }\n  ]\n}\n'
    )


def test_a_sample_says_where_it_comes_from_and_what_it_got(run: RunDirectory) -> None:
    run.write_rollout_samples(3, [rollout(1), rollout(2, None)], 2)
    first, second = (run.path / "rollouts" / "step_3.jsonl").read_text(encoding="utf-8").splitlines()
    assert SNOWMAN in first
    assert json.loads(first) == {
        "problem": "p1", "prompt": "h", "text": f"<b>{SNOWMAN}", "reward": 0.5, "feedback": "Do it.", "failure": None,
        "finish_reason": "length", "source": "gepa", "policy_version": 4,
    }  # fmt: skip
    assert (json.loads(second)["reward"], json.loads(second)["failure"]) == (None, "crashed")


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(10, 1, "0"), (10, 2, "05"), (5, 3, "012"), (3, 3, "012"), (2, 5, "01"), (9, 4, "0246")],
)
def test_samples_are_every_nth_rollout_up_to_the_limit(
    run: RunDirectory, count: int, limit: int, expected: str
) -> None:
    for _ in range(2):  # a step that runs again writes its samples again
        run.write_rollout_samples(1, [rollout(number) for number in range(count)], limit)
    lines = (run.path / "rollouts" / "step_1.jsonl").read_text(encoding="utf-8").splitlines()
    assert "".join(json.loads(line)["problem"][1:] for line in lines) == expected


@pytest.mark.parametrize(("count", "limit"), [(0, 3), (3, 0)])
def test_without_rollouts_or_without_a_limit_there_are_no_samples(run: RunDirectory, count: int, limit: int) -> None:
    run.write_rollout_samples(1, [rollout(number) for number in range(count)], limit)
    assert run.samples() == []
    assert not (run.path / "rollouts").exists()


def test_lines_are_appended_in_order_and_only_whole_ones_are_read(run: RunDirectory) -> None:
    assert read_metrics(run.path) == read_candidates(run.path) == []
    assert run.positions() == {"metrics.jsonl": 0, "prompts.jsonl": 0, "reflections.jsonl": 0}
    run.append_metrics({"step": 1, "note": SNOWMAN})
    run.append_metrics({"step": 2})
    text = f'{{"step": 1, "note": "{SNOWMAN}"}}\n{{"step": 2}}\n'
    assert (run.path / "metrics.jsonl").read_bytes() == text.encode()
    assert run.positions() == {"metrics.jsonl": len(text.encode()), "prompts.jsonl": 0, "reflections.jsonl": 0}
    assert read_metrics(run.path) == [{"step": 1, "note": SNOWMAN}, {"step": 2}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (0.5, 0.5),
        (3, 3),
        ("nan", "nan"),
        (True, True),
        ((1.0, math.inf), [1.0, None]),
        ({"a": {"b": [math.nan, {"c": math.inf}]}}, {"a": {"b": [None, {"c": None}]}}),
    ],
)
def test_numbers_that_json_does_not_have_become_null(value: Any, expected: Any) -> None:
    assert finite(value) == expected


def test_the_size_of_a_file_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert file_size(tmp_path / "none") == 0
    write_atomically(tmp_path / "some", SNOWMAN)
    assert file_size(tmp_path / "some") == 3


# -- opening and resuming ----------------------------------------------------------------------------------------------


def test_a_directory_that_holds_a_run_is_refused_in_whole_sentences(run: RunDirectory) -> None:
    run.close()
    with pytest.raises(ConfigError) as caught:
        run.check_free()
    assert str(caught.value) == (
        f"output: {str(run.path)!r} already holds a run: choose another directory, delete it, or go on with it: "
        f"fastslow train --resume {run.path}"
    )
    RunDirectory(run.path.parent).check_free()
    RunDirectory(run.path.parent).create(config())  # a directory that is there, without a run


def test_the_writer_keeps_the_others_out_until_it_closes(run: RunDirectory) -> None:
    with pytest.raises(ResumeError) as caught:
        RunDirectory(run.path).open(config())
    assert str(caught.value) == f"another process is writing to {str(run.path)!r}: stop it first"
    assert (run.path / ".lock").is_file()
    run.close()
    run.close()  # once more does no harm
    RunDirectory(run.path).close()  # nor does closing what was never opened
    run.open(config())
    with pytest.raises(ResumeError, match="another process"):
        RunDirectory(run.path).open(config())
    run.close()


def test_a_resumed_run_may_lie_elsewhere_and_its_config_is_written_anew_only_where_it_changed(
    run: RunDirectory,
) -> None:
    run.close()
    path = run.path / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# a note\n", encoding="utf-8")
    run.open(config())
    assert path.read_text(encoding="utf-8").endswith("# a note\n")
    run.close()
    run.open(config(output=SNOWMAN, steps=6, threads=2))
    assert "# a note" not in path.read_text(encoding="utf-8")
    assert read_config(run.path) == config(output=SNOWMAN, steps=6, threads=2)
    run.close()


def test_what_would_make_another_run_is_named_key_by_key(run: RunDirectory) -> None:
    run.close()
    different = ("task.options.a", "seed", "slow.learning_rate", "slow.warmup_steps")
    changes = {"slow": {"learning_rate": 0.1, "warmup_steps": 7}, "task": {"name": "t", "options": {"a": 1}}}
    other = config(seed=4, steps=9, output="o", **changes)
    with pytest.raises(ResumeError) as caught:
        run.open(other)
    assert str(caught.value) == (
        f"{str(run.path)!r} was started with another {', '.join(different)}: a resumed run keeps its options; only "
        "steps, max_rollouts, tracker, threads, task.timeout_s, task.isolate, task.memory_gib and the sections tinker "
        "and tracking may change"
    )
    assert read_config(run.path) == config()


def test_a_section_that_comes_or_goes_makes_another_run(run: RunDirectory, tmp_path: Path) -> None:
    remote = config(engine="tinker", tinker={"base_url": "http://a:1", "backend": "jax"})
    run.close()
    with pytest.raises(ResumeError, match="with another engine, tinker: a resumed"):
        run.open(remote)
    other = RunDirectory(tmp_path / "remote")
    other.create(remote)
    other.close()
    with pytest.raises(ResumeError, match="with another engine, tinker: a resumed"):
        other.open(config())


def test_a_directory_without_a_run_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ResumeError) as caught:
        read_config(tmp_path)
    assert str(caught.value) == f"{str(tmp_path)!r} holds no run: there is no config.yaml in it"


def test_a_config_of_before_versions_were_recorded_is_read(run: RunDirectory) -> None:
    tree = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    del tree["versions"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert read_config(run.path) == config()


def test_a_run_that_a_later_check_would_refuse_is_still_read(run: RunDirectory) -> None:
    one = {"method": "rl", "loop": {"group_size": 1}}  # the advantage of a group of one is always 0
    with pytest.raises(ConfigError, match="group_size"):
        config(**one)
    tree = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    tree["method"], tree["loop"]["group_size"] = "rl", 1
    (run.path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert read_config(run.path).loop.group_size == 1


@pytest.mark.parametrize("override", ["steps=9", "max_rollouts=9", "threads=1", "tinker.base_url=http://b:1"])
def test_how_long_a_run_goes_on_and_where_its_server_is_may_change(tmp_path: Path, override: str) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(config(engine="tinker", tinker={"base_url": "http://a:1", "backend": "jax"}))
    run.close()
    key, _, value = override.rpartition("=")
    tree = resumed_config(run.path, [override]).model_dump()
    for part in key.split("."):
        tree = tree[part]
    assert str(tree) == value
    assert resumed_config(run.path) == read_config(run.path)


@pytest.mark.parametrize("override", ["seed=4", "slow.tinker.base_url=a", "seed=steps=9", "tinkers=1"])
def test_anything_else_may_not(run: RunDirectory, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resumed_config(run.path, ["steps=9", override])
    named = "slow.tinker.base_url" if "url" in override else override
    assert str(caught.value) == (
        f"--set {named!r}: a resumed run keeps its options; only steps, max_rollouts, "
        "tracker, threads, task.timeout_s, task.isolate, task.memory_gib and the sections tinker and "
        "tracking may change"
    )


def test_a_value_may_hold_an_equals_sign(run: RunDirectory) -> None:
    with pytest.raises(ConfigError, match=r"^steps"):  # the key is one that may change, the value is wrong
        resumed_config(run.path, ["steps=seed=4"])


# -- checkpoints and rewinding -----------------------------------------------------------------------------------------


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_old_one(run: RunDirectory) -> None:
    checkpoint(run, 1)
    with run.checkpoint(1) as directory:
        assert list(directory.iterdir()) == []
        (directory / "other").write_text("new")
    assert sorted(path.name for path in run.checkpoint_dir(1).iterdir()) == ["SHA256SUMS", "other"]
    assert in_checkpoints(run) == ["step_1"]


def test_what_a_killed_process_left_of_a_checkpoint_is_cleared_away(run: RunDirectory) -> None:
    with pytest.raises(KeyboardInterrupt), run.checkpoint(1) as directory:
        (directory / "half").write_text("")
        raise KeyboardInterrupt
    (run.path / "checkpoints" / ".old-step_1").mkdir()
    checkpoint(run, 1)
    assert in_checkpoints(run) == ["step_1"]
    assert sorted(path.name for path in run.checkpoint_dir(1).iterdir()) == ["SHA256SUMS", "resume", "weights"]


def test_a_run_is_resumed_from_the_newest_checkpoint_that_holds_its_state(run: RunDirectory) -> None:
    assert run.latest_checkpoint() is None
    assert checkpoint_steps(run.path) == []
    for step, resume in [(10, True), (9, True), (100, False)]:
        checkpoint(run, step, resume)
    assert checkpoint_steps(run.path) == [9, 10, 100]
    assert run.latest_checkpoint() == run.path / "checkpoints" / "step_10"
    run.prune()
    assert run.latest_checkpoint() is None
    assert all((run.checkpoint_dir(step) / "weights").is_file() for step in (9, 10, 100))
    run.prune()  # nothing left to take away


def test_the_newest_checkpoints_stay_and_only_they_where_a_number_is_given(run: RunDirectory) -> None:
    for step in (8, 9, 10, 100):
        checkpoint(run, step)
        run.prune(resumable=1, kept=2)
        assert len(in_checkpoints(run)) <= 2
    assert in_checkpoints(run) == ["step_10", "step_100"]
    assert [(run.checkpoint_dir(step) / "resume").is_dir() for step in (10, 100)] == [False, True]


def test_samples_come_in_the_order_of_the_steps(run: RunDirectory) -> None:
    for step in (10, 9, 100):
        run.write_rollout_samples(step, [rollout(0)], 1)
    assert [path.name for path in run.samples()] == ["step_9.jsonl", "step_10.jsonl", "step_100.jsonl"]
    assert [path.name for path in run.samples(10)] == ["step_9.jsonl", "step_10.jsonl"]
    assert run.samples(0) == []


def fill(run: RunDirectory) -> dict[str, int]:
    """Two steps with a checkpoint each; returns the positions after the first."""
    positions: dict[str, int] = {}
    for step in (1, 2):
        run.append_metrics({"step": step})
        run.append_candidates(step, [Candidate(Prompt.of("a"), None, True, "seed")], [step])
        run.append_reflections(step, [Reflection("a", "system", "asked", "said", Usage(calls=1))])
        run.write_rollout_samples(step, [rollout(0)], 1)
        checkpoint(run, step)
        positions = positions or run.positions()
    run.write_population(1, 1, [Prompt.of("a")], {})
    return positions


def test_rewinding_to_a_checkpoint_keeps_what_stood_there_and_takes_the_rest(run: RunDirectory) -> None:
    positions = fill(run)
    for _ in range(2):  # rewinding what is rewound changes nothing
        run.rewind(positions, 1)
        assert run.positions() == positions
        assert [line["step"] for line in read_metrics(run.path)] == [1]
        assert [line["id"] for line in read_candidates(run.path)] == [1]
        assert [line["cycle"] for line in read_reflections(run.path)] == [1]
        assert [path.name for path in run.samples()] == ["step_1.jsonl"]
        assert checkpoint_steps(run.path) == [1]
        assert read_population(run.path) == [Prompt.of("a")]


def test_a_file_that_a_checkpoint_did_not_know_of_is_emptied(run: RunDirectory) -> None:
    positions = fill(run)
    run.rewind({"metrics.jsonl": positions["metrics.jsonl"]}, 1)
    assert run.positions() == {
        "metrics.jsonl": positions["metrics.jsonl"], "prompts.jsonl": 0, "reflections.jsonl": 0,
    }  # fmt: skip


def test_rewinding_to_the_start_takes_everything(run: RunDirectory) -> None:
    fill(run)
    for _ in range(2):
        run.rewind(None, 5)  # whatever the step
        assert run.positions() == {"metrics.jsonl": 0, "prompts.jsonl": 0, "reflections.jsonl": 0}
        assert run.samples() == []
        assert checkpoint_steps(run.path) == []
        assert read_population(run.path) == []
    assert read_config(run.path) == config()
