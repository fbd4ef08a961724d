"""A run in a notebook is one display that changes in its place, in a real kernel."""

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from fastslow.cli.notebook import NotebookLive, in_notebook

CELL = """
import sys
sys.path[:0] = {path}
import torch; torch.set_num_threads(1)
import fastslow
from pathlib import Path
from runs import small_config
result = fastslow.train(small_config(Path({model!r}), Path({output!r}), steps=2))
"""


def test_a_run_in_a_notebook_is_one_display(tiny_model_dir: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    root = Path(__file__).parents[2]
    cell = CELL.format(
        path=[str(root), str(root.parent / "src")], model=str(tiny_model_dir), output=str(tmp_path / "run")
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(book, timeout=600, kernel_name="python3").execute()
    outputs: list[Any] = book.cells[0].outputs
    shown = [output for output in outputs if "<pre" in output.get("data", {}).get("text/html", "")]
    (display,) = [output for output in shown if "rollouts/s" in output["data"]["text/html"]]
    assert "2/2" in display["data"]["text/html"]  # its last state
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    assert len(lines) < 30, lines


def test_outside_of_a_notebook_there_is_none() -> None:
    assert not in_notebook()


def test_a_display_is_changed_a_few_times_a_second_and_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    updates: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            updates.append(html.data)

    monkeypatch.setattr(IPython.display, "display", lambda html, display_id: Handle())
    words = iter(range(1000))
    live = NotebookLive(lambda: Text(f"<script>{next(words)}"))
    live.start()
    for _ in range(100):
        live.refresh()
    live.stop()
    live.stop()
    assert 2 <= len(updates) < 20
    assert all("&lt;script&gt;" in html and "<script>" not in html for html in updates)
    assert "IPython" in sys.modules
