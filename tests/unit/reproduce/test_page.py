"""What stored results say of the claims: made results whose verdicts are known, and the page written of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.reproduce import looks
from fastslow.reproduce.claims import CLAIMS
from fastslow.reproduce.evidence import Finding
from fastslow.reproduce.page import BEGIN, END, results_page, with_claims, write_pages
from fastslow.reproduce.sections import Plan

SEEDS = range(3)
Tested = Mapping[str, float]


def line(labels: dict[str, Any], accuracies: Sequence[float], kls: Sequence[float], tested: Tested) -> dict[str, Any]:
    """A run that is evaluated every 5 steps, each of 20 rollouts and 2 seconds."""
    curve = [
        {"step": 5 * at, "rollouts": 100 * at, "seconds": 10.0 * at, "val/mean@4": value, "kl/base": drift}
        for at, (value, drift) in enumerate(zip(accuracies, kls, strict=True))
    ]
    last = curve[-1]
    totals = {"steps": last["step"], "sampled": last["rollouts"], "seconds": last["seconds"], "evaluate_s": 1.0}
    measures = {name: {"mean": value, "mean_interval": [0, 1]} for name, value in tested.items()}
    return {
        "part": "-".join(map(str, labels.values())), "labels": labels, "settings": {}, "start": None,
        "interrupted": False,
        "curve": curve, "totals": totals, "prompt": "p", "measures": measures,
    }  # fmt: skip


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")


def compare(seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """In the lab: on amber FST is faster and drifts less; on fir it alone moves; on birch seeds differ."""
    made = []
    for seed in seeds:
        both = {"test": 0.9, "trained weights, seed prompt": 0.1, "base weights, best prompt": 0.5}

        def add(task: str, method: str, rise: Sequence[float], drift: float, tested: Tested, seed: int = seed) -> None:
            labels = {"task": task, "method": method, "seed": seed}
            made.append(line(labels, rise, [drift * at for at in range(len(rise))], tested))

        add("amber", "fst", [0.1, 0.8, 0.8, 0.8, 0.8], 0.01, both)
        add("amber", "rl", [0.1, 0.1, 0.8, 0.8, 0.8], 0.1, {"test": 0.8})
        add("amber", "prompt", [0.1, 0.5, 0.5, 0.5, 0.5], 0.0, {"test": 0.6})
        add("fir", "fst", [0.0, 0.5, 0.5, 0.5, 0.5], 0.01, {**both, "trained weights, seed prompt": 0.0})
        add("fir", "rl", [0.0, 0.0, 0.0, 0.0, 0.0], 0.0, {"test": 0.0})
        add("birch", "fst", [0.1, 0.5, 0.5, 0.5, 0.5], 0.01, {**both, "test": 0.6 + 0.1 * seed})
        add("birch", "rl", [0.1, 0.5, 0.5, 0.5, 0.5], 0.01, {"test": 0.7})
    return made


def arms() -> list[dict[str, Any]]:
    """On the real model: FST drifts more than RL alone, and RL alone ends higher."""
    made = []
    for seed in SEEDS:
        for arm, rise, drift, own in (("fst", [0.0, 0.5, 0.5], 0.3, 0.5), ("rl", [0.0, 0.0, 0.6], 0.1, 0.6)):
            labels = {"arm": arm, "phase": 1, "seed": seed}
            made.append(line(labels, rise, [drift * at for at in range(3)], {"own prompt": own, "seed prompt": 0.25}))
    return made


@pytest.fixture()
def results(tmp_path: Path) -> Path:
    write(tmp_path / "lab" / "compare.jsonl", compare())
    write(tmp_path / "real_model" / "results" / "json" / "results.jsonl", arms())
    return tmp_path


def of(results: Path, name: str) -> dict[str, Finding]:
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    return {finding.place: finding for finding in claim.look(results)}


def verdicts(results: Path, name: str) -> dict[str, str]:
    return {place: finding.verdict for place, finding in of(results, name).items()}


def test_samples_are_compared_where_rl_starts(results: Path) -> None:
    found = of(results, "Fewer samples")
    assert found["amber"].cells == ("0.76", "100", "200", "0.50 (all 3 alike)")
    assert {place: each.verdict for place, each in found.items()} == {
        "amber": "held", "birch": "did not hold", "dogwood": "not run yet", "fir": "could not be tested here",
        "hazel": "not run yet", "amber in bfloat16": "not run yet", "json": "held", "boxed": "not run yet",
        "letter_counting": "not run yet", "gsm_symbolic": "not run yet", "tool_protocol": "not run yet",
        "star_graph": "not run yet",
    }  # fmt: skip
    # On json RL alone ends at 0.3, the mean of its last evaluations.
    assert found["fir"].why == "RL alone gains 0.000" and found["amber"].seeds == 3


def test_the_goal_needs_rollouts_and_seconds(results: Path) -> None:
    found = of(results, "Half the rollouts and half the seconds")
    assert found["amber"].cells[1:] == ("0.50 (all 3 alike)", "0.50 (all 3 alike)")
    assert found["amber"].verdict == "did not hold", "half is not below half"


def test_the_ceiling_is_that_of_the_test_split(results: Path) -> None:
    found = verdicts(results, "A higher ceiling")
    assert (found["amber"], found["birch"], found["json"]) == ("held", "undecided", "did not hold")


def test_drift_is_compared_at_one_accuracy(results: Path) -> None:
    found = of(results, "Less drift at matched accuracy")
    # FST at its first evaluation, 0.01; RL alone at its second, 0.2.
    assert found["amber"].cells[1:4] == ("0.010", "0.200", "0.05 (all 3 alike)")
    assert (found["amber"].verdict, found["json"].verdict) == ("held", "did not hold")
    assert found["amber"].cells[4] == "-", "not measured"


def test_the_drift_of_whole_answers_stands_beside_that_of_tokens(results: Path) -> None:
    lines = arms()
    for each in lines:
        tokens = 4 if each["labels"]["arm"] == "fst" else 24
        for point in each["curve"]:
            point["kl/base_completion"] = tokens * point["kl/base"]
    write(results / "real_model" / "results" / "json" / "results.jsonl", lines)
    found = of(results, "Less drift at matched accuracy")["json"]
    # A token: 0.3 against 0.2; a completion: 1.2 against 4.8.
    assert found.cells[1:5] == ("0.300", "0.200", "1.50 (all 3 alike)", "0.25 (all 3 alike)")
    assert found.verdict == "did not hold", "the paper's claim is of tokens"


def test_parts_are_compared_with_both(results: Path) -> None:
    assert verdicts(results, "Both together are better than each alone")["amber"] == "held"
    alone = verdicts(results, "The weights alone are better than the base")
    assert (alone["fir"], alone["json"]) == ("did not hold", "held")
    assert verdicts(results, "Better than prompt evolution alone")["amber"] == "held"


def test_only_floors_of_zero_count_as_such(results: Path) -> None:
    assert verdicts(results, "Out of a zero floor") == {
        "fir": "held", "json": "held", "tool_protocol": "not run yet", "letter_counting": "not run yet",
    }  # fmt: skip


def test_a_floor_that_a_small_validation_set_does_not_show_is_not_zero(tmp_path: Path) -> None:
    write(tmp_path / "real_model" / "results" / "boxed" / "results.jsonl", arms())
    assert "boxed" not in verdicts(tmp_path, "Out of a zero floor")
    assert verdicts(tmp_path, "Fewer samples")["boxed"] == "held", "it is there all the same"


def test_runs_at_the_higher_learning_rate_are_compared_with_the_others_alone(results: Path) -> None:
    name = "The lower of two learning rates"
    assert verdicts(results, name)["json: FST"] == "not run yet"
    before = [finding for claim in CLAIMS if claim.name != name for finding in claim.look(results)]
    higher = arms()
    for each in higher:
        fst = each["labels"]["arm"] == "fst"
        each["measures"]["own prompt"]["mean"] = 0.25 if fst else 0.7
    write(results / "real_model" / "results" / "json_2e-4" / "results.jsonl", higher)
    found = of(results, name)
    assert found["json: FST"].cells == ("0.500", "0.250", "0.250 (all 3 alike)")
    assert (found["json: FST"].verdict, found["json: RL alone"].verdict) == ("held", "did not hold")
    assert before == [finding for claim in CLAIMS if claim.name != name for finding in claim.look(results)]


def test_distilled_weights_are_measured_under_the_seed_prompt(results: Path) -> None:
    """They are made to do without the evolved one."""
    made = [
        line({"arm": arm, "phase": 1, "seed": seed}, [0.0, 0.5], [0.0, 0.1], {"own prompt": own, "seed prompt": 0.25})
        for seed in SEEDS
        for arm, own in (("distill", 0.75), ("prompt", 0.375))
    ]
    write(results / "real_model" / "results" / "json" / "results.jsonl", [*arms(), *made])
    found = of(results, "Distillation")
    assert found["json: above GEPA alone"].cells[:2] == ("0.250", "0.375")
    assert found["json: below FST"].cells[:2] == ("0.500", "0.250")


def test_two_seeds_have_no_verdict(tmp_path: Path) -> None:
    write(tmp_path / "lab" / "compare.jsonl", compare(range(2)))
    assert verdicts(tmp_path, "A higher ceiling")["amber"] == "too few seeds"
    assert "held" not in {finding.verdict for claim in CLAIMS for finding in claim.look(tmp_path)}


def test_without_results_nothing_is_claimed(tmp_path: Path) -> None:
    found = {finding.verdict for claim in CLAIMS for finding in claim.look(tmp_path)}
    assert found == {"not run yet", "could not be tested here"}


@pytest.mark.parametrize("path", ["", "nowhere"], ids=["results", "none"])
def test_every_finding_has_a_cell_for_each_column(path: str, results: Path) -> None:
    for claim in CLAIMS:
        for finding in claim.look(results / path):
            assert len(finding.cells) == len(claim.columns), (claim.name, finding.place)


def test_second_phases_are_those_of_the_lab(tmp_path: Path) -> None:
    after = [
        line({"after": label, "seed": seed}, [0.0, end], [0.0, 0.0], {})
        for seed in SEEDS
        for label, end in (("fst", 0.5), ("rl", 0.0), ("base", 0.75))
    ]
    write(tmp_path / "lab" / "compare.jsonl", after)
    finding = looks.second_task(tmp_path)[0]
    assert (finding.place, finding.verdict) == ("birch after amber", "held")
    assert finding.cells[2:] == ("0.750", "0.500 (all 3 alike)")


def test_a_stream_is_looked_at_where_each_phase_ends(tmp_path: Path) -> None:
    lines = []
    for seed in SEEDS:
        for method, ends in (("fst", (0.5, 0.25)), ("rl", (0.1, 0.3))):
            made = line({"method": method, "seed": seed}, [0.0] * 4, [0.0] * 4, {})
            for point, (task, end) in zip(made["curve"][2:], zip(("elm", "birch"), ends, strict=True), strict=True):
                point[f"val/lab-{task}/mean@4"] = end
            lines.append(made)
    write(tmp_path / "lab" / "continual.jsonl", lines)
    assert [each.verdict for each in looks.stream(tmp_path)[:2]] == ["held", "did not hold"]


def ablation(value: str, end: Callable[[int], float], seconds: float) -> list[dict[str, Any]]:
    made = []
    for seed in SEEDS:
        labels = {"key": "reuse", "value": value, "method": "fst", "seed": seed}
        made.append(line(labels, [0.0, end(seed)], [0.0, 0.0], {}))
        made[-1]["totals"]["seconds"] = seconds
    return made


def test_reuse_is_judged_by_seconds_a_step(tmp_path: Path) -> None:
    write(tmp_path / "lab" / "ablate.jsonl", [*ablation("on", float, 7.0), *ablation("off", float, 10.0)])
    finding = looks.reuse(tmp_path)[0]
    assert (finding.cells[2], finding.verdict) == ("0.70 (all 3 alike)", "held")
    assert [each.verdict for each in looks.ablations(tmp_path)][:3] == ["not run yet"] * 3


def test_the_page_has_every_claim_and_links_what_is_there(results: Path) -> None:
    (results / "lab" / "README.md").touch()
    page = results_page(results, results / "results.md")
    assert all(f"\n## {claim.name}\n" in page for claim in CLAIMS)
    assert "| lab: [amber][lab] | 3 | 0.900 | 0.800 | 0.100 (all 3 alike) | held |" in page
    assert "\n[lab]: lab/README.md\n" in page
    assert "| real model: json | 3 |" in page, "no link to a page that is not there"
    words = " ".join(page.split())
    assert "in the lab **held** (amber, fir), **undecided** (birch), **not run yet** (dogwood, hazel, amber in" in words
    assert "- The lower of two learning rates: on the real model **not run yet**." in words, "the lab has no such runs"
    assert max(map(len, page.splitlines())) <= 120
    assert "quick" not in page.partition("\n")[0]


def test_a_quick_page_says_so_first_and_touches_nothing_that_is_published(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "checkout"
    (elsewhere / "docs").mkdir(parents=True)
    (elsewhere / "README.md").write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    assert write_pages(Plan(tmp_path / "runs", results, quick=True)) == [results / "results.md"]
    text = (results / "results.md").read_text(encoding="utf-8")
    assert text.startswith("# Results: a quick run\n") and "Its numbers and verdicts mean nothing" in " ".join(
        text.split()
    )
    assert not (elsewhere / "docs" / "results.md").exists()
    assert (elsewhere / "README.md").read_text(encoding="utf-8") == f"{BEGIN}\n{END}\n"


def test_the_table_of_the_readme_stands_between_its_marks(results: Path) -> None:
    made = with_claims(f"before\n{BEGIN}\nstale\n{END}\nafter\n", results)
    assert made.startswith(f"before\n{BEGIN}\n\n| claim | in the lab | on the real model |\n")
    assert made.endswith(f"{END}\nafter\n") and "stale" not in made
    assert "| a higher ceiling | held 2, undecided 1, not run 3 | not 1, not run 5 |" in made
    assert with_claims(made, results) == made
    assert with_claims("no marks\n", results) == "no marks\n"
