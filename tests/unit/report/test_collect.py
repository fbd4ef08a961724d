"""Run directories and experiments as plain data."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.errors import ConfigError
from fastslow.experiments.about import write_about
from fastslow.measuring.intervals import share_interval
from fastslow.report.collect import collect, short_names
from fastslow.report.samples import SAMPLE

from report_runs import CANDIDATES, CHILD, SEED, candidate, make_run, metrics_line, result_line, sample, write_lines

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


def test_a_run_is_told_with_its_interval(tmp_path: Path) -> None:
    data = collect([make_run(tmp_path / "run")])
    (run,), (panel,) = data["runs"], data["panels"]
    found = panel["series"][0]["headline"]
    assert (run["method"], run["model"], run["task_options"]) == ("fst", "org/model", "world=amber")
    assert (found["before"], found["after"]) == (0.05, pytest.approx(0.65))  # the mean of the last three evaluations
    assert found["verdict"] == "It worked: the rise is more than the choice of validation problems explains."
    assert panel["finding"]["title"] == "Accuracy rose from 0.05 to 0.65 in 100 rollouts; KL 0.05".replace(
        "Accuracy", "After 5 of 100 steps: accuracy"
    )
    problems = run["config"]["evaluation"]["problems"]
    assert found["interval"] == pytest.approx(share_interval(0.65, problems))
    assert found["kl"] == 0.05


def test_of_several_kinds_of_problems_the_verdict_says_what_the_population_is_worth(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2)
    lines = [{**metrics_line(step), "val/by_kind/mean@4": 0.4 * step} for step in range(3)]
    write_lines(run / "metrics.jsonl", lines)
    data = collect([run])
    verdict = data["panels"][0]["series"][0]["headline"]["verdict"]
    assert verdict.endswith(" With each kind under its own prompt it is 0.800.")
    assert data["runs"][0]["evaluations"][1]["tasks"] == {"each kind under its own prompt": 0.4}


def test_seconds_are_training_seconds_without_evaluations(tmp_path: Path) -> None:
    run = collect([make_run(tmp_path / "run", steps=3)])["runs"][0]
    assert [point["seconds"] for point in run["evaluations"]] == [0.0, 6.0, 12.0, 18.0]
    assert run["training"]["seconds"] == [6.0, 12.0, 18.0]
    assert run["totals"]["seconds"] == 18.0
    assert (run["totals"]["evaluate_s"], run["totals"]["sampled"], run["totals"]["sampled_gepa"]) == (12.0, 60, 24)
    assert (run["totals"]["usd"], run["totals"]["reflection_calls"]) == (0.06, 6)


def test_a_price_that_is_not_known_is_none_and_not_zero(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", [metrics_line(0), metrics_line(1) | {"fast/usd": None}])
    assert collect([run])["runs"][0]["totals"]["usd"] is None


def test_a_run_without_evaluations_has_a_page_and_says_so(tmp_path: Path) -> None:
    data = collect([make_run(tmp_path / "run", evaluate=False)])
    assert data["runs"][0]["evaluations"] == []
    assert data["panels"][0]["series"][0]["headline"]["verdict"].startswith("No evaluation after the start")


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", samples={})
    for name in ("metrics.jsonl", "prompts.jsonl", "population.json"):
        (run / name).unlink()
    data = collect([run])["runs"][0]
    assert (data["prompts"], data["samples"], data["totals"]["steps"]) == ([], [], 0)


def test_a_torn_last_line_is_skipped_and_a_broken_one_is_named(tmp_path: Path) -> None:
    torn = make_run(tmp_path / "torn", steps=2, tail='{"step": 3, "val/me')
    assert collect([torn])["runs"][0]["totals"]["steps"] == 2
    broken = make_run(tmp_path / "broken", tail='{"step": 3, "val/me\n')
    with pytest.raises(ConfigError, match=r"metrics\.jsonl' is broken"):
        collect([broken])
    foreign = make_run(tmp_path / "foreign", candidates=[{"id": 1}])
    with pytest.raises(ConfigError, match=r"prompts\.jsonl', line 1: 'hash' is missing"):
        collect([foreign])


def test_prompts_stand_once_with_their_parents_scores_and_events(tmp_path: Path) -> None:
    run = collect([make_run(tmp_path / "run")])["runs"][0]
    nodes = {node["hash"]: node for node in run["prompts"]}
    assert [(node["hash"], node["parent"]) for node in run["prompts"]] == [
        ("aaaa", None), ("bbbb", "aaaa"), ("cccc", "bbbb"), ("dddd", "bbbb"),
    ]  # fmt: skip
    assert nodes["bbbb"]["components"] == CHILD
    for name, text in CHILD.items():
        (edit,) = nodes["bbbb"]["edits"][name]
        start, end, first, last, words = edit
        assert SEED[name].split("\n")[:start] == text.split("\n")[:first]
        assert SEED[name].split("\n")[end:] == text.split("\n")[last:]
        assert len(words) in (0, end - start)
    assert nodes["aaaa"]["edits"] == {}
    assert nodes["dddd"]["events"] == [[1, False, "not better", None, 2]]
    assert run["population"] == ["bbbb", "cccc"]
    assert run["grids"] == [
        {
            "cycle": 1,
            "problems": ["p1", "p2"],
            "rows": [["aaaa", [0.0, 0.0]], ["bbbb", [1.0, 0.0]], ["cccc", [0.0, 1.0]]],
        }
    ]


def test_every_number_of_the_metrics_is_a_column_with_gaps_where_nothing_happened(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    alone = {
        "time/evolve_s": 0.0,
        "time/evaluate_s": 0.0,
        "fast/reflection_calls": 0,
        "of/another_version": 7,
        "text": "x",
    }
    write_lines(run / "metrics.jsonl", [metrics_line(0), metrics_line(1), metrics_line(2, evaluate=False) | alone])
    data = collect([run])
    training = data["runs"][0]["training"]
    assert (training["step"], training["usd"]) == ([1, 2], [0.02, 0.04])
    assert (training["fast/reflection_calls"], training["of/another_version"]) == ([2, None], [None, 7])
    assert training["val/mean@4"] == [0.2, None] and "text" not in training
    assert data["metrics"]["reward/mean"][0] == "reward, 0 to 1" and data["metrics"]["of/another_version"] == ["", ""]


def test_the_best_prompt_stands_beside_the_seed_prompt(tmp_path: Path) -> None:
    best = collect([make_run(tmp_path / "run")])["runs"][0]["best"]
    assert (best["hash"], best["seed"], best["components"]) == ("bbbb", SEED, CHILD)
    assert best["edits"] == {"system": [[1, 1, 1, 2, []]]}


def test_a_prompt_shows_what_the_reflection_lm_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    line = {"cycle": 1, "child": "bbbb", "diagnosis": f"They were not sorted. {SECRET}", "request": "Improve it."}
    write_lines(run / "reflections.jsonl", [line, {**line, "child": None}, line, line])
    nodes = {node["hash"]: node["reflections"] for node in collect([run])["runs"][0]["prompts"]}
    assert nodes["bbbb"] == [["They were not sorted. (redacted)", "Improve it."]] * 2 and nodes["cccc"] == []


def test_the_population_is_told_over_the_cycles(tmp_path: Path) -> None:
    again = candidate("bbbb", None, CHILD, cycle=2, reason="member of the population; none could be scored")
    run = collect([make_run(tmp_path / "run", candidates=[*CANDIDATES, again])])["runs"][0]
    assert run["populations"] == [[1, ["aaaa"]], [2, ["bbbb"]]]


def test_samples_have_their_question_reference_and_the_prompts_text(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "How many?"}]
    new = sample("four", question=asked, reference="4", prompt="eeee", components={"system": "Count."})
    run = collect([make_run(tmp_path / "run", samples={1: [new, sample("of an older version")]})])["runs"][0]
    rows = [dict(zip(SAMPLE, row, strict=True)) for row in run["samples"]]
    assert [(row["question"], row["reference"]) for row in rows] == [([["user", "How many?"]], "4"), ([], None)]
    assert run["texts"] == {"eeee": {"system": "Count."}}  # bbbb stands among the prompts


def test_a_stream_has_a_curve_for_each_task(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", [metrics_line(0) | {"val/lab-elm/mean@4": 0.25, "val/lab-elm/best@4": 0.5}])
    point = collect([run])["runs"][0]["evaluations"][0]
    assert (point["accuracy"], point["tasks"]) == (0.05, {"lab-elm": 0.25})


def test_keys_do_not_appear_anywhere(tmp_path: Path) -> None:
    leaks = [sample(f"my key is {SECRET}", feedback=f"https://me:hunter2@host/v1?api_key={SECRET}&x=1")]
    run = make_run(
        tmp_path / "run",
        samples={1: leaks},
        task={
            "name": "lab",
            "options": {"world": "amber", "auth_token": "tok", "url": "https://u:pass99@host/?sig=zzz9"},
        },
        fast={"proposer": {"kind": "litellm", "model": "openai/x", "api_key_env": "OPENAI_API_KEY"}},
    )
    write_lines(
        run / "metrics.jsonl", [metrics_line(0), metrics_line(1) | {"fast/error": f"Incorrect API key: {SECRET}"}]
    )
    text = json.dumps(collect([run]))
    assert [secret for secret in (SECRET, "hunter2", "pass99", '"tok"', "zzz9") if secret in text] == []
    assert "OPENAI_API_KEY" in text
    assert "(redacted)" in text


def test_what_is_neither_run_nor_experiment_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing' does not exist: a run is a directory with a config\.yaml"):
        collect([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty' is neither a run nor an experiment: .*results file \(\.jsonl\)"):
        collect([tmp_path / "empty"])
    make_run(tmp_path / "many" / "one")
    with pytest.raises(ConfigError, match=r"many' is no run, but holds 1: name them, e\.g\. .*many/one"):
        collect([tmp_path / "many"])
    (tmp_path / "text.jsonl").write_text("no JSON\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text\.jsonl' is broken"):
        collect([tmp_path / "text.jsonl"])


def test_names_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    assert short_names([Path("/a/x/run"), Path("/a/y/run")]) == ["x/run", "y/run"]
    assert short_names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]


# -- experiments -------------------------------------------------------------------------------------------------------

LINES = [
    *(result_line("amber", "rl", seed, [0.0, 0.2, 0.4, 0.4 + 0.1 * seed]) for seed in range(3)),
    *(result_line("amber", "fst", seed, [0.0, 0.8, 0.9, 0.9]) for seed in range(3)),
    result_line("birch", "fst", 0, [0.0, 0.5, 0.5, 0.5]),
]


def test_an_experiment_is_grouped_by_task_and_method(tmp_path: Path) -> None:
    write_lines(tmp_path / "compare.jsonl", LINES, '{"part": "torn')
    data = collect([tmp_path / "compare.jsonl"])
    amber, birch = data["panels"]
    assert [amber["title"], birch["title"]] == ["compare · amber", "compare · birch"]
    assert [(series["name"], series["count"]) for series in amber["series"]] == [("FST", 3), ("RL alone", 3)]
    rl = amber["series"][1]
    last = rl["evaluations"][-1]
    assert (last["accuracy"], last["accuracy_low"], last["accuracy_high"]) == (0.5, 0.4, 0.6)
    assert rl["headline"]["after"] == pytest.approx(1.1 / 3)  # the mean of the last three evaluations of seed 1
    assert rl["headline"]["interval"] == pytest.approx([1.0 / 3, 1.2 / 3])
    assert rl["headline"]["interval_note"] == "median of 3 seeds, with an interval that covers 75 %"
    assert "of 3 seeds from the lowest to the highest, 75 %. 95 % takes six seeds." in amber["note"]


def test_tables_of_an_experiment_have_medians_with_intervals(tmp_path: Path) -> None:
    write_lines(tmp_path / "compare.jsonl", LINES)
    amber, birch = collect([tmp_path])["panels"]
    assert amber["table"]["head"][3:5] == ["steps to 0.82", "rollouts to 0.82"]
    rows = {row[0]: row for row in amber["table"]["rows"]}
    assert rows["FST"][1:5] == ["3", "0.867 (all 3 alike)", "10 (all 3 alike)", "200 (all 3 alike)"]
    assert rows["RL alone"][3] == "never"
    assert amber["measures"]["rows"][1] == ["RL alone", "0.500 (0.400 to 0.600)"]
    assert birch["table"]["rows"][0][2] == "0.500"  # one seed has no interval over seeds
    assert birch["measures"]["rows"][0] == ["FST", "0.500 (0.100 to 0.900)"]  # but one over problems


def test_a_method_has_one_colour_and_runs_of_one_method_have_several(tmp_path: Path) -> None:
    write_lines(tmp_path / "compare.jsonl", LINES)
    amber, birch = collect([tmp_path / "compare.jsonl"])["panels"]
    colours = {name: place for name, place in collect([tmp_path])["methods"].values()}
    assert [each["colour"] for each in amber["series"]] == [colours["FST"], colours["RL alone"]]
    assert [each["colour"] for each in birch["series"]] == [colours["FST"]]
    runs = collect([make_run(tmp_path / name, method="rl") for name in "abc"])["panels"][0]["series"]
    assert runs[0]["colour"] == colours["RL alone"]
    assert len({each["colour"] for each in runs}) == 3 and not {each["colour"] for each in runs[1:]} & set(
        colours.values()
    )


def test_an_experiment_has_the_title_and_the_answer_to_its_own_question(tmp_path: Path) -> None:
    lines = [result_line("", "fst", seed, [0.0, 0.5, 0.5 + value / 10, 0.9]) for seed in range(3) for value in (1, 2)]
    for line, value in zip(lines, [1, 2] * 3, strict=True):
        line["part"] += f"-{value}"
        line["labels"] = {
            "key": "loop.population_size",
            "value": value,
            "method": "fst",
            "seed": line["labels"]["seed"],
        }
    write_lines(tmp_path / "results.jsonl", lines)
    write_about(tmp_path, "ablate", {"task": "star_graph", "model": "org/model"})
    data = collect([tmp_path])
    (panel,) = data["panels"]
    assert data["title"] == panel["title"] == "Ablation of loop.population_size"
    assert panel["about"] == "model org/model, task star_graph"
    assert panel["finding"]["title"] == (
        "loop.population_size = 2 reached 0.70, the most; loop.population_size = 1 reached 0.67, the least"
    )
    assert [each["name"] for each in panel["series"]] == ["loop.population_size = 1", "loop.population_size = 2"]


def test_studies_that_share_their_runs_are_all_answered(tmp_path: Path) -> None:
    write_lines(tmp_path / "results.jsonl", [{**line, "labels": {**line["labels"], "task": ""}} for line in LINES[:6]])
    write_about(tmp_path, "compare", {"task": "lab"})
    write_about(tmp_path, "drift", {"task": "lab"})
    (panel,) = collect([tmp_path])["panels"]
    assert panel["title"] == "Methods compared · Drift from the base · lab"
    assert panel["finding"]["title"] == "FST reached 0.87 with KL 0.30; RL alone 0.37 with KL 0.30"
    assert panel["finding"]["notes"] == ["When accuracy first was 0.50, FST was at KL 0.10; RL alone was at KL 0.30."]


def test_runs_beside_an_experiment_show_their_prompts_and_are_no_series(tmp_path: Path) -> None:
    write_lines(tmp_path / "results.jsonl", [result_line("amber", "fst", 0, [0.0, 0.9])])
    make_run(tmp_path / "amber-fst-0")
    data = collect([tmp_path])
    assert [run["name"] for run in data["runs"]] == ["amber-fst-0"]
    assert [panel["kind"] for panel in data["panels"]] == ["experiment"]


def test_a_part_without_accuracies_is_no_error(tmp_path: Path) -> None:
    line = result_line("amber", "fst", 0, [0.0, 0.9])
    line["curve"] = []
    write_lines(tmp_path / "results.jsonl", [line])
    (panel,) = collect([tmp_path])["panels"]
    assert panel["series"][0]["headline"]["after"] is None
    assert panel["table"]["rows"][0][2:4] == ["-", "never"]


def test_the_kl_of_whole_answers_is_told_beside_that_of_a_token(tmp_path: Path) -> None:
    """A mean over tokens is larger where answers are short. Runs of older versions have no sum over a completion."""
    made, older = make_run(tmp_path / "run", steps=2), make_run(tmp_path / "older", steps=2)
    lines = [metrics_line(step) for step in range(3)]
    write_lines(
        older / "metrics.jsonl", [{k: v for k, v in line.items() if k != "kl/base_completion"} for line in lines]
    )
    found = collect([made, older])
    assert [point.get("kl_completion") for point in found["runs"][0]["evaluations"]] == [0.0, 0.5, 1.0]
    assert [series["headline"]["kl_completion"] for series in found["panels"][0]["series"]] == [1.0, None]
    assert "kl_completion" not in found["runs"][1]["evaluations"][-1]

    parts = [result_line("t", "fst", seed, [0.0, 0.5]) for seed in range(2)]
    parts[1]["curve"][1]["kl/base_completion"] = 5.0
    write_lines(tmp_path / "results.jsonl", parts)
    (series,) = collect([tmp_path / "results.jsonl"])["panels"][0]["series"]
    last = series["evaluations"][-1]
    assert [last[f"kl_completion{band}"] for band in ("", "_low", "_high")] == [4.0, 3.0, 5.0]
    assert series["headline"]["kl_completion"] == 4.0


def test_an_estimated_kl_is_shown_and_called_an_estimate(tmp_path: Path) -> None:
    """A server gives an estimate, under a name of its own in metrics.jsonl."""

    def estimated(line: dict[str, Any]) -> dict[str, Any]:
        return {("kl/base_estimate" if name == "kl/base" else name): value for name, value in line.items()}

    lines = [estimated(metrics_line(step)) | {"slow/kl_penalty": 0.25 * step} for step in range(3)]
    exact, remote = make_run(tmp_path / "exact"), make_run(tmp_path / "remote")
    write_lines(remote / "metrics.jsonl", lines)
    found = collect([exact, remote])
    local, server = found["panels"][0]["series"]
    assert (local["headline"]["kl_name"], server["headline"]["kl_name"]) == ("KL", "KL (estimate)")
    assert [point["kl"] for point in found["runs"][1]["evaluations"]] == [0.0, 0.01, 0.02]
    assert {point["kl_name"] for point in found["runs"][1]["evaluations"]} == {"KL (estimate)"}
    assert found["runs"][1]["training"]["slow/kl_penalty"] == [0.25, 0.5]
    column = found["panels"][0]["table"]["head"].index("KL at the end (nats a token)")
    rows = [row[column] for row in found["panels"][0]["table"]["rows"]]
    assert rows == [f"{local['headline']['kl']:.3f}", "0.020 (estimate)"]

    parts = [result_line("t", "fst", seed, [0.0, 0.5]) for seed in range(2)]
    for part in parts:
        part["curve"] = [estimated(point) for point in part["curve"]]
    write_lines(tmp_path / "results.jsonl", parts)
    panel = collect([tmp_path / "results.jsonl"])["panels"][0]
    assert [point["kl_name"] for point in panel["series"][0]["evaluations"]] == ["KL (estimate)"] * 2
    assert panel["table"]["rows"][0][panel["table"]["head"].index("KL at the end (nats a token)")] == "0.100 (estimate)"
