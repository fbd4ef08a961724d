"""The documentation names every option and every metric."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from fastslow.config import Config
from fastslow.loop import train

from runs import metrics_of, small_config

DOCS = Path(__file__).parents[2] / "docs"


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
