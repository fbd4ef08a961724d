"""The pages that are written from declarations are fresh, and what the README shows works."""

import ast
import importlib.util
import inspect
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import build_parser
from fastslow.config import parse_config, read_yaml
from fastslow.config.options import parts
from fastslow.runs.metrics import METRICS
from fastslow.tasks.registry import find_factory

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
_SPEC = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
assert _SPEC is not None and _SPEC.loader is not None
write_docs: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(write_docs)
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONS = [option for part in parts() for option in part.options]


@pytest.mark.parametrize(
    "page", ["docs/config.md", "docs/glossary.md", "docs/run-directory.md", "docs/results.md", "README.md"]
)
def test_a_written_page_is_as_fresh_as_what_it_is_written_from(page: str) -> None:
    text = write_docs.pages()[write_docs.ROOT / page]
    assert (ROOT / page).read_text(encoding="utf-8") == text, "run python tools/write_docs.py"


def test_every_option_has_a_meaning_a_unit_and_a_source() -> None:
    assert "fast.proposer.kind" in [option.key for option in OPTIONS]
    assert [option.key for option in OPTIONS if not (option.meaning and option.unit and option.source)] == []


def test_every_metric_has_a_meaning_a_unit_and_a_source() -> None:
    assert "val/<task>/own/mean@k" in [metric.name for metric in METRICS]
    assert [metric.name for metric in METRICS if not (metric.meaning and metric.unit and metric.source)] == []


def test_the_written_pages_have_every_option_and_every_metric_once() -> None:
    keys, metrics = [option.key for option in OPTIONS], [metric.name for metric in METRICS]
    assert sorted(row[0].strip("`") for row in rows_of("config.md") if "." in row[0] and row[0].strip("`") in keys) == (
        sorted(key for key in keys if "." in key)
    )
    assert sorted(row[0].strip("`") for row in rows_of("glossary.md")) == sorted([*keys, *metrics])
    assert sorted(row[0].strip("`") for row in rows_of("run-directory.md")) == sorted(metrics)


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of a page's tables, header rows left out."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rules = [index for index, row in enumerate(rows) if set("".join(row)) <= set("-:")]
    return [row for index, row in enumerate(rows) if index not in rules and index + 1 not in rules]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def definitions() -> dict[str, set[str]]:
    """By file of the package, what is defined there: functions, classes, their methods and fields,
    `Class.member` and alone.
    """
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src" / "fastslow").rglob("*.py")):
        names = found.setdefault(path.relative_to(ROOT / "src" / "fastslow").as_posix(), set())
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            members = node.body if isinstance(node, ast.ClassDef) else []
            for member in members:
                name = getattr(member, "name", None) or getattr(getattr(member, "target", None), "id", None)
                if name is not None:
                    names |= {name, f"{getattr(node, 'name', '')}.{name}"}
    return found


def undefined(code: str) -> list[str]:
    """What a cell of the method page names and the code does not define: in the file that it says, or else anywhere."""
    missing: list[str] = []
    waiting: list[str] = []
    for name in names_in(code):
        if not name.endswith(".py"):
            waiting.append(name)
        elif name not in definitions():
            missing.append(name)
        else:
            missing += [f"{other} in {name}" for other in waiting if other not in definitions()[name]]
            waiting = []
    everywhere = {"gepa"}.union(*definitions().values())
    return missing + [name for name in waiting if name not in everywhere]


METHOD_KEYS = {
    *(option.key for option in OPTIONS),
    "fast.*",
    "fast.proposer.*",
    "slow.*",
    "sampling.*",
    "evaluation.*",
    "task.options.steps",
}


@pytest.mark.parametrize(("paper", "code", "keys", "departures"), rows_of("method.md"))
def test_what_the_method_page_names_is_in_the_code(paper: str, code: str, keys: str, departures: str) -> None:
    assert paper and departures
    assert undefined(code) == []
    assert [key for key in names_in(keys) if key not in METHOD_KEYS] == []


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("`union` in [`training/curriculum.py`](x), `Task.seed_prompt`", []),
        ("`union` in [`training/session.py`](x)", ["union in training/session.py"]),
        ("`Task.union`, `gone` in `gone.py`", ["gone.py", "Task.union", "gone"]),
        ("`Curriculum.train`", ["Curriculum.train"]),
    ],
)
def test_a_name_that_moved_or_went_is_seen(code: str, missing: list[str]) -> None:
    assert undefined(code) == missing


def test_the_config_of_the_readme_is_a_config() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    config = parse_config(read_yaml(block))
    assert config.task.options.keys() <= inspect.signature(find_factory(config.task.name)).parameters.keys()


def test_every_command_of_the_readme_and_the_docs_can_be_given() -> None:
    texts = [README, *(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))]
    commands = [line for text in texts for line in re.findall(r"^fastslow .*$", text, re.MULTILINE)]
    assert len(commands) >= 10
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        if not words[0].startswith("--"):  # --version and its like end the program
            assert callable(build_parser().parse_args(words).run)


def test_every_page_that_is_linked_exists() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_words_that_troubleshooting_explains_are_those_of_messages() -> None:
    words = [row[0].strip("`") for row in rows_of("troubleshooting.md")]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "fastslow").rglob("*.py"))
    # A message may be cut into two literals where a line ends.
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    assert len(words) > 8
    assert [each for each in words if each not in joined] == []
