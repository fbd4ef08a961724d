"""What people install: the wheel has what its messages name, and its description leads nowhere that is not there."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from trove_classifiers import classifiers

import fastslow
from fastslow.cli.docs import find
from fastslow.cli.main import build_parser, main
from fastslow.config import load_config
from fastslow.errors import ConfigError
from fastslow.resources import pages

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "src" / "fastslow").rglob("*.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def metadata(wheel: zipfile.ZipFile) -> tuple[HeaderParser, str]:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    found = HeaderParser().parsestr(wheel.read(name).decode())
    return found, found.get_payload()  # type: ignore[return-value]


def links(markdown: str) -> list[str]:
    """Where the links and pictures of a rendered page lead."""
    found = []
    for block in MarkdownIt("commonmark").enable("table").parse(markdown):
        for token in (block, *(block.children or ())):
            found += [str(token.attrs[name]) for name in ("href", "src") if name in token.attrs]
            if token.type in ("html_block", "html_inline"):
                found += re.findall(r'\b(?:href|src|srcset)="([^"]*)"', token.content)
    return found


def test_the_description_has_no_link_that_an_index_cannot_follow(wheel: zipfile.ZipFile) -> None:
    _, text = metadata(wheel)
    assert "# fastslow" in text and "(`fastslow docs tasks`)" in text
    found = links(text)
    assert "https://github.com/gepa-ai/gepa" in found
    assert [link for link in found if not link.startswith("https://")] == []
    assert not re.search(r"\]\[[\w-]+\]|^\[[\w-]+\]: ", text, re.MULTILINE), "a reference without its definition"
    assert [
        page for page in re.findall(r"`fastslow docs ([\w-]+)`", text) if not (ROOT / f"docs/{page}.md").is_file()
    ] == []


def test_links_of_a_page_are_seen() -> None:
    page = "[a](docs/x.md) ![b](y.png) [c][d]\n\n| e |\n|---|\n| [f](z) |\n\n[d]: w.md\n"
    assert links(page) == ["docs/x.md", "y.png", "w.md", "z"]
    assert links('<p>\n<source srcset="v.png">\n</p>\n') == ["v.png"]
    assert links('a <img alt="b" src="c.png"> d') == ["c.png"]


def test_the_wheel_has_what_its_messages_name(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    named = set(re.findall(r"\b(?:docs|configs)/[\w/-]+\.(?:md|yaml)\b", text)) - {"docs/x.md"}
    assert "docs/engine.md" in named
    assert {name for name in named if f"fastslow/shipped/{name}" not in names} == set()
    assert {"fastslow/py.typed", "fastslow/lab/model/model.safetensors", "fastslow/report/assets/page.html"} <= names
    tracked = subprocess.run(["git", "ls-files", "src/fastslow"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.removeprefix("src/") for name in tracked.stdout.split()} <= names


def told(path: Path) -> list[str]:
    """The texts of a file's code, docstrings left out: what people may be told."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in lone)
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_message_names_a_file_that_only_a_checkout_has(wheel: zipfile.ZipFile) -> None:
    files = re.compile(r"\b(?:tools|benchmarks|tests|src)/[\w/-]+|\b(?:CONTRIBUTING|LOG|SECURITY|CHANGELOG)\.md")
    assert files.findall("python tools/x.py, see CONTRIBUTING.md") == ["tools/x", "CONTRIBUTING.md"]
    assert {path.name: found for path in SOURCES for text in told(path) if (found := files.findall(text))} == {}
    texts = "\n".join(text for path in SOURCES for text in told(path))
    modules = re.findall(r"python -m (fastslow[\w.]*)", texts)
    assert "fastslow.tasks.codeio_pairs" in modules
    assert {f"{name.replace('.', '/')}.py" for name in modules} <= set(wheel.namelist())


def test_the_extras_that_messages_name_exist_and_a_page_says_what_each_brings(wheel: zipfile.ZipFile) -> None:
    extras = set(PROJECT["optional-dependencies"])
    text = "".join(path.read_text(encoding="utf-8") for path in (*SOURCES, *(ROOT / "docs").glob("*.md")))
    named = {name for found in re.findall(r"fastslow\[([\w,]+)\]", text) for name in found.split(",")} - {"NAME"}
    assert {"tasks", "litellm"} <= named <= extras
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == extras
    head, _ = metadata(wheel)
    assert set(head.get_all("Provides-Extra", [])) == extras  # type: ignore[attr-defined]


def test_the_classifiers_are_ones_that_an_index_takes() -> None:
    assert set(PROJECT["classifiers"]) <= set(classifiers)


def test_every_place_that_has_a_version_has_the_same(
    wheel: zipfile.ZipFile, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _ = metadata(wheel)
    assert head["Version"] == fastslow.__version__  # type: ignore[index]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == fastslow.__version__
    assert fastslow.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fastslow {fastslow.__version__}\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fastslow", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"fastslow {fastslow.__version__}\n"


# -- fastslow docs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("engine", "docs/engine.md"),
        ("docs/engine.md", "docs/engine.md"),
        ("configs/paper/math.yaml", "configs/paper/math.yaml"),
        ("star_graph", "configs/paper/star_graph.yaml"),
    ],
)
def test_a_page_is_found_as_messages_name_it(name: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", name]) == 0
    assert capsys.readouterr().out == (ROOT / file).read_text(encoding="utf-8")


def test_pages_are_listed_and_a_name_that_is_none_says_which_come_close(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs"]) == 0
    listed = capsys.readouterr().out
    assert len(listed.splitlines()) == len(pages()) > 20
    assert re.search(r"^docs/engine.md +\S+", listed, re.MULTILINE)
    with pytest.raises(ConfigError, match=r"there is no 'engin'\. Did you mean docs/engine\.md"):
        find("engin")
    with pytest.raises(ConfigError):
        find("../../pyproject.toml")


def test_a_config_that_only_the_package_has_is_told_how_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist: .* fastslow docs configs/paper/math.yaml > math.yaml"):
        load_config("configs/paper/math.yaml")
    with pytest.raises(ConfigError, match="does not exist: give the path of a YAML file"):
        load_config("configs/paper/none.yaml")


# -- completion --------------------------------------------------------------------------------------------------------

COMPLETE = """
source {script}
COMP_WORDS=({words} '{last}')
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_fastslow
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ("fastslow", "ev", {"evaluate"}),
        ("fastslow", "", {"train", "serve", "tasks", "docs"}),
        ("fastslow serve", "--api", {"--api-key-env"}),
        ("fastslow evaluate --split", "va", {"validation"}),
        ("fastslow lab", "re", {"reproduce"}),
    ],
)
def test_a_shell_completes_commands_options_and_choices(
    words: str, last: str, expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--print-completion", "bash"])
    assert ended.value.code == 0
    script = tmp_path / "fastslow"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    code = COMPLETE.format(script=script, words=words, last=last)
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    found = set(done.stdout.split())
    assert expected <= found, done.stderr
    if last:
        assert all(each.startswith(last) for each in found)
