"""Any file of a run directory: whoever looks at the run or resumes it gets one error that names the file."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.cli import show
from fastslow.errors import FastslowError
from fastslow.report.collect import collect
from fastslow.report.page import render
from fastslow.runs.directory import RunDirectory
from fastslow.training.resume import find_checkpoint, read_resume
from fastslow.training.state import LoopState

from fuzz_values import FUZZ, changed_bytes, changed_tree

FIXTURE = Path(__file__).parents[1] / "fixtures" / "runs" / "fst-lora-killed"
LOOKED_AT = ("config.yaml", "metrics.jsonl", "prompts.jsonl", "population.json", "rollouts/step_1.jsonl")
TAKEN_UP = tuple(f"checkpoints/step_2/resume/{name}" for name in ("loop.json", "store.jsonl"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "run"
    shutil.copytree(FIXTURE, path)
    return path


@contextlib.contextmanager
def changed(run: Path, name: str, data: bytes) -> Any:
    """The run with another file in it."""
    path = run / name
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def changed_lines(path: Path) -> st.SearchStrategy[bytes]:
    """A file of JSON lines in which one record was changed, or any bytes were."""
    text = path.read_text(encoding="utf-8")
    lines = [text] if path.suffix == ".json" else text.split("\n")[:-1]  # less what is torn
    if path.suffix == ".yaml":
        return changed_bytes(path.read_bytes())

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        index = draw(st.integers(0, len(lines) - 1))
        whole = draw(changed_tree(json.loads(lines[index])))
        return "".join(f"{line}\n" for line in [*lines[:index], json.dumps(whole), *lines[index + 1 :]]).encode()

    return st.one_of(one(), changed_bytes(path.read_bytes()))


def look(run: Path) -> None:
    """Everything that shows a run."""
    views = [
        lambda: render(collect([run])),
        lambda: show.population(run),
        lambda: show.candidates(run),
        lambda: show.tree(run),
        lambda: show.best_prompt(run),
    ]
    for view in views:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                view()
            except FastslowError as error:
                assert str(error)
        assert "\x1b[31m" not in out.getvalue()


@pytest.mark.parametrize("name", LOOKED_AT)
@FUZZ
@given(data=st.data())
def test_a_run_that_is_looked_at(run: Path, name: str, data: st.DataObject) -> None:
    with changed(run, name, data.draw(changed_lines(FIXTURE / name))):
        look(run)


@pytest.mark.parametrize("name", TAKEN_UP)
@FUZZ
@given(data=st.data())
def test_a_run_that_is_taken_up(run: Path, name: str, data: st.DataObject) -> None:
    with changed(run, name, data.draw(changed_lines(FIXTURE / name))):
        try:
            found = find_checkpoint(RunDirectory(run))
            assert found.checkpoint is not None
            loop, _ = read_resume(found.checkpoint)
            LoopState.from_json(loop["state"])
        except FastslowError as error:
            assert str(error)
