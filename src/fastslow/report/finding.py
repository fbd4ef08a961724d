"""The finding of a page in words, from its numbers alone; where the numbers tell nothing, it says that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastslow.experiments.tables import budget_note
from fastslow.measuring.statistics import END, Spent
from fastslow.report.data import Finding, Headline, Point, RunData

ONE_RUN = "One run each is an illustration, not evidence: fastslow experiment compare runs several seeds."


@dataclass(frozen=True)
class Arm:
    """What one series came to: medians over its runs. `spent` has what each sampled, `curve` the evaluations."""

    name: str
    accuracy: float | None
    interval: tuple[float, float] | None
    kl: float | None
    spent: Sequence[Spent]
    curve: Sequence[Point]

    @classmethod
    def of(cls, name: str, found: Headline, spent: Sequence[Spent], curve: Sequence[Point]) -> "Arm":
        """The arm of a series with this headline."""
        return cls(name, found["after"], found["interval"], found.get("kl"), spent, curve)


# -- one run -----------------------------------------------------------------------------------------------------------


def of_run(run: RunData, found: Headline) -> Finding:
    """One run: what happened to accuracy, at what price, and whether that is more than chance."""
    return {"title": _of_run(run, found), "notes": [found["verdict"]] if found["verdict"] else []}


def _of_run(run: RunData, found: Headline) -> str:
    done, planned = run["totals"]["steps"] or 0, run["planned_steps"]
    so_far = f"After {done:,} of {planned:,} steps: " if planned and done < planned else ""
    return _capital(so_far + _happened(run, found))


def _happened(run: RunData, found: Headline) -> str:
    before, after = found["before"], found["after"]
    spent = f" in {run['totals']['sampled']:,.0f} rollouts" if run["totals"]["sampled"] else ""
    if after is None:
        if not run["totals"]["steps"]:
            return "no step is done yet"
        return f"accuracy was not measured after the start{spent and f'; {spent.strip()[3:]} were sampled'}"
    kl = _kl(found)
    if before is None:
        return f"accuracy ended at {after:.2f}{spent}{kl}; there is no measurement from before"
    if round(before, 2) == round(after, 2):
        return f"accuracy stayed at {after:.2f}{spent}{kl}"
    low, high = found["interval"] or (after, after)
    start = found.get("before_interval") or (before, before)
    if low > start[1] or high < start[0]:
        return f"accuracy {'rose' if after > before else 'fell'} from {before:.2f} to {after:.2f}{spent}{kl}"
    return f"no clear change: accuracy went from {before:.2f} to {after:.2f}{spent}{kl}"


def _kl(found: Headline) -> str:
    value = found.get("kl")
    return "" if value is None else f"; {found.get('kl_name', 'KL')} {value:.2f}"


# -- several arms ------------------------------------------------------------------------------------------------------


def of_arms(arms: Sequence[Arm]) -> Finding:
    """Several runs, or groups of them, side by side: the best first, each with the KL that it paid."""
    measured = sorted((arm for arm in arms if arm.accuracy is not None), key=lambda arm: -(arm.accuracy or 0.0))
    if not measured:
        return {"title": "Accuracy was not measured: there is nothing to compare", "notes": []}
    if len(measured) == 1:
        return {"title": f"{measured[0].name} reached {_reached(measured[0])}", "notes": []}
    first, *others = measured
    tied = all(f"{arm.accuracy:.2f}" == f"{first.accuracy:.2f}" for arm in others)
    head = "" if not tied else "No difference in accuracy: "
    behind = "; ".join(f"{arm.name} {_reached(arm)}" for arm in others[:3])
    title = f"{head}{first.name} reached {_reached(first)}; {behind}"
    more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
    notes = [note for note in (_overlap(first, others, tied), _budget(measured)) if note]
    if max(len(arm.spent) for arm in measured) == 1:
        notes.append(ONE_RUN)
    return {"title": title + more, "notes": notes}


def _reached(arm: Arm) -> str:
    return f"{arm.accuracy:.2f}" + ("" if arm.kl is None else f" with KL {arm.kl:.2f}")


def _budget(arms: Sequence[Arm]) -> str:
    return budget_note({arm.name: arm.spent for arm in arms})


def _overlap(first: Arm, others: Sequence[Arm], tied: bool) -> str:
    """Where the intervals of the best and of another overlap, the order of the two is not certain."""
    if first.interval is None or tied:
        return ""
    low = first.interval[0]
    close = [arm.name for arm in others if arm.interval is not None and arm.interval[1] >= low]
    return f"The intervals of {first.name} and {', '.join(close)} overlap: their order may be chance." if close else ""


# -- experiments -------------------------------------------------------------------------------------------------------


def of_ablation(arms: Sequence[Arm]) -> Finding:
    """One setting over its values: the best and the worst. The names of the arms have the key."""
    measured = sorted((arm for arm in arms if arm.accuracy is not None), key=lambda arm: -(arm.accuracy or 0.0))
    if len(measured) < 2:
        return of_arms(arms)
    best, worst = measured[0], measured[-1]
    overlap = _overlap(best, [worst], f"{best.accuracy:.2f}" == f"{worst.accuracy:.2f}")
    if overlap or f"{best.accuracy:.2f}" == f"{worst.accuracy:.2f}":
        title = (
            f"No clear difference: {best.name} reached {best.accuracy:.2f}, {worst.name} reached {worst.accuracy:.2f}"
        )
    else:
        title = (
            f"{best.name} reached {best.accuracy:.2f}, the most; {worst.name} reached {worst.accuracy:.2f}, the least"
        )
    return {"title": title, "notes": [note for note in (overlap, _budget(measured)) if note]}


def of_starts(arms: Sequence[Arm]) -> Finding:
    """Plain RL on a second task from several starts."""
    measured = [arm for arm in arms if arm.accuracy is not None]
    if not measured:
        return of_arms(arms)
    texts = [f"{arm.accuracy:.2f} {arm.name}" for arm in measured]
    return {"title": f"Plain RL on the second task reached {', '.join(texts)}", "notes": []}


def of_parts(measures: Mapping[str, float]) -> Finding:
    """What is in the weights and what in the prompt: accuracy by what it was measured under."""
    texts = [f"{name} {value:.2f}" for name, value in measures.items()]
    return {"title": f"On the test split: {'; '.join(texts)}", "notes": []}


def of_drift(arms: Sequence[Arm]) -> Finding:
    """How far each arm was from the base when it first had the highest accuracy that all of them reached."""
    tops = [max((point["accuracy"] for point in arm.curve if "accuracy" in point), default=None) for arm in arms]
    if len(arms) < 2 or any(top is None for top in tops):
        return of_arms(arms)
    level = int(100 * min(top for top in tops if top is not None)) / 100
    texts = []
    for arm in arms:
        first = next(point for point in arm.curve if point.get("accuracy", -1.0) >= level)
        kl = first.get("kl")
        texts.append(f"{arm.name} was at KL {'not measured' if kl is None else f'{kl:.2f}'}")
    return {"title": f"When accuracy first was {level:.2f}, {'; '.join(texts)}", "notes": []}


def end_note() -> str:
    """In words, what the accuracy at the end is, everywhere."""
    return f"Accuracy at the end is the mean of the last {END} evaluations after the start."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
