"""`fastslow prompts` where a run has very many prompts: the same words, indented, not laid out by contents."""

import json
import re
from pathlib import Path

import pytest

from fastslow.cli import show

from report_runs import candidate, make_run

DEEP = [
    candidate("bbbb", None, {"system": "0"}),
    *(
        candidate(f"h{n}", "bbbb" if n == 1 else f"h{n - 1}", {"system": str(n)}, accepted=n % 2 == 0)
        for n in range(1, 25)
    ),
    candidate("cccc", "h24", {"system": "[/bad] \x1b[31m"}),
]


def words(out: str) -> list[str]:
    """Every line without what it is indented with, and without the title of a part."""
    lines = [re.sub(r"^[\s│├└─]+", "", line).rstrip() for line in out.splitlines()]
    return [line for line in lines if line and not line.startswith(("/", "goes on from"))]


def test_a_tree_of_many_prompts_says_what_a_small_one_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run = make_run(tmp_path / "run", candidates=DEEP)
    show.tree(run)
    laid_out = capsys.readouterr().out
    monkeypatch.setattr(show, "MOST_ROWS", 1)
    show.tree(run)
    plain = capsys.readouterr().out
    assert words(plain) == words(laid_out)
    assert plain.count("goes on from") == 2 and "cccc  mean" in plain
    assert "[/bad]" in plain and "\x1b" not in plain
    assert max(len(line) - len(line.lstrip()) for line in plain.splitlines()) <= 4 * (show.MOST_LEVELS + 1)


@pytest.mark.parametrize("most", [1, 1000])
def test_a_candidate_without_a_number_is_listed_as_well(
    most: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older runs, and those that a hand has been in, have none."""
    monkeypatch.setattr(show, "MOST_ROWS", most)
    lines = [{key: value for key, value in line.items() if key != "id"} for line in DEEP[:3]]
    show.candidates(make_run(tmp_path / "run", candidates=lines))
    assert capsys.readouterr().out.count("h1") >= 1


def test_the_best_prompt_is_printed_whatever_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", candidates=DEEP)
    member = {"hash": "x", "components": {"system": "a\ud800b"}, "mean": None}
    (run / "population.json").write_text(json.dumps({"population": [member]}), encoding="utf-8")
    show.best_prompt(run)
    assert capsys.readouterr().out.encode() == "a\N{REPLACEMENT CHARACTER}b\n".encode()
