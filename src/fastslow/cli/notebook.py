"""Showing a run in a notebook: one display that changes in its place."""

import io
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

COLUMNS = 110
SECONDS = 0.25
"""Between two changes: a notebook keeps up with that."""
FORMAT = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace">{code}</pre>'


def in_notebook() -> bool:
    """Whether this program is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookLive:
    """What `rich.live.Live` is in a terminal: shows what `render` gives, in one display,
    which every frontend can update.

    It changes when it is told to: a notebook takes no updates from other threads.
    """

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self.render = render
        self.transient = False
        self._handle: Any = None
        self._shown_at = 0.0

    def start(self) -> None:
        """Open the display, once."""
        if self._handle is not None:
            return
        from IPython.display import display

        show: Any = display
        self._handle = show(self._html(), display_id=True)

    def refresh(self, *, now: bool = False) -> None:
        """Show what there is, a few times a second at most."""
        if self._handle is not None and (now or time.monotonic() - self._shown_at >= SECONDS):
            self._handle.update(self._html())
            self._shown_at = time.monotonic()

    def stop(self) -> None:
        """Show the last state, which stays."""
        self.refresh(now=True)
        self._handle = None

    def _html(self) -> Any:
        from IPython.display import HTML

        console = Console(file=io.StringIO(), record=True, width=COLUMNS, force_jupyter=False, force_terminal=True)
        console.print(self.render())
        html: Any = HTML
        return html(console.export_html(inline_styles=True, code_format=FORMAT))
