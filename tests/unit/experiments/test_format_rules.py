"""The experiment on a real model: its page is what its lines say, and its lines are those of the runs that it plans."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fastslow.experiments.parts import part_config
from fastslow.runs.files import read_lines
from fastslow.runs.reader import Run

HERE = Path(__file__).parents[3] / "experiments" / "format_rules"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    report = load("report")
    drawn = []
    monkeypatch.setattr(report, "draw", lambda series, panels, title, path: drawn.append(path.name))
    written = (HERE / "results" / "README.md").read_text(encoding="utf-8")
    assert written == "\n".join(report.page(read_lines(HERE / "results" / "runs.jsonl"))).rstrip() + "\n"
    assert drawn == ["json.png", "boxed.png"]


def test_the_lines_are_those_of_planned_runs_and_of_the_records(tmp_path: Path) -> None:
    planned = load("run").experiment(["json", "boxed"], ["fst", "rl", "prompt"], [0, 1], "some/model", test=True)
    parts = {part.name: part for part in planned.parts}
    assert len(parts) == 12
    for line in read_lines(HERE / "results" / "runs.jsonl"):
        record = Run(HERE / "results" / line["part"].removesuffix("-2e-4"))
        if line["part"].endswith("-2e-4"):
            continue
        part = parts[line["part"]]
        assert dict(part.settings) == line["settings"]
        assert set(line["measures"]) <= {measure.name for measure in part.measures}
        assert record.totals.sampled == line["totals"]["sampled"]
        kept = record.config.model_dump(mode="json", exclude={"output", "threads", "model", "fast"})
        config = part_config(planned, part, tmp_path).model_dump(
            mode="json", exclude={"output", "threads", "model", "fast"}
        )
        assert config == kept
