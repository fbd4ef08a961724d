"""docs/results.md and the README's table of claims, written from the stored results alone."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from fastslow.measuring.intervals import median_note
from fastslow.reproduce.claims import CLAIMS, Claim
from fastslow.reproduce.evidence import (
    FEW,
    HELD,
    LAB,
    LEAST_SEEDS,
    NOT_HELD,
    NOT_RUN,
    REAL,
    UNDECIDED,
    UNTESTABLE,
    Finding,
    places,
)
from fastslow.reproduce.sections import MODEL_ID, PUBLISHED
from fastslow.runs.directory import write_atomically
from fastslow.text import COLUMNS, markdown_table, wrapped

if TYPE_CHECKING:
    from fastslow.reproduce.sections import Plan

PAGE, README = Path("docs") / "results.md", Path("README.md")
BEGIN, END = "<!-- claims: begin (fastslow reproduce) -->", "<!-- claims: end -->"
SETTLED = (HELD, NOT_HELD, UNDECIDED)
ORDER = (HELD, NOT_HELD, UNDECIDED, UNTESTABLE, FEW, NOT_RUN)
SHORT = {
    HELD: "held",
    NOT_HELD: "not",
    UNDECIDED: "undecided",
    UNTESTABLE: "untestable",
    FEW: "few",
    NOT_RUN: "not run",
}
"""Verdicts in the README's table, behind which stands on how many tasks."""
READ_SO = {
    "letter_counting": "FST's policy has learned one answer to every problem, `1`, which is the most frequent one. Its "
    "accuracy is how often that is right. The verdicts below compare accuracies, and do not see it."
}
"""What must be known of a task's results to read them."""
QUICK = (
    "**This is a quick run**: small runs of few seeds, which show that everything runs from beginning to end. Its "
    "numbers and verdicts mean nothing."
)
SCALE = (
    "The paper's own domains (HoVer-hard, CodeIO, Physics, Math, the star graph of 500 nodes) with models of 4 and 8 "
    "billion parameters: what is measured here runs on CPU cores. [Recipes](recipes.md) has a config for each.",
    "A reflection LM as strong as gpt-5.2: here the lesson proposer adds the verifier's most frequent lesson, or the "
    "policy itself reflects.",
    "The cost of a run in H100-hours and dollars.",
)


def write_pages(plan: "Plan") -> list[Path]:
    """Write the page of what is there, and for the published results the README's table; the files written."""
    published = plan.results == PUBLISHED and PAGE.parent.is_dir()
    page = PAGE if published else plan.results / "results.md"
    wanted = {page: results_page(plan.results, page, quick=plan.quick)}
    if published and README.is_file():
        wanted[README] = with_claims(README.read_text(encoding="utf-8"), plan.results)
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return list(wanted)


def results_page(results: Path, page: Path, *, quick: bool = False) -> str:
    """The whole page. Links are relative to where it lies."""
    found = [(claim, claim.look(results)) for claim in CLAIMS]
    seeds = [len(curves) for place in places(results) for curves in place.runs.values() if curves]
    shown = [] if quick else [place.task for place in places(results) if place.curves("fst")]
    title = "Results: a quick run" if quick else "Results: the paper's claims, and what was found here"
    lines = [
        f"# {title}",
        "",
        "<!-- Written by `fastslow reproduce` from the stored results: run it, do not change this page. -->",
        "",
        *([QUICK, ""] if quick else []),
        "Each claim of the paper (arXiv 2605.12484) stands beside what was found here, in the lab and on a real model, "
        "task by task. The lab is [a small world](lab.md) with a model of 1.8 M parameters. The real model is "
        f"{MODEL_ID} with LoRA.",
        "",
        *_rules(seeds),
        *(line for place in shown for line in ([f"{place}: {READ_SO[place]}", ""] if place in READ_SO else [])),
        "## In short",
        "",
        *_told_in_words(found),
        *(line for claim, findings in found for line in _section(claim, findings, page)),
        "## What could not be tested here",
        "",
        *(_item(text) for text in SCALE),
        "",
        *_links([finding for _, findings in found for finding in findings], page),
    ]
    text = "\n".join(wrapped("\n".join(lines).split("\n"))).rstrip() + "\n"
    # The quick page lies elsewhere: pages of the documentation are named, not linked.
    return (
        text if page.parent.name == PAGE.parent.name else text.replace("](lab.md)", "]").replace("](recipes.md)", "]")
    )


def with_claims(readme: str, results: Path) -> str:
    """The README with its table of claims as the stored results have it. A README without the marks stays as it is."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return readme
    rows = [
        [
            claim.short,
            *(_counted([each for each in claim.look(results) if each.world == world]) for world in (LAB, REAL)),
        ]
        for claim in CLAIMS
    ]
    table = markdown_table(["claim", "in the lab", "on the real model"], rows)
    return "\n".join([before + BEGIN, "", *table, END]) + after


def _rules(seeds: Sequence[int]) -> list[str]:
    note = fill(median_note(seeds), COLUMNS - 2)
    return [
        "A verdict is computed: two methods are compared seed by seed, and the median of that has brackets. "
        f"**{HELD}**: the whole bracket is on the claim's side. **{NOT_HELD}**: the whole bracket is on the other "
        f"side, or there is no difference. **{UNDECIDED}**: the bracket is on both sides. **{UNTESTABLE}**: the runs "
        f"cannot say. Fewer than {LEAST_SEEDS} seeds have no verdict, and **{NOT_RUN}** is what it says. Numbers are "
        "medians over seeds.",
        "",
        note,
        "",
    ]


def _counted(findings: Sequence[Finding]) -> str:
    """On how many tasks a claim has which verdict."""
    found = {verdict: sum(each.verdict == verdict for each in findings) for verdict in ORDER}
    told = {verdict: count for verdict, count in found.items() if count}
    if len(told) == 1:
        ((verdict, count),) = told.items()
        return f"{SHORT[verdict]} on {f'all {count}' if count > 1 else 'one'}" if verdict in SETTLED else verdict
    return ", ".join(f"{SHORT[verdict]} {count}" for verdict, count in told.items()) or "-"


def _told_in_words(found: Iterable[tuple[Claim, Sequence[Finding]]]) -> list[str]:
    """Every claim in a line: which places have which verdict."""
    lines = []
    for claim, findings in found:
        worlds = []
        for world in (LAB, REAL):
            mine = [finding for finding in findings if finding.world == world]
            if not mine:
                continue
            by_verdict = {verdict: [each.place for each in mine if each.verdict == verdict] for verdict in ORDER}
            told = [f"**{verdict}** ({', '.join(named)})" for verdict, named in by_verdict.items() if named]
            only = len(told) == 1 and mine[0].verdict in (NOT_RUN, UNTESTABLE)
            where = "in the lab" if world == LAB else "on the real model"
            worlds.append(f"{where} " + (f"**{mine[0].verdict}**" if only else ", ".join(told)))
        lines.append(_item(f"{claim.name}: {'; '.join(worlds)}."))
    return [*lines, ""]


def _item(text: str) -> str:
    return fill(f"- {text}", COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _section(claim: Claim, findings: Sequence[Finding], page: Path) -> list[str]:
    paper = [f"The paper: {claim.paper}", ""] if claim.paper else ["Not a claim of the paper.", ""]
    rows = [
        [
            f"{finding.world}: {_named(finding)}",
            str(finding.seeds or "-"),
            *finding.cells,
            f"{finding.verdict}: {finding.why}" if finding.why else finding.verdict,
        ]
        for finding in findings
    ]
    return [
        f"## {claim.name}",
        "",
        *paper,
        f"Held where this is so. {claim.rule}",
        "",
        *markdown_table(["where", "seeds", *claim.columns, "verdict"], rows),
    ]


def _named(finding: Finding) -> str:
    """The place with a link to its table, where there is one."""
    if not finding.page.is_file():
        return finding.place
    name = _reference(finding.page)
    return f"[{name}]" if name == finding.place else f"[{finding.place}][{name}]"


def _reference(page: Path) -> str:
    """The name of the link to a page: that of the directory it lies in."""
    return page.parent.name


def _links(findings: Iterable[Finding], page: Path) -> list[str]:
    there = dict.fromkeys(finding.page for finding in findings if finding.page.is_file())
    return [f"[{_reference(each)}]: {Path(os.path.relpath(each, page.parent)).as_posix()}" for each in there]
