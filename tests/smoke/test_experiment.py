"""`fastslow experiment`: every experiment from the command line, on a tiny model; what it refuses, and what it says."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastslow
from fastslow.cli.main import main
from fastslow.errors import ConfigError
from fastslow.experiments.studies import STUDIES

from runs import small_config


@pytest.fixture()
def config(tiny_model_dir: Path, tmp_path: Path) -> Path:
    tree = small_config(tiny_model_dir, tmp_path / "unused").model_dump(mode="json")
    tree |= {"steps": 2, "evaluation": {"every": 1, "problems": 4, "k": 2, "kl_problems": 4}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def lines_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_compare_runs_every_method_once_and_says_what_came_out(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare"
    arguments = ["experiment", "compare", str(config), "--output", str(out), "--seeds", "2", "--workers", "2"]
    arguments += ["--method-set", "rl:slow.learning_rate=3e-4"]
    assert main(arguments) == 0
    lines = {line["part"]: line for line in lines_of(out)}
    assert set(lines) == {f"{method}-{seed}" for method in ("fst", "rl", "prompt") for seed in (0, 1)}
    assert lines["rl-1"]["settings"] == {"slow.learning_rate": 3e-4, "method": "rl", "seed": 1}
    text = (out / "README.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| FST | 2 |")]
    curves = [[p["val/mean@2"] for p in lines[f"fst-{seed}"]["curve"] if p["step"] > 0] for seed in (0, 1)]
    final = [sum(curve[-3:]) / len(curve[-3:]) for curve in curves]
    assert f"| {sum(final) / 2:.3f} |" in rows[0]
    tested = sorted(lines[f"fst-{seed}"]["measures"]["trained weights, best prompt"]["mean"] for seed in (0, 1))
    assert rows[1] == f"| FST | 2 | {sum(tested) / 2:.3f} |"
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    # The same again runs nothing; other settings are not passed off as the same.
    before = (out / "results.jsonl").read_bytes()
    assert main(arguments) == 0
    assert (out / "results.jsonl").read_bytes() == before
    with pytest.raises(ConfigError, match=r"part 'fst-0' has a line in .* other settings"):
        fastslow.experiment("compare", config, output=out, seeds=2, overrides=["loop.group_size=8"])
    # The drift is read from the same runs.
    lines_before = fastslow.experiment(
        "drift", config, output=out, seeds=2, method_overrides=["rl:slow.learning_rate=3e-4"]
    )
    assert len(lines_before) == 4
    assert (out / "results.jsonl").read_bytes() == before
    assert "| the end |" in (out / "drift.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "parts", "said"),
    [
        ("asymptote", ["--methods", "rl"], {"rl-0"}, "none: 1 seeds are too few"),
        ("decompose", [], {"fst-0"}, "| method | seeds | trained weights, best prompt | trained weights, seed prompt "
            "|"),
        (
            "plasticity",
            ["--methods", "rl", "--second", "task.name=toy:OtherLettersTask", "--second", "steps=1"],
            {"rl-0", "second-base-0", "second-rl-0"},
            "| RL alone on the first task | 1 |",
        ),
        ("distill", ["--set", "distill.cycles=1", "--methods", "distill"], {"distill-0"}, "| FST-distill | 1 |"),
        ("ablate", ["--key", "loop.population_size", "--values", "1", "2"],
         {"loop.population_size-1-fst-0", "loop.population_size-2-fst-0"}, "| loop.population_size | 2 | 1 |"),
    ],
)  # fmt: skip
def test_each_experiment_runs_its_parts(
    name: str, options: list[str], parts: set[str], said: str, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    assert main(["experiment", name, str(config), "--output", str(out), "--seeds", "1", *options]) == 0
    assert {line["part"] for line in lines_of(out)} == parts
    assert said in (out / "README.md").read_text(encoding="utf-8")
    assert main(["experiment", name, str(config), "--output", str(out), "--seeds", "1", *options, "--report"]) == 0


@pytest.mark.slow
def test_a_stream_tells_what_is_left_of_earlier_tasks(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "continual"
    first, second = ({"name": f"toy:{name}", "options": {"train": 12}} for name in ("LettersTask", "OtherLettersTask"))
    stream = json.dumps({"name": "stream", "options": {"tasks": [first, second, first], "steps": 2}})
    arguments = ["--seeds", "1", "--set", f"task={stream}", "--set", "steps=6"]
    assert main(["experiment", "continual", str(config), "--output", str(out), *arguments]) == 0
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "| method | seeds | after | letters | other-letters |" in text
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| FST | 1 |")]
    # A row for each phase, then one for each phase that has an earlier task with a prompt of its own.
    assert [row[2] for row in rows] == ["letters", "other-letters", "letters", "other-letters", "letters"]
    assert [["-" in row[3:]] for row in rows[:3]] == [[False]] * 3
    assert [[cell == "-" for cell in row[3:]] for row in rows[3:]] == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["comparison"], "'comparison' is unknown: take one of compare, asymptote"),
        (["compare", "--seeds", "0"], "seeds: 0 is not a positive number"),
        (["compare", "--methods", "sft"], "--methods: 'sft' is unknown: take some of fst, rl, prompt, distill"),
        (["compare", "--method-set", "slow.learning_rate=1"], "write it as method:key.path=value"),
        (["compare", "--set", "loop.group=3"], "loop.group: unknown key"),
        (["compare", "--method-set", "rl:slow.rate=3"], "part 'rl-0': slow.rate: unknown key"),
        (["drift", "--set", "evaluation.kl_problems=0"], "evaluation.kl_problems: 0 measures no KL"),
        (["plasticity"], "--second: name the second task"),
        (["plasticity", "--second", "task.name=none_such"], "part 'second-base-0': task.name: 'none_such'"),
        (["continual"], "task.name: 'toy:LettersTask' is one task"),
        (["ablate", "--key", "loop.population_size"], "--key loop.population_size --values 1 2 4 8"),
        (["compare", "--set", "task.options.test=0"], "part 'fst-0': task 'toy:LettersTask' has no test problems"),
        (["compare", "--report"], "there are no results in"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_model_loads(
    arguments: list[str], message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "fastslow.slow.local.engine.LocalEngine.__init__", lambda *a, **k: pytest.fail("a model was loaded")
    )
    name, *options = arguments
    assert main(["experiment", name, str(config), "--output", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_experiments_that_share_their_runs_have_a_page_each(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    out.mkdir()
    run = {"part": "fst-0", "labels": {"method": "fst", "seed": 0, "task": ""}, "settings": {}, "measures": {}}
    curve = [{"step": s, "rollouts": s, "seconds": float(s), "val/mean@2": 0.1, "kl/base": 0.1} for s in (0, 2)]
    (out / "results.jsonl").write_text(json.dumps({**run, "curve": curve, "totals": {}, "interrupted": False}) + "\n")
    tell = ["--output", str(out), "--seeds", "1", "--methods", "fst", "--report"]
    (out / "README.md").write_text("# compare\n\nWritten by `fastslow experiment compare` from `results.jsonl`.\n")
    before = (out / "README.md").read_bytes()
    for _ in range(2):
        assert main(["experiment", "drift", str(config), *tell]) == 0
    assert (out / "README.md").read_bytes() == before
    assert "Written by `fastslow experiment drift`" in (out / "drift.md").read_text(encoding="utf-8")
    (out / "README.md").unlink()
    assert main(["experiment", "drift", str(config), *tell]) == 0
    assert "Written by `fastslow experiment drift`" in (out / "README.md").read_text(encoding="utf-8")


def test_every_experiment_is_named_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in STUDIES)


@pytest.mark.slow
def test_of_several_kinds_of_problems_the_whole_population_is_measured(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "kinds"
    (line,) = fastslow.experiment(
        "compare", config, output=out, seeds=1, methods=["fst"], overrides=["task.name=toy:KindsTask"]
    )
    found, best = line["measures"]["population"], line["measures"]["trained weights, best prompt"]
    row = f"| FST | {best['mean']:.3f} | {found['by_kind']:.3f} | {found['mean']:.3f} |"
    assert row in (out / "README.md").read_text(encoding="utf-8")
