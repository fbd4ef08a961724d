"""The site of docs/: what its hook makes of links, and that every page has a place."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastslow

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
assert SPEC is not None and SPEC.loader is not None
site: Any = importlib.util.module_from_spec(SPEC)
sys.modules["docs_site"] = site
SPEC.loader.exec_module(site)


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without making the Python objects that it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def places(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [place for item in (nav.values() if isinstance(nav, dict) else nav) for place in places(item)]


def test_every_page_has_a_place_in_the_site() -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    found = places(CONFIG["nav"])
    assert sorted(found) == sorted({*pages, *site.PAGES.values(), site.API})


def test_no_font_and_no_search_needs_a_network() -> None:
    assert CONFIG["theme"]["font"] is False
    assert "offline" in CONFIG["plugins"]


@pytest.mark.parametrize(
    ("here", "text", "expected", "wanted"),
    [
        ("README.md", "[a](docs/engine.md#x)", "[a](engine.md#x)", set()),
        ("docs/engine.md", "[a](tasks.md)", "[a](tasks.md)", set()),
        ("docs/engine.md", "[a](../LOG.md)", "[a](log.md)", set()),
        ("docs/engine.md", "[a](../Makefile)", "[a](files/Makefile.md)", {"Makefile"}),
        ("docs/lab.md", "[l]: ../src/fastslow/loop.py", "[l]: files/src/fastslow/loop.py.md", {"src/fastslow/loop.py"}),
        (
            "experiments/lab/README.md",
            "![p](plasticity.png) [d](../../docs/lab.md)",
            "![p](plasticity.png) [d](../../../lab.md)",
            {"experiments/lab/plasticity.png"},
        ),
        (
            "README.md",
            '<source media="(x)" srcset="docs/images/a.png">\n<img alt="b" src="docs/images/report.png">',
            '<source media="(x)" srcset="docs/images/a.png">\n<img alt="b" src="images/report.png">',
            set(),
        ),
        ("docs/recipes.md", "[a](../configs/paper)", "[a](files/configs/paper/index.md)", {"configs/paper"}),
        ("README.md", "[a](experiments/lab)", "[a](files/experiments/lab/README.md)", {"experiments/lab/README.md"}),
        ("README.md", "[a](https://x.org) [b](#c) [d](gone.md)", "[a](https://x.org) [b](#c) [d](gone.md)", set()),
        ("README.md", "`[a](LOG.md)`\n\n```\n[a](LOG.md)\n```\n[a](LOG.md)", None, set()),
    ],
)
def test_a_link_leads_to_a_page_of_the_site(here: str, text: str, expected: str | None, wanted: set[str]) -> None:
    found: set[str] = set()
    made = site.rewritten(text, here, found)
    assert found == wanted
    if expected is None:
        assert made == text.removesuffix("[a](LOG.md)") + "[a](log.md)", "code stays as it is"
    else:
        assert made == expected


def test_what_is_linked_is_a_page_a_listing_or_a_copy() -> None:
    made = site.generated()
    listing = made["files/src/fastslow/methods/fst.py.md"]
    assert listing.startswith("---\nsearch: {exclude: true}\n---\n\n# src/fastslow/methods/fst.py\n"), (
        "no search finds it"
    )
    assert made["files/experiments/lab/compare_amber.png"] == ROOT / "experiments/lab/compare_amber.png"
    assert "The lab: results" in made["files/experiments/lab/README.md"]
    assert "codeio.yaml" in made["files/configs/paper/index.md"]
    for place, page in made.items():
        if isinstance(page, str) and not place.endswith((".py.md", ".yaml.md")):
            here = Path(place).parent
            for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", site.FENCE.sub("", page)):
                there = (ROOT / "nowhere" / here / link).resolve().relative_to(ROOT / "nowhere").as_posix()
                assert there in made or (ROOT / "docs" / there).is_file(), f"{place}: {link}"


def test_the_reference_has_everything_that_can_be_imported() -> None:
    named = set(re.findall(r"^::: fastslow\.[\w.]+\.(\w+)$", site.api_page(), re.MULTILINE))
    assert named == set(fastslow.__all__)


def test_what_would_be_loaded_from_elsewhere_is_seen(tmp_path: Path) -> None:
    font, script = '<link rel="stylesheet" href="https://fonts.org/f.css">', "<script src=//cdn.org/x.js></script>"
    (tmp_path / "a.html").write_text(f'<a href="https://x.org">x</a>{font}{script}', encoding="utf-8")
    found = site.outside(tmp_path)
    assert ["fonts.org" in found[0], "cdn.org" in found[1], len(found)] == [True, True, 2]
