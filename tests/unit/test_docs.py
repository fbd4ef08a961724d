"""The documentation names every option and every metric, and what the README shows works."""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from fastslow.cli import build_parser
from fastslow.config import Config, parse_config, read_yaml
from fastslow.loop import train
from fastslow.tasks.registry import find_factory

from runs import metrics_of, small_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def options(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        sections = [a for a in inner if issubclass(a, BaseModel)]
        if sections:
            yield from options(sections[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_option_is_documented() -> None:
    text = (DOCS / "config.md").read_text(encoding="utf-8")
    listed = list(options(Config))
    assert "fast.proposer.kind" in listed
    assert [name for name in listed if f"`{name}`" not in text] == []


def test_every_metric_is_documented(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(small_config(tiny_model_dir, tmp_path / "run", steps=3))
    text = (DOCS / "run-directory.md").read_text(encoding="utf-8")
    names = {name.replace("@2", "@k") for line in metrics_of(tmp_path / "run") for name in line}
    assert "val/mean@k" in names
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of a page's tables, header rows left out."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rules = [index for index, row in enumerate(rows) if set("".join(row)) <= set("-:")]
    return [row for index, row in enumerate(rows) if index not in rules and index + 1 not in rules]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_glossary_has_every_option_and_metric_with_unit_and_source() -> None:
    metrics = [name for row in rows_of("run-directory.md") for name in names_in(row[0])]
    assert "usd_total" in metrics
    rows = rows_of("glossary.md")
    listed = [name for row in rows for name in names_in(row[0])]
    assert sorted(listed) == sorted([*options(Config), *metrics])
    assert [row for row in rows if len(row) != 3 or not all(row)] == []


def test_what_the_method_page_names_is_in_the_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    known = {
        *options(Config),
        "fast.*",
        "fast.proposer.*",
        "slow.*",
        "sampling.*",
        "evaluation.*",
        "task.options.steps",
    }
    rows = rows_of("method.md")
    assert len(rows) > 20
    for _, code, keys, _ in rows:
        names = [name for name in names_in(code) if "/" not in name and not name.endswith(".py")]
        missing = [part for name in names for part in name.split(".") if not re.search(rf"\b{part}\b", source)]
        assert missing == [], missing
        assert [key for key in names_in(keys) if key not in known] == []


def test_the_config_of_the_readme_is_a_config() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    config = parse_config(read_yaml(block))
    assert config.task.options.keys() <= inspect.signature(find_factory(config.task.name)).parameters.keys()


def test_every_command_of_the_readme_and_the_docs_can_be_given() -> None:
    texts = [README, *(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))]
    commands = [line for text in texts for line in re.findall(r"^fastslow .*$", text, re.MULTILINE)]
    assert len(commands) >= 10
    for command in commands:
        options = build_parser().parse_args(shlex.split(command, comments=True)[1:])
        assert callable(options.run)


def test_every_page_that_is_linked_exists() -> None:
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
