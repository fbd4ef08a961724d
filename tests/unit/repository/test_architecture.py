"""docs/architecture.md names every package, no other, in the order of `tools/structure.py`; pages name real files."""

import ast
import os
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = Path(os.environ.get("FASTSLOW_TREE", ROOT)) / "src" / "fastslow"
"""`FASTSLOW_TREE` checks the pages against another checkout."""
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMING_FILES = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/method.md")


def packages(root: Path) -> set[str]:
    """The directories with code, as the page writes them: `slow`, `slow/local`."""
    return {path.parent.relative_to(root).as_posix() for path in root.rglob("*.py")} - {"."}


def named(page: str) -> set[str]:
    """The packages that the tree of the page has."""
    return set(re.findall(r"^[│ ]*[├└]── (\S+)  ", page, re.MULTILINE))


def order(page: str) -> list[str]:
    """The rooms of the numbered list, in its order."""
    section = page.partition("## The order of the rooms")[2].partition("\n## ")[0]
    lines = re.findall(r"^\d+\. (.*)$", section, re.MULTILINE)
    return [name for line in lines for name in re.findall(r"`(\w+)`", line.partition(": every")[0])]


def layers(root: Path) -> list[str]:
    """`LAYERS`, read without running the tool."""
    tree = ast.parse((root / "tools" / "structure.py").read_text(encoding="utf-8"))
    tables: dict[str, ast.expr] = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }

    def names(value: ast.expr) -> list[str]:
        assert isinstance(value, ast.Tuple)
        found: list[str] = []
        for item in value.elts:
            if isinstance(item, ast.Starred) and isinstance(item.value, ast.Name):
                found += names(tables[item.value.id])
            else:
                found.append(ast.literal_eval(item))
        return found

    return names(tables["LAYERS"])


def test_every_package_is_named_on_the_page_and_exists() -> None:
    assert len(named(ARCHITECTURE)) > 10
    assert packages(PACKAGE) - named(ARCHITECTURE) == set(), "packages that the page leaves out"
    assert named(ARCHITECTURE) - packages(PACKAGE) == set(), "packages that do not exist"


def test_the_order_of_the_rooms_is_that_of_the_tool() -> None:
    assert order(ARCHITECTURE) == [name for name in layers(PACKAGE.parents[1]) if name != "__main__"]


def test_a_line_of_the_tree_is_read() -> None:
    assert named("├── a   x\n│   ├── a/b   y\n└── c   z\n") == {"a", "a/b", "c"}
    assert order("## The order of the rooms\n\n1. the ground: `a`, `b`\n2. `c`: every `x.py`\n## D\n1. `d`") == [
        "a",
        "b",
        "c",
    ]


def test_the_loop_of_the_readme_is_that_of_the_code() -> None:
    code = (PACKAGE / "methods" / "fst.py").read_text(encoding="utf-8")
    loop = textwrap.dedent(code[code.index("        while not session.finished:") :])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^```python\n(while .*?)^```", readme, re.DOTALL | re.MULTILINE) == [loop]


@pytest.mark.parametrize("page", NAMING_FILES)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"^\[[\w-]+\]: (?:\.\./)?src/fastslow/(\S+\.py)$", text, re.MULTILINE)
    in_words = [name.removeprefix("fastslow/") for name in re.findall(r"`([\w/]+/\w+\.py)\b", text)]
    names = [name for name in (*links, *in_words) if name.split("/")[0] not in ("tools", "benchmarks", "tests")]
    assert names
    assert [name for name in names if not (PACKAGE / name).is_file()] == []
