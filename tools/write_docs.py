"""Writes the pages that say what each key and each metric means, from where they are declared.

    python tools/write_docs.py

docs/config.md and docs/glossary.md are written whole; of docs/run-directory.md the tables between the two marks. So are
docs/results.md and the README's table of claims, from the results in experiments/.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill, wrap

from fastslow.config.options import Option, Part, parts
from fastslow.reproduce.page import results_page, with_claims
from fastslow.runs.metric import Metric
from fastslow.runs.metrics import METRICS
from fastslow.text import markdown_table

ROOT = Path(__file__).parents[1]
DOCS, README, RESULTS = ROOT / "docs", ROOT / "README.md", ROOT / "experiments"
COLUMNS = 120
BEGIN, END = "<!-- metrics: begin (tools/write_docs.py) -->", "<!-- metrics: end -->"
WRITTEN = "<!-- Written by tools/write_docs.py: change the declarations, not this page. -->"
GROUPS = {
    "": "where the run stands",
    "reward": "rewards",
    "rollouts": "rollouts",
    "episodes": "episodes of several turns",
    "fast": "the search for prompts",
    "slow": "the update of the weights",
    "val": "validation",
    "kl": "the KL to the base",
    "time": "time",
}


def config_page() -> str:
    """docs/config.md."""
    lines = [
        "# Configuration",
        "",
        WRITTEN,
        "",
        *_text(
            "A run is one YAML file. Every key is checked before any model loads. An unknown key is an error, and so "
            "is a key that stands twice: both lines are named. Numbers that YAML reads otherwise than they look "
            "(`010`, `1:30`) are refused; `1e-6` is a number. `--set key.path=value` overrides one key. `--dry-run` "
            "explains what the config means."
        ),
        *_text(
            "Defaults are the paper's (arXiv 2605.12484) where it gives one. *ours* marks what fills a gap that it "
            "leaves open. A default of `none` is `null` in YAML. [glossary.md](glossary.md) has units and sources."
        ),
    ]
    for part in parts():
        lines += [*_head(part), *_kinds(part)]
        for only_for, options in groupby(sorted(part.options, key=lambda each: each.only_for), lambda o: o.only_for):
            chosen = list(options)
            if only_for:
                lines += [f"With {_words(part, only_for)} alone:", ""]
            rows = [[f"`{o.key}`", _default(o), o.meaning, "*ours*" if "ours" in o.source else ""] for o in chosen]
            lines += markdown_table(["key", "default", "meaning", ""], rows)
            lines += _more((o.key, o.more) for o in chosen)
    return "\n".join(lines).rstrip() + "\n"


def glossary_page() -> str:
    """docs/glossary.md."""
    lines = [
        "# Glossary: units and sources",
        "",
        WRITTEN,
        "",
        *_text(
            "[config.md](config.md) says what each key means, [run-directory.md](run-directory.md#metricsjsonl) what "
            "each metric means. Here is the unit of each, and where its default or its definition comes from."
        ),
        *_text(
            "*ours* is what the paper leaves open. Numbers are sections of the paper (arXiv 2605.12484). *settings* is "
            "its table of settings for each domain, which [the recipes](recipes.md) follow."
        ),
        "## Config keys",
        "",
    ]
    for part in parts():
        if part.options:
            lines += [f"### {_name(part)}", ""]
            lines += markdown_table(["key", "unit", "source"], ([f"`{o.key}`", o.unit, o.source] for o in part.options))
    lines += ["## Metrics", "", *_text("The third column says how the values of several steps become one.")]
    for group, metrics in _groups():
        rows = [[f"`{each.name}`", each.unit, each.merge.value, each.source] for each in metrics]
        lines += [
            f"### {GROUPS[group][0].upper()}{GROUPS[group][1:]}",
            "",
            *markdown_table(["metric", "unit", "steps", "source"], rows),
        ]
    return "\n".join(lines).rstrip() + "\n"


def metric_tables() -> str:
    """What stands between the marks of docs/run-directory.md."""
    lines = [BEGIN, ""]
    for group, metrics in _groups():
        lines += [f"### {GROUPS[group][0].upper()}{GROUPS[group][1:]}", ""]
        lines += markdown_table(["name", "meaning"], ([f"`{each.name}`", each.meaning] for each in metrics))
        lines += _more((each.name, each.more) for each in metrics)
    return "\n".join([*lines, END])


def pages() -> dict[Path, str]:
    """Every page that is written, and its text."""
    path = DOCS / "run-directory.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        DOCS / "config.md": config_page(),
        DOCS / "glossary.md": glossary_page(),
        path: before + metric_tables() + after,
        DOCS / "results.md": results_page(RESULTS, DOCS / "results.md"),
        README: with_claims(README.read_text(encoding="utf-8"), RESULTS),
    }


def _groups() -> list[tuple[str, list[Metric]]]:
    return [(group, [m for m in METRICS if (m.group if "/" in m.name else "") == group]) for group in GROUPS]


def _name(part: Part) -> str:
    return part.key or "The run"


def _head(part: Part) -> list[str]:
    return [f"## {_name(part)}", "", *_text(part.about)]


def _kinds(part: Part) -> list[str]:
    rows = [[f"`{tag}`", about] for tag, about in part.kinds]
    return markdown_table([f"`{part.key}.{part.kind_key}`", "what it is"], rows) if rows else []


def _words(part: Part, only_for: Sequence[str]) -> str:
    *first, last = [f"`{kind}`" for kind in only_for]
    return f"`{part.kind_key}` {' or '.join(filter(None, (', '.join(first), last)))}"


def _default(option: Option) -> str:
    if not option.default:
        return "must be given"
    return f"`{option.default}`".replace("e-0", "e-")


def _more(texts: Iterable[tuple[str, str]]) -> list[str]:
    items = [f"- `{name}`: {text[0].upper() + text[1:]}" for name, text in texts if text]
    return [line for item in items for line in wrap(item, COLUMNS, subsequent_indent="  ", **WRAP)] + [""] * bool(items)


WRAP = {"break_long_words": False, "break_on_hyphens": False}


def _text(text: str) -> list[str]:
    return [fill(text, COLUMNS, **WRAP), ""]


def main() -> int:
    """Write what is not as it should be."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for path, text in pages().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
