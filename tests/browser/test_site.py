"""The site of docs/, read from disk in a browser without a network: it is searched, and asks nothing of anybody."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site: `--strict` also says that no link of any page leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_searched_from_a_disk(browser: Any, site: Path) -> None:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially("population")
    first = page.locator(".md-search-result__item a").first
    first.wait_for()
    assert page.locator(".md-search-result__item").count() > 3
    page.goto((site / "api.html").as_uri())
    assert page.locator("h3#fastslow\\.api\\.calls\\.train").count() == 1
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert wrong == []
    context.close()
