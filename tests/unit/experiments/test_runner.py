"""Experiments: parts run once, survive a cut, start from one another, and failures are told."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError, FastslowError
from fastslow.experiments import runner
from fastslow.experiments.designs import compare, continual, plasticity, vary
from fastslow.experiments.parts import Experiment, Measure, Part, part_config
from fastslow.experiments.runner import Status, run_experiment
from fastslow.runs.files import read_lines
from fastslow.runs.reader import read_metrics

from runs import small_config


def experiment(model: Path, *parts: Part) -> Experiment:
    base = small_config(model, Path("unused")).model_dump(mode="json")
    base["steps"] = 2
    return Experiment("small", base, parts)


def test_parts_run_once_and_start_from_one_another(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runner.START_METHOD == "fork", "other tests save the time"
    monkeypatch.setattr(runner, "START_METHOD", "spawn")  # as everywhere but in tests
    seen: list[Status] = []
    measure = Measure("again", {"evaluation.k": 1}, prompt="seed")
    parts = (
        Part("one", {"method": "rl", "seed": 1}, {"seed": 1}, measures=(measure,)),
        Part("two", {"method": "rl", "steps": 1}, start="one"),
    )
    lines = run_experiment(experiment(tiny_model_dir, *parts), tmp_path, workers=2, watcher=seen.append)
    assert [line["part"] for line in lines] == ["one", "two"]
    first, second = lines
    assert first["labels"] == {"seed": 1}
    assert [point["step"] for point in first["curve"]] == [0, 2]
    assert first["totals"]["steps"] == 2
    assert first["totals"]["sampled"] == read_metrics(tmp_path / "one")[-1]["rollouts/sampled_total"] == 24
    assert 0.0 <= first["measures"]["again"]["mean"] <= 1.0
    assert str(tmp_path / "one" / "checkpoints" / "step_2") in (tmp_path / "two" / "config.yaml").read_text()
    # The second starts where the first ended: its base is the first's last weights.
    assert second["curve"][0]["kl/base"] == 0.0
    assert not list(tmp_path.glob("*/checkpoints/*/resume"))
    assert seen[0].waiting == ("two",)
    assert seen[-1].done == ("one", "two")
    before = (tmp_path / "results.jsonl").read_bytes()
    assert run_experiment(experiment(tiny_model_dir, *parts), tmp_path) == lines
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_a_part_that_was_cut_is_resumed(tiny_model_dir: Path, tmp_path: Path) -> None:
    from fastslow.loop import train

    whole = experiment(tiny_model_dir, Part("a", {"steps": 4, "evaluation.every": 1}))
    run_experiment(whole, tmp_path / "whole")
    config = part_config(whole, whole.parts[0], tmp_path / "cut")
    train(config.model_copy(update={"steps": 2}))
    (line,) = run_experiment(whole, tmp_path / "cut")
    (expected,) = read_lines(tmp_path / "whole" / "results.jsonl")
    assert [drop_times(point) for point in line["curve"]] == [drop_times(point) for point in expected["curve"]]


def test_what_differs_in_its_prompt_alone_is_measured_together(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastslow.measuring import evaluate as module

    measured: list[Any] = []
    real = module.evaluate

    def counted(target: Path, **asked: Any) -> Any:
        measured.append(asked["prompt"])
        return real(target, **asked)

    monkeypatch.setattr(module, "evaluate", counted)
    told = {"task.seed_prompt": {"system": "Answer with one letter."}}
    own, seed = (Measure(name, told, prompt=name) for name in ("best", "seed"))
    elsewhere = Measure("more", {**told, "evaluation.k": 3}, prompt="seed")
    part = Part("rl", {"method": "rl", "steps": 1, "task.seed_prompt": told["task.seed_prompt"]})
    run = experiment(tiny_model_dir, part)
    tree = part_config(run, part, tmp_path).model_dump(mode="json")
    found: Any = runner.run_part(tree, (own, seed, elsewhere), None)["measures"]
    assert measured == [["best", "seed"], "seed"] and list(found) == ["best", "seed", "more"]
    alone: Any = runner.run_part({**tree, "output": str(tmp_path / "alone")}, (seed,), None)["measures"]
    assert found["seed"] == alone["seed"] == {**found["best"], "label": "seed"}
    found = runner.run_part({**tree, **{"output": str(tmp_path / "other"), "method": "prompt"}}, (own, seed), None)[
        "measures"
    ]
    assert found["best"]["prompt"] != found["seed"]["prompt"]


def drop_times(point: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != "seconds"}


def test_a_start_whose_weights_are_gone_is_made_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    import shutil

    one, two = Part("one", {"method": "rl"}), Part("two", {"method": "rl"}, start="one")
    run_experiment(experiment(tiny_model_dir, one), tmp_path)
    shutil.rmtree(tmp_path / "one")
    lines = run_experiment(experiment(tiny_model_dir, one, two), tmp_path)
    assert [line["part"] for line in lines] == ["one", "two"]
    assert (tmp_path / "one" / "checkpoints").is_dir()


def test_a_part_that_fails_is_told_after_the_others_and_what_starts_from_it_is_left_out(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    broken = {"task.options": {"broken_every": 1}, "method": "rl"}
    parts = (Part("bad", broken), Part("after", {"method": "rl"}, start="bad"), Part("good", {"method": "rl"}))
    with pytest.raises(FastslowError, match=r"2 of 3 parts of 'small' failed: bad, after.*sandbox timed out"):
        run_experiment(experiment(tiny_model_dir, *parts), tmp_path)
    assert [line["part"] for line in read_lines(tmp_path / "results.jsonl")] == ["good"]
    assert "sandbox timed out" in json.loads((tmp_path / "failures.jsonl").read_text().splitlines()[0])["error"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([Part("a", {}), Part("a", {})], "two parts have one name"),
        ([Part("a", {}, start="b"), Part("b", {})], "'b', which is no earlier part"),
        ([Part("a", {"loop.group_sise": 4})], r"part 'a': loop\.group_sise: unknown key"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(
    tiny_model_dir: Path, tmp_path: Path, parts: list[Part], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_experiment(experiment(tiny_model_dir, *parts), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_designs_name_every_part_differently_and_keep_what_is_not_varied() -> None:
    tasks = {"x": {"task.name": "x"}, "y": {"task.name": "y"}}
    methods: dict[str, Any] = {"fst": {"slow.learning_rate": 1e-4}, "rl": {}, "prompt": {}}
    parts = compare(tasks, [0, 1], methods, {"x": [Measure("m")]})
    assert len({part.name for part in parts}) == 12
    assert parts[0].settings == {"task.name": "x", "slow.learning_rate": 1e-4, "method": "fst", "seed": 0}
    assert [len(part.measures) for part in parts[:6]] == [1, 1, 1, 0, 0, 0]
    varied = vary({"task.name": "x"}, [0, 1], "fst", "K", {"1": {"loop.population_size": 1}, "2": {}})
    assert len({part.name for part in varied}) == 4
    assert varied[0].labels == {"key": "K", "value": "1", "method": "fst", "seed": 0}
    after = plasticity({"task.name": "y"}, [0], {"fst": "x-fst-{seed}", "rl": "x-rl-{seed}"}, {})
    assert {part.name: part.start for part in after} == {
        "second-base-0": None, "second-fst-0": "x-fst-0", "second-rl-0": "x-rl-0",
    }  # fmt: skip
    assert {part.settings["method"] for part in after} == {"rl"}
    (stream,) = continual([{"name": "x"}, {"name": "y"}], 30, [0], {"fst": {}})
    assert stream.settings["steps"] == 60
    assert stream.settings["task.options"] == {"tasks": [{"name": "x"}, {"name": "y"}], "steps": 30}
