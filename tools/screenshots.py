"""Takes the pictures of the report that stand in the docs, from runs of your own.

    fastslow lab demo --output /tmp/demo
    python tools/screenshots.py /tmp/demo/fst /tmp/demo/rl

docs/images/report.png is the first screen of the runs side by side, docs/images/prompts.png the first run's family of
prompts. Each is there a second time, dark: report-dark.png, prompts-dark.png. Needs a Chromium, playwright and Pillow.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastslow.report.commands import write

IMAGES = Path(__file__).parents[1] / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LARGEST = 300_000
"""Bytes of a picture."""
WIDTH, HEIGHT = 1400, 1060


def shoot(browser: Any, page: Path, target: Path, scheme: str, section: str | None) -> None:
    """One picture of a page: its first screen, or the screen that a section begins."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
    )
    opened = context.new_page()
    opened.set_default_timeout(120_000)
    opened.goto(page.as_uri())
    opened.wait_for_selector("body[data-ready=true]")
    if section is not None:
        opened.evaluate("id => document.getElementById(id).scrollIntoView()", section)
    opened.screenshot(path=str(target))
    context.close()
    _shrink(target)


def _shrink(path: Path) -> None:
    """A palette of 128 colours: the page has fewer. Raises SystemExit where the picture is still too large."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    size = path.stat().st_size
    if size >= LARGEST:
        raise SystemExit(f"{path} has {size} bytes, more than {LARGEST}")
    print(f"wrote {path} ({size / 1000:.0f} kB)")


def main() -> int:
    """Make two pages of the runs, and two pictures of each."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories; the prompts are the first one's")
    parser.add_argument("--output", type=Path, default=IMAGES, help="where the pictures go (default: docs/images)")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        together, alone = Path(folder) / "together.html", Path(folder) / "alone.html"
        write(options.runs, together)
        write(options.runs[:1], alone)
        browser = started.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        for scheme, mark in (("light", ""), ("dark", "-dark")):
            shoot(browser, together, options.output / f"report{mark}.png", scheme, None)
            shoot(browser, alone, options.output / f"prompts{mark}.png", scheme, "prompts")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
