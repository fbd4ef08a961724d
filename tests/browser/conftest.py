"""A real browser. Without one the tests of pages are skipped, and the summary of the run says so."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


# Not for the whole session: Playwright's event loop runs in this thread as long as it is open,
# and other tests need their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'fastslow[dev]'")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(
            f"no browser for the tests of pages: install one of {', '.join(NAMES)} (Debian: apt install chromium)"
        )
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=arguments, timeout=120_000)
        yield opened
        opened.close()
