"""A server estimates the KL to the base; every table says so."""

import json
from pathlib import Path

import pytest

from fastslow.experiments import sections
from fastslow.experiments.watch import _last as last_of_run

from report_runs import result_line


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "draw", lambda *arguments: None)


@pytest.mark.parametrize(("metric", "name"), [("kl/base", "KL"), ("kl/base_estimate", "KL (estimate)")])
def test_tables_and_the_line_of_a_part_name_an_estimate(tmp_path: Path, metric: str, name: str) -> None:
    runs = [result_line("t", method, 0, [0.0, 0.5, 0.9]) for method in ("fst", "rl")]
    for run in runs:
        run["labels"] |= {"key": "K", "value": "2"}
        for point in run["curve"]:
            point[metric] = point.pop("kl/base")
    methods = {"fst": runs[:1], "rl": runs[1:]}
    compared = "\n".join(sections.comparison(methods, "title", tmp_path / "x.png"))
    assert f"| {name} at the end |" in compared
    assert f"| {name} there |" in compared
    assert "| 0.200 |" in compared
    assert sections.drift(methods, tmp_path / "x.png")[0].startswith(f"{name}(policy, base)")
    assert f"| {name} at the end |" in sections.ablation(runs, {"K": ["2"]}, 0.5)[0]

    (tmp_path / "run").mkdir()
    line = {"step": 1, "rollouts/sampled_total": 8, "val/mean@4": 0.5, metric: 0.25, "reward/mean": 0.5}
    text = json.dumps(line) + "\n" + json.dumps({"step": 2, "rollouts/sampled_total": 16}) + "\n"
    (tmp_path / "run" / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert last_of_run(tmp_path / "run", "-").endswith("KL 0.250" + name.removeprefix("KL"))
