"""`fastslow reproduce`: runs what is missing, section by section, then writes the tables and the verdicts on claims."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastslow.errors import ConfigError, positive

if TYPE_CHECKING:  # numpy stays out of --help
    from fastslow.experiments.records import Line
    from fastslow.reproduce.sections import Plan, Section

QUICK_RUNS = Path("runs") / "quick"


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of `fastslow reproduce`."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="sections or groups of them, such as lab or real_model/json (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="show what is there, what is missing and how long it takes")
    parser.add_argument(
        "--quick", action="store_true", help="small runs of one seed in runs/quick: a test of the chain"
    )
    parser.add_argument(
        "--seeds", type=int, help="of every section but the searches (default: its own number; with --quick 1)"
    )
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one core each (default: 2)")
    parser.add_argument("--model", metavar="DIR", help="where the real model lies (default: where its configs say)")
    parser.add_argument("--output", type=Path, help="where the runs lie (default: runs; with --quick runs/quick)")
    parser.add_argument(
        "--results", type=Path, help="where results are written (default: experiments; with --quick OUTPUT/results)"
    )
    parser.add_argument("--report", action="store_true", help="only write tables and plots from the results so far")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from fastslow.reproduce.sections import MODEL, PUBLISHED, Plan, chosen

    runs = options.output or (QUICK_RUNS if options.quick else Path("runs"))
    results = options.results or (runs / "results" if options.quick else PUBLISHED)
    seeds = None if options.seeds is None else positive("--seeds", options.seeds)
    workers = positive("--workers", options.workers)
    plan = Plan(runs, results, seeds, workers, options.model or MODEL, options.quick)
    if options.quick and results.resolve() == PUBLISHED.resolve():
        raise ConfigError(f"--results: {str(results)!r} has the published results, which --quick never writes to")
    sections = chosen(options.names, plan)
    if options.list:
        show(sections, plan)
        return 0
    return reproduce(sections, plan, report_only=options.report, strict=bool(options.names))


def reproduce(sections: "Sequence[Section]", plan: "Plan", *, report_only: bool = False, strict: bool = False) -> int:
    """Run what is missing of the sections, or only write their pages; then the page about the paper's
    claims. What cannot be run here is skipped with a word, unless nothing of it is missing; `strict`: it is
    an error before anything runs.

    Raises: ConfigError as said; FastslowError when runs failed.
    """
    from fastslow.experiments.plots import check_plots
    from fastslow.reproduce.page import write_pages
    from fastslow.reproduce.sections import missing_needs

    check_plots()
    needs = {each.name: missing_needs(each, plan) for each in sections}
    complete = {each.name for each in sections if lines_of(each, plan).keys() >= set(each.runs(plan))}
    for name, why in needs.items() if strict and not report_only else ():
        if why and name not in complete:
            raise ConfigError(f"{name}: {why}")
    for section in sections:
        why = needs[section.name]
        if report_only or (why and section.name in complete):
            if section.file(plan).is_file():
                section.report(plan)
        elif why:
            print(f"{section.name}: skipped: {why}", flush=True)
        else:
            print(f"{section.name}: {section.about}", flush=True)
            section.run(plan)
    for path in write_pages(plan):
        print(f"wrote {path}")
    return 0


# -- what is there -----------------------------------------------------------------------------------------------------


def show(sections: "Sequence[Section]", plan: "Plan") -> None:
    """A table of the sections: runs that are there and that are missing, time for these, and what they need."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fastslow.reproduce.sections import missing_needs
    from fastslow.text import duration

    table, total = Table(box=None, pad_edge=False), 0.0
    notes: dict[str, None] = {}
    for name in ("section", "runs there", "missing", "time", "needs"):
        table.add_column(name, justify="left" if name in ("section", "needs") else "right", no_wrap=True)
    for section in sections:
        runs, lines = section.runs(plan), lines_of(section, plan)
        seconds, guessed = time_left(section, plan, lines)
        missing, why = sum(run not in lines for run in runs), missing_needs(section, plan)
        total += seconds
        time = f"{duration(seconds)}{' (guess)' if guessed else ''}" if missing else "-"
        needs = "" if not missing else "see below" if why else "the model" if section.needs_model else ""
        notes |= {why: None} if missing and why else {}
        table.add_row(section.name, str(len(runs) - missing), str(missing or "-"), time, needs)
    console = Console()
    console.print(table)
    words = "nothing is missing" if not total else f"about {duration(total)} in all, {plan.workers} runs side by side"
    for text in (*notes, f"{words}; results in {plan.results}, runs in {plan.runs}"):
        console.print(Text(f"\n{text}"), soft_wrap=True)


def lines_of(section: "Section", plan: "Plan") -> dict[str, "Line"]:
    """The lines of a section's runs that have ended, by the name of the run."""
    from fastslow.runs.files import read_lines

    return {line["part"]: line for line in read_lines(section.file(plan))}


def time_left(section: "Section", plan: "Plan", lines: "dict[str, Line]") -> tuple[float, bool]:
    """Seconds for the runs that are missing, side by side;
    and whether none has been recorded that they are estimated by.

    A run takes the median of those that differ from it in the seed alone, or else of all in the section: training
    seconds and those of its evaluations. What is measured on the test split afterwards is not recorded.
    """
    import statistics

    took: dict[str, list[float]] = {}
    for name, line in lines.items():
        seconds = line["totals"]["seconds"] + line["totals"]["evaluate_s"]
        took.setdefault(_without_seed(name), []).append(seconds)
    default = section.quick_s if plan.quick else section.run_s
    usual = statistics.median([each for values in took.values() for each in values]) if took else default
    missing = [name for name in section.runs(plan) if name not in lines]
    left = sum(statistics.median(took.get(_without_seed(name), [usual])) for name in missing)
    return left / min(plan.workers, max(len(missing), 1)), not took


def _without_seed(run: str) -> str:
    return re.sub(r"-\d+(?=(-phase-\d+)?$)", "", run, count=1)
