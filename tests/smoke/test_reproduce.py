"""`fastslow reproduce` for the real model, here a tiny one: rates first, then arms at these, pages, resume."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from fastslow.cli.main import main
from fastslow.reproduce import sections

from runs import small_config

RATES = (0.01, 0.02)


@pytest.mark.slow
def test_a_task_of_the_real_model_is_tuned_run_and_reported_once(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = small_config(Path(sections.MODEL), tmp_path / "unused", steps=20, max_rollouts=40).model_dump(mode="json")
    tree["evaluation"] = {"every": 2, "problems": 2, "k": 1, "kl_problems": 2}
    for name in ("tags", "json"):
        sections.CONFIGS.mkdir(parents=True, exist_ok=True)
        (sections.CONFIGS / f"{name}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    monkeypatch.setattr(sections, "RATES", RATES)
    monkeypatch.setattr(sections, "RATE_TASK", ("task.options.train=11",))
    monkeypatch.setattr(sections, "QUICK_RUNS", ("max_rollouts=30",))
    monkeypatch.setattr(sections, "TASKS", {"json": {"fst": 2, "rl": 2, "prompt-rl": 1}})
    monkeypatch.setattr(sections, "AT_HIGHER", {})
    arguments = ["reproduce", "real_model", "--quick", "--seeds", "1", "--workers", "1"]
    model = shutil.copytree(tiny_model_dir, tmp_path / "elsewhere")
    assert main([*arguments, "--model", str(model)]) == 0
    results = tmp_path / "runs" / "quick" / "results"
    tuned = (results / "real_model" / "results" / "tune" / "README.md").read_text(encoding="utf-8")
    assert "a quick run" in tuned.partition("\n")[0] and "--method-set fst:slow.learning_rate=" in tuned
    file = results / "real_model" / "results" / "json" / "results.jsonl"
    lines = {line["part"]: line for line in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    assert list(lines) == ["fst-0", "rl-0", "prompt-rl-0-phase-1", "prompt-rl-0"]
    assert all(line["settings"]["slow.learning_rate"] in RATES for part, line in lines.items() if "phase-1" not in part)
    page = (file.parent / "README.md").read_text(encoding="utf-8")
    assert "| GEPA, then RL | 1 |" in page and str(model) not in page
    assert "| real model: [json] | 1 |" in (results / "results.md").read_text("utf-8")
    # The model moves: what has been run stands.
    capfd.readouterr()
    moved = shutil.move(model, tmp_path / "moved")
    assert main([*arguments, "--model", str(moved), "--list"]) == 0
    assert "nothing is missing" in capfd.readouterr().out
    before = file.read_bytes()
    assert main([*arguments, "--model", str(moved)]) == 0 and file.read_bytes() == before
    assert main([*arguments, "--report"]) == 0 and file.read_bytes() == before
    # Without it, what is there is reported, and all sections together are skipped with a word
    # where something is missing.
    assert main(arguments) == 0 and file.read_bytes() == before
    monkeypatch.setattr(sections, "sections", lambda found=sections.sections: [s for s in found() if s.needs_model])
    capfd.readouterr()
    assert main(["reproduce", "--quick", "--seeds", "2"]) == 0
    assert f"real_model/json: skipped: there is no model in '{sections.MODEL}'" in capfd.readouterr().out
