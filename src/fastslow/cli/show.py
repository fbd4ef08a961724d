"""What the commands `evaluate` and `prompts` print. Model text is printed as text, never as terminal markup."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fastslow.errors import ConfigError
from fastslow.measuring.evaluate import EvaluationReport
from fastslow.runs import metrics as m
from fastslow.runs.family import Member, family, roots
from fastslow.runs.needed import needed_population
from fastslow.runs.reader import Run, merged
from fastslow.text import printable, storable
from fastslow.types import Prompt

PREVIEW = 100
MOST_ROWS, MOST_LEVELS = 1000, 10
"""Of a table or a tree that is laid out by its contents, and of a tree before it goes on in a new one."""
LEGEND = "* in the population. + and - are lines against the parent."


def evaluation(report: EvaluationReport) -> None:
    """A table with one row a prompt."""
    console = Console()
    first = report.rows[0].result
    results = [row.result for row in report.rows]
    console.print(
        _text(
            f"{report.target}, {report.weights} weights, {report.task}, {report.split}: {first.problems} problems, "
            f"temperature {report.temperature:g}, top-p {report.top_p:g}, 95 % intervals over problems"
        )
    )
    with_kl = any(row.kl is not None for row in report.rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in (
        "prompt",
        "hash",
        f"mean@{first.k}",
        f"best@{first.k}",
        *["KL to base", "a completion"] * with_kl,
        "tokens",
    ):
        table.add_column(title, no_wrap=True)
    for row in report.rows:
        result = row.result
        kl = ["-", "-"]
        if row.kl is not None:
            kl = [f"{row.kl.mean:.4f}\n{_interval(row.kl.interval, 4)}", f"{row.kl.per_completion:.3f}"]
        best = f"{result.best:.3f}\n{_interval(result.best_interval)}" if result.best_problems else "-"
        table.add_row(
            _text(row.label),
            result.prompt.hash,
            f"{result.mean:.3f}\n{_interval(result.mean_interval)}",
            best,
            *kl[: 2 * with_kl],
            f"{result.completion_tokens:.1f}",
        )
    console.print(table)
    if report.complementary is not None:
        mean, interval = report.complementary
        console.print(
            f"Each problem under the prompt that serves it best: {mean:.3f} {_interval(interval)}.", markup=False
        )
    if report.by_kind is not None:
        mean, interval = report.by_kind
        console.print(
            f"Each kind of problems under the prompt chosen for it in training: {mean:.3f} {_interval(interval)}.",
            markup=False,
        )
    if with_kl:
        exact = all(row.kl is None or row.kl.exact for row in report.rows)
        how = "" if exact else ", estimated from the sampled tokens"
        console.print(f"KL to the base policy in nats a token, then in nats a completion{how}.", markup=False)
    if cut := sum(result.cut_off for result in results):
        console.print(f"{cut} rollouts were cut off at the token limit.")
    if masked := sum(result.masked for result in results):
        console.print(f"{masked} rollouts could not be scored and count nowhere.")
    if (fewest := min(result.best_problems for result in results)) < first.problems:
        console.print(
            f"best@{first.k} is over the problems with {first.k} scored rollouts, at least {fewest}.", markup=False
        )


def best_prompt(path: Path) -> None:
    """The best prompt alone, ready to paste."""
    prompt = _population(Run(path))[0]
    components = prompt.as_dict()
    texts = [text if len(components) == 1 else f"# {name}\n{text}\n" for name, text in components.items()]
    for text in texts:
        print(printable(text) if sys.stdout.isatty() else storable(text))


def population(path: Path) -> None:
    """The current K prompts, best first."""
    console, run = Console(), _run(path)
    means = {member.hash: member.mean for member in family(run.candidates)}
    members, by_kind = _population(run), run.by_kind
    for prompt in dict.fromkeys(members):
        copies = members.count(prompt)
        times = f", {copies} of {len(members)} slots" if copies > 1 else ""
        kinds = [printable(kind) for kind, best in by_kind.items() if best == prompt.hash]
        best_for = f", best for {', '.join(kinds)}" if kinds else ""
        console.print(_text(f"{prompt.hash}  mean {_score(means.get(prompt.hash))}{times}{best_for}", style="bold"))
        _print_components(console, prompt.as_dict())
    if overfitted := merged(run.steps, m.OVERFITTED):
        children = "child was" if overfitted == 1 else "children were"
        line = (
            f"{overfitted} {children} refused: better on the anchors that reflection was shown, not on those held out."
        )
        console.print(_text(f"{line} --all has the reasons."))


def candidates(path: Path) -> None:
    """Every candidate ever proposed, one line each."""
    console, run = Console(), _run(path)
    if len(run.candidates) > MOST_ROWS:
        _plain_candidates(run)
        return
    table = Table("id", "cycle", "hash", "parent", "mean", "accepted", "why", "text")
    for line in run.candidates:
        text = " / ".join(line["components"].values()).replace("\n", " / ")
        table.add_row(
            str(line.get("id", "-")),
            str(line["cycle"]),
            _text(line["hash"]),
            _text(line["parent"] or "-"),
            _score(line["mean"]),
            "yes" if line["accepted"] else "no",
            _text(line["reason"]),
            _text(_preview(text)),
        )
    console.print(table)


def _plain_candidates(run: Run) -> None:
    """The same where a table would take long to lay out."""
    print(f"{'id':>6} {'cycle':>6}  {'hash':12}  {'parent':12}  {'mean':6}  accepted  why | text")
    for line in run.candidates:
        text = _preview(" / ".join(line["components"].values()).replace("\n", " / "))
        verdict = "yes" if line["accepted"] else "no"
        hash_, parent = printable(line["hash"]), printable(line["parent"] or "-")
        print(
            f"{line.get('id', '-'):>6} {line['cycle']:>6}  {hash_:12}  {parent:12}  "
            f"{_score(line['mean']):6}  {verdict:8}  {printable(line['reason'])} | {printable(text)}".replace("\n", " ")
        )


def tree(path: Path) -> None:
    """The family tree of all prompts, each with what it changed."""
    console, run = Console(), _run(path)
    members = {prompt.hash for prompt in _population(run)}
    everyone = family(run.candidates)
    if len(everyone) > MOST_ROWS:
        _plain_tree(path, roots(everyone), members)
        return
    top = Tree(_text(str(path), style="bold"))
    deeper = [member for root in roots(everyone) for member in _grow(top, root, members)]
    console.print(top)
    while deeper:
        member = deeper.pop(0)
        console.print()
        top = Tree(_text(f"goes on from {member.parent}", style="bold"))
        deeper = [*_grow(top, member, members), *deeper]
        console.print(top)
    console.print(LEGEND, markup=False)


def _plain_tree(path: Path, first: Sequence[Member], population: Collection[str]) -> None:
    """The same, indented alone, where a tree would take long to lay out."""
    below: list[tuple[str, Sequence[Member]]] = [(str(path), first)]
    while below:
        title, top = below.pop()
        print(printable(title))
        waiting, deeper = [(member, 1) for member in reversed(top)], list[tuple[str, Sequence[Member]]]()
        while waiting:
            member, level = waiting.pop()
            indent = "    " * level
            print(indent + _described(member, population).plain.replace("\n", f"\n{indent}  "))
            if level < MOST_LEVELS:
                waiting += [(child, level + 1) for child in reversed(member.children)]
            elif member.children:
                print(f"{indent}    {_below(member)}")
                deeper.append((f"goes on from {member.hash}", member.children))
        below += reversed(deeper)
        print()
    print(LEGEND)


def _grow(top: Tree, first: Member, population: Collection[str]) -> list[Member]:
    """Put a prompt and its descendants into a tree; those that lie too deep are returned."""
    waiting, deeper = [(top, first, 1)], []
    while waiting:
        tree, member, level = waiting.pop()
        branch = tree.add(_described(member, population))
        if level < MOST_LEVELS:
            waiting += [(branch, child, level + 1) for child in reversed(member.children)]
        elif member.children:
            branch.add(_text(_below(member), style="dim"))
            deeper += member.children
    return deeper


def _below(member: Member) -> str:
    return f"{len(member.children)} that come from {member.hash} stand below"


def _described(member: Member, population: Collection[str]) -> Text:
    """One prompt of the tree, with what it changed."""
    inside = member.hash in population
    verdict = "accepted" if member.accepted else printable(member.reason)
    head = f"{'* ' if inside else ''}{member.hash}  mean {_score(member.mean)}  cycle {member.cycle}  {verdict}"
    style = "bold" if inside else "" if member.accepted else "dim"
    text = _text(head, style=style)
    for sign, line in member.changes or [
        ("", line) for text in member.components.values() for line in text.splitlines()
    ]:
        text.append(printable(f"\n{sign} {line}".rstrip(" ")), style={"+": "green", "-": "red"}.get(sign, ""))
    return text


def candidate(path: Path, hash_: str) -> None:
    """One candidate: its text, where it comes from, what led to it. Raises ConfigError where there is none."""
    run = Run(path)
    found = [line for line in run.candidates if line["hash"].startswith(hash_)]
    if not found:
        raise ConfigError(f"id: no candidate of {str(path)!r} has a hash that starts with {hash_!r}: see --all")
    console = Console()
    for line in found:
        console.print(_text(f"{line['hash']}  cycle {line['cycle']}  parent {line['parent'] or '-'}", style="bold"))
        verdict = "accepted" if line["accepted"] else "not accepted"
        console.print(
            _text(f"{verdict}: {line['reason']}; mean {_score(line['mean'])} of {len(line['scores'])} anchors")
        )
        _print_components(console, line["components"])
        if line["feedback"]:
            console.print(_text("feedback that led to it:"))
            for feedback in line["feedback"]:
                console.print(_text(f"  - {printable(feedback)}"))
        for said in run.reflections:
            if said["child"] == line["hash"] and said["cycle"] == line["cycle"] and said["diagnosis"]:
                console.print(_text(f"what the reflection LM said of {said['component']}: {said['diagnosis']}"))


def _run(path: Path) -> Run:
    """The run. Raises ResumeError where there is none."""
    run = Run(path)
    _ = run.config
    for lost in run.losses:
        print(printable(f"{path}: {lost}"), file=sys.stderr)
    return run


def _population(run: Run) -> list[Prompt]:
    _ = run.config
    return needed_population(run)


def _print_components(console: Console, components: Mapping[str, str]) -> None:
    for name, text in components.items():
        console.print(_text(f"  {name}:"))
        for line in printable(text).splitlines() or [""]:
            console.print(_text(f"    {line}"))


def _text(text: str, style: str = "") -> Text:
    """Text as text, whoever wrote it: no escape sequence reaches the terminal, and nothing in it is markup."""
    return Text(printable(text), style=style)


def _interval(interval: tuple[float, float], digits: int = 3) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _preview(text: str) -> str:
    return text if len(text) <= PREVIEW else f"{text[: PREVIEW - 3]}..."
