"""The pages can be read in a narrow window, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from fastslow.text import wrapped

ROOT = Path(__file__).parents[3]
COLUMNS = 120
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / name for name in ("README.md", "LOG.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "experiments" / "lab" / "README.md",
        ROOT / "experiments" / "agents" / "README.md",
        ROOT / "experiments" / "format_rules" / "README.md",
        ROOT / "experiments" / "format_rules" / "results" / "README.md",
    )
)
# Pages that still have longer lines. Take a page out when its lines are short; add none.
EXEMPT: set[str] = set()


def too_long(text: str) -> list[str]:
    return [f"{number}: {line}" for number, line in enumerate(text.splitlines(), 1) if len(line) > COLUMNS]


def undefined_references(text: str) -> list[str]:
    """Names of reference links (`[words][name]`) that the page does not define."""
    defined = set(re.findall(r"^\[([\w-]+)\]: \S+$", text, re.MULTILINE))
    return [name for name in re.findall(r"\]\[([\w-]+)\]", text) if name not in defined]


def dead_links(page: Path) -> list[str]:
    """Inline links and pictures that lead to files that do not exist."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    links += re.findall(r'<(?:img|source)\b[^>]*?\bsrc(?:set)?="(?!https?:)([^"]+)"', text)
    return [link for link in links if not (page.parent / link).exists()]


def test_a_long_line_is_seen() -> None:
    assert too_long("x" * COLUMNS + "\n" + "y" * (COLUMNS + 1)) == ["2: " + "y" * (COLUMNS + 1)]


def test_prose_of_written_pages_is_cut_and_tables_are_not() -> None:
    prose, row, heading = "word " * 40, "| " + "cell " * 40 + "|", "## " + "x" * 130
    lines = wrapped([prose, "", row, heading])
    assert lines == ["word " * 23 + "word", "word " * 15 + "word", "", row, heading]


def test_a_reference_without_a_definition_is_seen() -> None:
    assert undefined_references("[a][here] and [b][gone]\n\n[here]: x.md") == ["gone"]


def test_a_link_and_a_picture_that_lead_nowhere_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('[a](gone.md) [b](page.md)\n<source media="x" srcset="dark.png">\n<img alt="c" src="light.png">\n')
    assert dead_links(page) == ["gone.md", "dark.png", "light.png"]


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_above_120_columns(page: str) -> None:
    long = too_long((ROOT / page).read_text(encoding="utf-8"))
    if page in EXEMPT:
        assert long, f"{page} has no long line any more: take it out of EXEMPT"
    else:
        assert long == []


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    assert dead_links(ROOT / page) == []
    assert undefined_references((ROOT / page).read_text(encoding="utf-8")) == []
