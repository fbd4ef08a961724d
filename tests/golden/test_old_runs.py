"""Run directories of an earlier version are read, shown, reported, exported and resumed.

What resuming them gives is in the records, as for the golden runs.
"""

import json
import shutil
from pathlib import Path

import pytest

from fastslow import read_candidates, read_metrics, read_population
from fastslow.cli.main import main

from cases import FIXTURES

RUNS = sorted(path.name for path in (FIXTURES / "runs").iterdir())
LORA = ("fst-lora-killed", "distill-lora")
BEST = {
    "distill-lora": "go\nWrite the letter a.\nWrite the letter d.",
    "fst-lora-killed": "go\nWrite the letter c.",
    "prompt-stream": "go\nWrite the letter a.",
    "rl": "go",
}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an old run, in a copy of where it was made."""
    shutil.copytree(FIXTURES, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("runs") / str(request.param)


def test_its_files_are_read(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    assert read_metrics(run) == lines
    assert [line["step"] for line in lines] == list(range(3 if run.name == "prompt-stream" else 4))
    assert [line["hash"] for line in read_candidates(run)] == [
        json.loads(line)["hash"] for line in (run / "prompts.jsonl").read_text().splitlines()
    ]
    assert read_population(run)[0].as_dict() == {"system": BEST[run.name]}


def test_its_prompts_are_shown(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["prompts", str(run), "--best"]) == 0
    assert capsys.readouterr().out.strip() == BEST[run.name]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["prompts", str(run), "--all"]) == 0
    shown = capsys.readouterr().out
    for line in read_candidates(run):
        assert line["hash"] in shown


def test_it_is_reported(run: Path) -> None:
    assert main(["report", str(run), "--output", "report.html"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert run.name in page
    assert json.dumps(BEST[run.name])[1:-1] in page
    last = [line for line in read_metrics(run) if "kl/base" in line][-1]
    for name in ("kl/base", "val/mean@2"):
        assert json.dumps(float(f"{last[name]:.6g}")) in page


def test_it_is_exported(run: Path) -> None:
    assert main(["export", "--trust-code", str(run), "out"]) == 0
    # After distillation the weights answer under the seed prompt.
    best = "go" if run.name == "distill-lora" else BEST[run.name]
    assert Path("out/prompt.txt").read_text(encoding="utf-8") == best
    weights = "adapter_model.safetensors" if run.name in LORA else "model.safetensors"
    newest = max((run / "checkpoints").iterdir())
    assert (Path("out") / weights).read_bytes() == (newest / weights).read_bytes()


def test_it_goes_on_from_the_command_line(run: Path) -> None:
    before = {line["step"]: line for line in read_metrics(run)}
    kept = 2 if run.name in ("fst-lora-killed", "prompt-stream") else 3
    assert main(["train", "--trust-code", "--resume", str(run), "--set", "steps=4", "--quiet"]) == 0
    after = read_metrics(run)
    assert [line["step"] for line in after] == [0, 1, 2, 3, 4]
    assert after[: kept + 1] == [before[step] for step in range(kept + 1)]
    assert (run / "checkpoints" / "step_4" / "resume").is_dir()
