"""The list of sections: what each is made of, what is there, what is missing, and what cannot be run here."""

import json
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.config import load_config
from fastslow.errors import ConfigError
from fastslow.experiments.arms import arm_parts
from fastslow.experiments.parts import Experiment, fingerprint_of
from fastslow.experiments.studies import STUDIES, Options
from fastslow.lab import worlds
from fastslow.lab.demo import base_config
from fastslow.lab.reproduce import sized_config
from fastslow.reproduce.commands import time_left
from fastslow.reproduce.sections import (
    AT_HIGHER,
    HIGHER,
    MODEL_ID,
    RATES,
    TASKS,
    Plan,
    Section,
    chosen,
    missing_needs,
    sections,
)
from fastslow.runs.files import read_lines

ROOT = Path(__file__).parents[3]
PLAN = Plan(Path("runs"), Path("experiments"))
QUICK = Plan(Path("runs/quick"), Path("runs/quick/results"), quick=True)


def named(name: str) -> Section:
    return next(section for section in sections() if section.name == name)


@pytest.mark.parametrize("name", ["tune", *worlds.experiments(1)])
def test_the_published_runs_of_the_lab_are_those_that_would_be_run(name: str) -> None:
    """Same settings, by their fingerprints: so what is published is not run again, and says what the code does."""
    results = ROOT / "experiments" / "lab"
    methods = worlds.chosen_methods(worlds.read(results, "tune"))
    parts = worlds.tuning() if name == "tune" else worlds.experiments(5)[name](methods)
    experiment, known = (
        Experiment(name, base_config(), tuple(parts)),
        {each["part"]: each for each in worlds.read(results, name)},
    )
    assert known.keys() <= {part.name for part in parts}
    mine = {part.name: fingerprint_of(experiment, part, Path("runs")) for part in parts if part.name in known}
    assert {part: line.get("fingerprint", "") for part, line in known.items()} == mine


@pytest.mark.parametrize("plan", [PLAN, QUICK], ids=["published", "quick"])
def test_the_listed_runs_are_those_of_the_experiments(plan: Plan) -> None:
    listed = {section.name: section.runs(plan) for section in sections()}
    assert len(listed["lab/compare"]) == (18 if plan.quick else 90) and len(listed["lab/tune"]) == (
        8 if plan.quick else 16
    )
    config = load_config(
        ROOT / "experiments" / "real_model" / "tags.yaml", ["task.name=toy:LettersTask", "task.options={}"]
    )
    tuned = set()
    for rate, seeds in RATES.items():
        seeds = 1 if plan.quick else seeds
        options = Options(seeds, ("fst", "rl"), second={"task.name": "toy:LettersTask"}, values=(rate,))
        tuned |= {part.name for part in STUDIES["tune"].parts(config, options)}
    assert sorted(tuned) == sorted(listed["real_model/tune"]) and len(tuned) == (8 if plan.quick else 16)
    for task, arms in TASKS.items():
        parts = [
            part for arm, count in arms.items() for part in arm_parts(config, [arm], range(plan.seeds_of(count)), {})
        ]
        assert [part.name for part in parts] == listed[f"real_model/{task}"]
    for task, arms in AT_HIGHER.items():
        # At most what is there at the rate that is taken, to be compared with it seed by seed.
        assert set(listed[f"real_model/{task}_{HIGHER}"]) <= set(listed[f"real_model/{task}"]) and arms.keys() == {
            "fst",
            "rl",
        }


def test_there_is_a_config_for_each_task_and_each_is_known_to_the_list() -> None:
    configs = {path.stem for path in (ROOT / "experiments" / "real_model").glob("*.yaml")}
    assert configs == {"tags", *TASKS}


def test_quick_runs_of_the_lab_are_smaller_in_every_way() -> None:
    full, quick = worlds.experiments(1), worlds.experiments(1, worlds.QUICK)
    assert {name: len(make({"fst": {}, "rl": {}, "prompt": {}})) for name, make in quick.items()} == {
        name: len(make({"fst": {}, "rl": {}, "prompt": {}})) for name, make in full.items()
    }
    tree = sized_config(worlds.QUICK)
    assert tree["loop"]["problems_per_step"] < base_config()["loop"]["problems_per_step"]
    (first, *_) = quick["compare"]({"fst": {}, "rl": {}, "prompt": {}})
    assert first.settings["task.options"] == {"world": "amber", "validation": 16, "test": 16}
    assert all(m.settings.get("task.options", {"test": 16})["test"] == 16 for m in first.measures)  # type: ignore[index]


def test_a_section_brings_what_it_depends_on() -> None:
    assert [each.name for each in chosen(["real_model/json"], PLAN)] == ["real_model/tune", "real_model/json"]
    assert [each.name for each in chosen(["lab/beyond", "lab/tune"], PLAN)] == ["lab/tune", "lab/beyond"]
    assert {each.name.partition("/")[0] for each in chosen(["lab"], PLAN)} == {"lab"}
    assert [each.name for each in chosen([], PLAN)] == [each.name for each in sections()]


def test_what_has_no_quick_form_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "format_rules" not in [each.name for each in chosen([], QUICK)]
    with pytest.raises(ConfigError, match="'format_rules' writes its results into experiments alone"):
        chosen(["format_rules"], QUICK)
    with pytest.raises(ConfigError, match="'lab/speed' is unknown: take some of lab, real_model, lab/tune"):
        chosen(["lab/speed"], PLAN)
    assert main(["reproduce", "nothing"]) == 2 and "'nothing' is unknown" in capsys.readouterr().err
    assert main(["reproduce", "lab", "--quick", "--results", "experiments"]) == 2
    assert "which --quick never writes to" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_an_error_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model_dir: Path
) -> None:
    monkeypatch.chdir(ROOT)
    where = ["--quick", "--output", str(tmp_path), "--model", str(tmp_path / "gone")]
    assert main(["reproduce", "real_model/json", *where]) == 2
    said = capsys.readouterr().err
    assert f"real_model/tune: there is no model in '{tmp_path / 'gone'}'. It is {MODEL_ID}: `hf download" in said
    assert missing_needs(named("real_model/json"), Plan(tmp_path, tmp_path, model=str(tiny_model_dir))) == ""
    monkeypatch.chdir(tmp_path)
    assert "run it in a checkout" in missing_needs(named("real_model/json"), PLAN)


def test_the_list_counts_what_is_there_and_estimates_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plan, section = Plan(tmp_path, tmp_path / "results", seeds=3), named("lab/continual")
    assert time_left(section, plan, {}) == (6 * section.run_s / 2, True)
    file = section.file(plan)
    file.parent.mkdir(parents=True)
    totals = {"fst": {"seconds": 90.0, "evaluate_s": 10.0}, "rl": {"seconds": 40.0, "evaluate_s": 10.0}}
    lines = [{"part": f"stream-{method}-0", "totals": totals[method]} for method in totals]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    # Two runs of 100 and two of 50 seconds are missing, two side by side.
    assert time_left(section, plan, {line["part"]: line for line in read_lines(file)}) == (150.0, False)
    where = ["--output", str(tmp_path), "--results", str(tmp_path / "results"), "--seeds", "3"]
    assert main(["reproduce", "lab/continual", "--list", *where]) == 0
    row = next(each for each in capsys.readouterr().out.splitlines() if each.startswith("lab/continual"))
    assert row.split() == ["lab/continual", "2", "4", "2m30s"]
