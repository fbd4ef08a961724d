"""A run directory as plain data for the page: curves, totals, prompts, samples, config.

Seconds are training seconds: evaluations are left out, as in the results of experiments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

from fastslow.redact import redact_config
from fastslow.report.clipping import LONGEST_FEEDBACK, LONGEST_PROMPT, LONGEST_TURN, clip, digits, least_bytes
from fastslow.report.data import Best, Grid, Number, Point, Prompt, Prompts, RunData, Shown
from fastslow.report.samples import read_samples
from fastslow.report.thin import BUDGET, GRIDS, PROMPTS, fewer_values, fitting, most_wanted
from fastslow.runs import metrics as m
from fastslow.runs import reader
from fastslow.runs.family import Member, edits, family, populations, scores_by_cycle, word_edits
from fastslow.runs.files import read_lines
from fastslow.runs.reader import Evaluation, Run, Step, kl_name, seconds_at

LEAST_PROMPT, LEAST_GRID = 150, 40
"""Bytes of the names and brackets of a prompt and of a table of scores."""
MOST_REFLECTIONS = 2
"""Of one prompt that are shown: two requests may lead to the same text."""
REFLECTIONS = "reflections.jsonl"
PLACES = ("rollouts", "seconds", "usd")
"""Columns that say where a run stood; no metric has these names."""
BY_KIND = "each kind under its own prompt"


def read_run(run: Run, name: str) -> RunData:
    """What the page shows of one run: of what is far more than a page has room for, a part is made, and `left_out`
    counts the rest. Raises ConfigError where one of its files is broken.
    """
    config = run.config_tree
    task, model, evaluation = (_section(config, name) for name in ("task", "model", "evaluation"))
    options = redact_config(_section(task, "options"))
    spent = {step.number: step.get(m.USD_TOTAL) for step in run.steps}
    members = {member.hash: member for member in family(run.candidates)}
    samples = read_samples(run, members.keys() | {member["hash"] for member in run.members})
    prompts, left_out = _prompts(run, members, samples.size, {"samples": samples.left_out})
    return {
        "name": name,
        "path": str(run.path),
        "method": _name(config.get("method")),
        "task": _name(task.get("name")),
        "task_options": ", ".join(f"{key}={_short(value)}" for key, value in options.items()),
        "model": _name(model.get("name")),
        "seed": _count(config.get("seed")),
        "planned_steps": _count(config.get("steps")),
        "problems": _count(evaluation.get("problems")),
        "evaluations": [_point(point, spent.get(point.step)) for point in run.curve if shown(point.evaluation)],
        "training": _training(run.steps),
        "totals": asdict(run.totals),
        "errors": [[step.number, step.get(m.ERROR)] for step in run.steps if step.get(m.ERROR)],
        "prompts": prompts["prompts"],
        "grids": prompts["grids"],
        "population": prompts["population"],
        "populations": prompts["populations"],
        "samples": samples.rows,
        "texts": samples.texts,
        "best": _best(run),
        "config": redact_config(config),
        "left_out": {name: count for name, count in left_out.items() if count},
    }


# -- metrics -----------------------------------------------------------------------------------------------------------


def shown(found: Evaluation) -> Shown:
    """An evaluation as the page has it: {} where nothing was measured."""
    point: Shown = {}
    if found.accuracy is not None:
        point["accuracy"], point["k"] = float(f"{found.accuracy:.6g}"), str(found.k)
    if found.best is not None:
        point["best"] = digits(found.best)
    tasks = {} if found.by_kind is None else {BY_KIND: found.by_kind}
    for task, value in found.tasks.items():
        tasks |= {task: value} | ({f"{task}/own": found.own[task]} if task in found.own else {})
    if tasks:
        point["tasks"] = {task: digits(value) for task, value in tasks.items()}
    if found.kl is not None:
        point["kl"], point["kl_name"] = digits(found.kl), kl_name([found])
    if found.kl_completion is not None:
        point["kl_completion"] = digits(found.kl_completion)
    return point


def _point(point: reader.Point, usd: object) -> Point:
    at = {"step": point.step, "rollouts": point.rollouts, "seconds": point.seconds}
    return cast(Point, {**at, **({} if usd is None else {"usd": digits(usd)}), **shown(point.evaluation)})


def _training(steps: Sequence[Step]) -> dict[str, list[Number]]:
    """Columns, one value a step: where the run stood, and every number of its metrics by name. NaN, which is null in
    the files, is None, and so is a zero which only says that a step had no search or no evaluation.
    """
    found = [(step, seconds) for step, seconds in zip(steps, seconds_at(steps), strict=True) if step.number]
    names: dict[str, None] = {}
    for step, _ in found:
        names |= dict.fromkeys(_numbers(step))
    for name in (m.STEP.name, *PLACES):
        names.pop(name, None)
    found = fewer_values(found, len(PLACES) + 1 + len(names))
    numbers = [_numbers(step) for step, _ in found]
    return {
        "step": [step.number for step, _ in found],
        "rollouts": [step.amount(m.SAMPLED_TOTAL) for step, _ in found],
        "seconds": [seconds for _, seconds in found],
        "usd": [step.get(m.USD_TOTAL) for step, _ in found],
        **{name: [digits(values.get(name)) for values in numbers] for name in names},
    }


def _numbers(step: Step) -> dict[str, object]:
    gaps = m.gaps(step.values)
    return {name: value for name, value in step.values.items() if _is_number(value) and name not in gaps}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- prompts -----------------------------------------------------------------------------------------------------------


def _prompts(
    run: Run, members: Mapping[str, Member], samples: int, left_out: dict[str, int]
) -> tuple[Prompts, dict[str, int]]:
    """`prompts`: every candidate once, parents before children, with what happened to it; `grids`: a table of scores
    for each cycle; `population`: hashes, best first. A member that had no search (RL alone) becomes a prompt as well.

    `samples`: bytes that the kept rollouts take at least. What is left out is counted beside `left_out`.
    """
    shown, cycles = list(members.values()), list(scores_by_cycle(run.candidates).items())
    population = [record["hash"] for record in run.members]
    if left_out["samples"] or samples + _least(shown) + _least_of_grids(cycles) > BUDGET:
        # The page will be thinned whatever else it holds, and no run gets more of it than these shares.
        shown = most_wanted(
            shown, lambda each: (each.hash, each.parent, each.accepted), population, int(BUDGET * PROMPTS), _least
        )
        cycles = [*fitting(cycles[:-1], int(BUDGET * GRIDS), _least_of_grids), *cycles[-1:]]
    said = _reflections(run)
    nodes = {each.hash: _node(each, members.get(each.parent or ""), said.get(each.hash, ())) for each in shown}
    for record in run.members:
        hash_, components = record["hash"], record["components"]
        if hash_ not in nodes:
            lone = Member(hash_, None, 0, components, "", accepted=True, mean=record["mean"])
            member = members.get(hash_, lone)
            nodes[hash_] = _node(member, members.get(member.parent or ""), said.get(hash_, ()))
    left_out["prompts"] = sum(hash_ not in nodes for hash_ in members)
    left_out["cycles"] = len({line["cycle"] for line in run.candidates if line["scores"]}) - len(cycles)
    found: Prompts = {
        "prompts": list(nodes.values()),
        "grids": [_grid(cycle, rows) for cycle, rows in cycles],
        "population": population,
        "populations": list(populations(run.candidates).items()),
    }
    return found, left_out


def _least(members: Sequence[Member]) -> int:
    """Bytes that prompts take in the page at least."""
    return sum(
        LEAST_PROMPT
        + least_bytes(each.components.values(), LONGEST_PROMPT)
        + least_bytes(each.feedback, LONGEST_FEEDBACK)
        for each in members
    )


def _least_of_grids(grids: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]]) -> int:
    """Bytes that tables of scores take in the page at least: a digit and a comma for each."""
    return sum(LEAST_GRID + sum(2 * len(scores) for scores in rows.values()) for _, rows in grids)


def _best(run: Run) -> Best | None:
    """The population's first prompt beside the seed prompt; None before the first cycle."""
    if not run.members:
        return None
    first = run.members[0]
    seed = next((line["components"] for line in run.candidates if line["parent"] is None), first["components"])
    texts, before = ({n: clip(text, LONGEST_PROMPT) for n, text in t.items()} for t in (first["components"], seed))
    return {"hash": first["hash"], "components": texts, "seed": before, "edits": _edits(before, texts)}


def _reflections(run: Run) -> dict[str, list[tuple[str, str]]]:
    """By hash of the child, what a language model said beside the new text, and what it was asked;
    {} where none is kept.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for line in read_lines(run.path / REFLECTIONS):
        child, said, asked = (line.get(name) for name in ("child", "diagnosis", "request"))
        if all(isinstance(text, str) for text in (child, said, asked)):
            found.setdefault(child, []).append((clip(said, LONGEST_TURN), clip(asked, LONGEST_TURN)))
    return {child: pairs[:MOST_REFLECTIONS] for child, pairs in found.items()}


def _node(member: Member, parent: Member | None, said: Sequence[tuple[str, str]] = ()) -> Prompt:
    return {
        "hash": member.hash,
        "parent": member.parent,
        "cycle": member.cycle,
        "components": _texts(member),
        "edits": {} if parent is None else _edits(_texts(parent), _texts(member)),
        "accepted": member.accepted,
        "mean": digits(member.mean),
        "scored": len(member.scores),
        "feedback": [clip(text, LONGEST_FEEDBACK) for text in member.feedback],
        "events": [
            [event.cycle, event.accepted, event.reason, digits(event.mean), event.count] for event in member.events
        ],
        "reflections": list(said),
    }


def _texts(member: Member) -> dict[str, str]:
    return {name: clip(text, LONGEST_PROMPT) for name, text in member.components.items()}


def _edits(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[list[object]]]:
    """By component, each run of lines that changed: where it was, where it is, and where a line has a line to be
    compared with, what changed within it (null: nothing in common).
    """
    found = {}
    for name, text in after.items():
        old, new = before.get(name, "").split("\n"), text.split("\n")
        found[name] = [
            [
                *edit,
                [
                    word_edits(*pair)
                    for pair in zip(old[edit.start : edit.end], new[edit.first : edit.last], strict=True)
                ],
            ]
            if edit.end - edit.start == edit.last - edit.first
            else [*edit, []]
            for edit in edits(old, new)
        ]
    return found


def _grid(cycle: int, rows: Mapping[str, Mapping[str, float]]) -> Grid:
    problems = list(dict.fromkeys(problem for scores in rows.values() for problem in scores))
    scores = {hash_: [digits(row.get(problem)) for problem in problems] for hash_, row in rows.items()}
    return {"cycle": cycle, "problems": problems, "rows": list(scores.items())}


# -- inside ------------------------------------------------------------------------------------------------------------


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _name(value: object) -> str:
    return value if isinstance(value, str) else "?"


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
