"""What a run has lost is said by whatever shows it; a run that is whole has lost nothing."""

import shutil
from pathlib import Path

import pytest

from fastslow.cli import show
from fastslow.report.collect import collect
from fastslow.runs.family import family
from fastslow.runs.reader import Run

from report_runs import candidate, make_run

FIXTURES = Path(__file__).parents[2] / "fixtures" / "runs"


@pytest.mark.parametrize(
    "run", sorted(path for path in FIXTURES.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_whole_runs_have_lost_nothing(run: Path) -> None:
    assert Run(run).losses == []


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [
        ("metrics.jsonl", None, "metrics.jsonl is gone or empty, but there is a checkpoint of step 2"),
        ("metrics.jsonl", 0, "metrics.jsonl is gone or empty, but there is a checkpoint of step 2"),
        ("metrics.jsonl", 1, "metrics.jsonl ends at step 0, but there is a checkpoint of step 2"),
        ("prompts.jsonl", None, "prompts.jsonl is gone or empty, so it lacks 2 of the prompts in population.json"),
        ("prompts.jsonl", 1, "prompts.jsonl lacks "),
    ],
)
def test_a_file_that_was_lost_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kept: int | None, message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(FIXTURES / "fst-lora-killed", run)
    lines = (run / name).read_bytes().splitlines(keepends=True)
    (run / name).unlink()
    if kept is not None:
        (run / name).write_bytes(b"".join(lines[:kept]))
    show.candidates(run)
    assert message in capsys.readouterr().err
    assert any(message in note for note in collect([run])["notes"])


def test_a_line_of_descent_of_any_depth_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    depth = 1500
    lines = [
        candidate(f"h{n}", f"h{n - 1}" if n else None, {"system": f"Rule {n}."}, id=n, cycle=n) for n in range(depth)
    ]
    run = make_run(tmp_path / "run", candidates=lines)
    assert [member.hash for member in family(Run(run).candidates)][-1] == f"h{depth - 1}"
    show.tree(run)
    shown = capsys.readouterr().out
    assert all(f"h{n} " in shown for n in range(depth))
    assert max(map(len, shown.splitlines())) < 200
    show.candidates(run)
    assert f"h{depth - 1} " in capsys.readouterr().out


def test_a_loop_in_a_lineage_is_cut() -> None:
    lines = [candidate("a", "b", {}), candidate("b", "c", {}), candidate("c", "a", {}), candidate("d", "d", {})]
    found = {member.hash: member.parent for member in family(lines)}  # type: ignore[arg-type]
    assert found == {"a": "b", "b": "c", "c": None, "d": None}
