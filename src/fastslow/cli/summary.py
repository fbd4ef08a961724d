"""What a run came to, in a few lines at its end."""

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fastslow.measuring.intervals import share_interval
from fastslow.runs.reader import Evaluation, Point, Run, Totals, kl_mark
from fastslow.text import duration, printable
from fastslow.training.session import TrainResult

PROMPT_LINES = 15


def show(result: TrainResult, repeated: Sequence[str] = ()) -> None:
    """Print the summary of a run. `repeated`: warnings that were shown once and came more often."""
    console = Console(highlight=False)
    for label, lines in summary(result, repeated):
        text = Text(f"{label:<12}", style="bold")
        text.append(f"\n{'':<12}".join(lines), style="")
        console.print(text, soft_wrap=True)


def summary(result: TrainResult, repeated: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """(label, lines) in the order of the page."""
    run = Run(result.run)
    totals = run.totals
    rows = [
        ("", [""]),
        ("run", [f"{result.run}: {result.steps} steps{', interrupted' if result.interrupted else ''}"]),
        ("best prompt", _prompt(result)),
        ("accuracy", [_accuracy(run.curve, result.problems)]),
        ("KL to base", [_kl([point.evaluation for point in run.curve])]),
        ("rollouts", [_rollouts(totals)]),
        ("time", [_time(totals)]),
        ("reflection", [_reflection(totals)]),
        *([("warnings", list(repeated))] if repeated else []),
        ("next", _next(result)),
    ]
    return [(label, [printable(line) for line in lines]) for label, lines in rows]


def _prompt(result: TrainResult) -> list[str]:
    components = result.best_prompt.as_dict()
    lines = [
        line
        for name, text in components.items()
        for line in ([f"[{name}]"] if len(components) > 1 else []) + (text.splitlines() or ["(empty)"])
    ]
    if len(lines) <= PROMPT_LINES:
        return lines
    shown = PROMPT_LINES - 1
    return [*lines[:shown], f"... and {len(lines) - shown} more lines: fastslow prompts {_path(result)} --best"]


def _accuracy(curve: Sequence[Point], problems: int) -> str:
    measured = [point for point in curve if point.evaluation.accuracy is not None]
    if not measured:
        return "not measured: evaluation.every is 0"
    first, last = measured[0], measured[-1]
    note = f"mean@{last.evaluation.k}, {problems} validation problems, 95 % intervals" if problems else ""
    if len(measured) == 1:
        return f"{_with_interval(first.evaluation, problems)} at step {first.step}; {note}"
    before = f"{_with_interval(first.evaluation, problems)} at step {first.step}"
    return f"{before} -> {_with_interval(last.evaluation, problems)} at step {last.step}; {note}"


def _with_interval(found: Evaluation, problems: int) -> str:
    assert found.accuracy is not None
    if not problems:
        return f"{found.accuracy:.3f}"
    low, high = share_interval(min(1.0, max(0.0, found.accuracy)), problems)
    return f"{found.accuracy:.3f} [{low:.3f}, {high:.3f}]"


def _kl(evaluations: Sequence[Evaluation]) -> str:
    measured = [found for found in evaluations if found.kl is not None]
    return f"{measured[-1].kl:.4f} nats a token{kl_mark(measured[-1:])}" if measured else "not measured"


def _rollouts(totals: Totals) -> str:
    search = totals.sampled_gepa + totals.sampled_reflection
    parts = f"{totals.sampled_rl} for training, {search} for searches"
    return f"{totals.sampled} sampled ({parts}), {totals.reused} reused, {totals.failed} masked"


def _time(totals: Totals) -> str:
    parts = {"searching": totals.evolve_s, "sampling": totals.sample_s, "updating": totals.update_s}
    words = ", ".join(f"{duration(seconds)} {name}" for name, seconds in parts.items())
    return f"{duration(totals.seconds)} ({words}); evaluations took {duration(totals.evaluate_s)} more"


def _reflection(totals: Totals) -> str:
    if not totals.reflection_calls:
        refused = f"; {totals.reflection_refused} edits refused" if totals.reflection_refused else ""
        return f"no calls of a language model{refused}"
    price = "price not known" if totals.usd is None else f"{totals.usd:.4f} USD"
    return (
        f"{totals.reflection_calls} calls, {totals.reflection_failures} failed, {totals.reflection_refused} replies "
        f"refused, {totals.reflection_tokens} tokens, {price}"
    )


def _next(result: TrainResult) -> list[str]:
    path = _path(result)
    if result.interrupted:
        return [f"fastslow train --resume {path}", f"fastslow prompts {path} --tree", f"fastslow report {path}"]
    return [
        f"fastslow report {path}",
        f"fastslow evaluate {path} --split test --kl",
        f"fastslow export {path} {shlex.quote(f'{result.run}-export')}",
    ]


def _path(result: TrainResult) -> str:
    return shlex.quote(str(result.run))
