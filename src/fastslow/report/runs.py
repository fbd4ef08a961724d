"""A run directory as plain data for the page: curves, totals, prompts, samples, config.

Seconds are training seconds: evaluations are left out, as in the results of experiments.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from fastslow.redact import redact_config
from fastslow.report.data import Best, Grid, Number, Point, Prompt, Prompts, RunData, Shown
from fastslow.runs import metrics as m
from fastslow.runs import reader
from fastslow.runs.family import Member, edits, family, populations, scores_by_cycle, word_edits
from fastslow.runs.files import SampleLine, read_lines
from fastslow.runs.reader import Evaluation, Run, Step, kl_name, seconds_at
from fastslow.runs.transcripts import conversation

LONGEST_COMPLETION = 8_000
LONGEST_FEEDBACK = 2_000
LONGEST_TURN = 4_000
LONGEST_QUESTION = 6_000
LONGEST_PROMPT = 20_000
MOST_REFLECTIONS = 2
"""Of one prompt that are shown: two requests may lead to the same text."""
REFLECTIONS = "reflections.jsonl"
PLACES = ("rollouts", "seconds", "usd")
"""Columns that say where a run stood; no metric has these names."""
BY_KIND = "each kind under its own prompt"


def read_run(path: Path, name: str) -> RunData:
    """Everything that the page shows of one run. Raises ConfigError where one of its files is broken."""
    run = Run(path)
    config = run.config_tree
    task, model, evaluation = (_section(config, name) for name in ("task", "model", "evaluation"))
    options = redact_config(_section(task, "options"))
    prompts, spent = _prompts(run), {step.number: step.get(m.USD_TOTAL) for step in run.steps}
    return {
        "name": name,
        "path": str(path),
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
        "samples": _samples(run),
        "texts": _other_texts(run, {prompt["hash"] for prompt in prompts["prompts"]}),
        "best": _best(run),
        "config": redact_config(config),
    }


# -- metrics -----------------------------------------------------------------------------------------------------------


def shown(found: Evaluation) -> Shown:
    """An evaluation as the page has it: {} where nothing was measured."""
    point: Shown = {}
    if found.accuracy is not None:
        point["accuracy"], point["k"] = float(f"{found.accuracy:.6g}"), str(found.k)
    if found.best is not None:
        point["best"] = _digits(found.best)
    tasks = {} if found.by_kind is None else {BY_KIND: found.by_kind}
    for task, value in found.tasks.items():
        tasks |= {task: value} | ({f"{task}/own": found.own[task]} if task in found.own else {})
    if tasks:
        point["tasks"] = {task: _digits(value) for task, value in tasks.items()}
    if found.kl is not None:
        point["kl"], point["kl_name"] = _digits(found.kl), kl_name([found])
    return point


def _point(point: reader.Point, usd: object) -> Point:
    at = {"step": point.step, "rollouts": point.rollouts, "seconds": point.seconds}
    return cast(Point, {**at, **({} if usd is None else {"usd": _digits(usd)}), **shown(point.evaluation)})


def _training(steps: Sequence[Step]) -> dict[str, list[Number]]:
    """Columns, one value a step: where the run stood, and every number of its metrics by name. NaN, which is null in the
    files, is None, and so is a zero which only says that a step had no search or no evaluation.
    """
    found = [(step, seconds) for step, seconds in zip(steps, seconds_at(steps), strict=True) if step.number]
    numbers = [
        {name: value for name, value in step.values.items() if _is_number(value) and name not in m.gaps(step.values)}
        for step, _ in found
    ]
    names = dict.fromkeys(name for values in numbers for name in values if name not in (m.STEP.name, *PLACES))
    return {
        "step": [step.number for step, _ in found],
        "rollouts": [step.amount(m.SAMPLED_TOTAL) for step, _ in found],
        "seconds": [seconds for _, seconds in found],
        "usd": [step.get(m.USD_TOTAL) for step, _ in found],
        **{name: [_digits(values.get(name)) for values in numbers] for name in names},
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- prompts -----------------------------------------------------------------------------------------------------------


def _prompts(run: Run) -> Prompts:
    """`prompts`: every candidate once, parents before children, with what happened to it; `grids`: a table of scores for
    each cycle; `population`: hashes, best first. A member that had no search (RL alone) becomes a prompt as well.
    """
    members = {member.hash: member for member in family(run.candidates)}
    said = _reflections(run)
    nodes = {
        hash_: _node(member, members.get(member.parent or ""), said.get(hash_, ())) for hash_, member in members.items()
    }
    for record in run.members:
        hash_, components = record["hash"], record["components"]
        lone = Member(hash_, None, 0, components, "", accepted=True, mean=record["mean"])
        nodes.setdefault(hash_, _node(lone, None))
    return {
        "prompts": list(nodes.values()),
        "grids": [_grid(cycle, rows) for cycle, rows in scores_by_cycle(run.candidates).items()],
        "population": [member["hash"] for member in run.members],
        "populations": list(populations(run.candidates).items()),
    }


def _best(run: Run) -> Best | None:
    """The population's first prompt beside the seed prompt; None before the first cycle."""
    if not run.members:
        return None
    first = run.members[0]
    seed = next((line["components"] for line in run.candidates if line["parent"] is None), first["components"])
    texts, before = ({n: _clip(text, LONGEST_PROMPT) for n, text in t.items()} for t in (first["components"], seed))
    return {"hash": first["hash"], "components": texts, "seed": before, "edits": _edits(before, texts)}


def _reflections(run: Run) -> dict[str, list[tuple[str, str]]]:
    """By hash of the child, what a language model said beside the new text, and what it was asked; {} where none is kept."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in read_lines(run.path / REFLECTIONS):
        child, said, asked = (line.get(name) for name in ("child", "diagnosis", "request"))
        if all(isinstance(text, str) for text in (child, said, asked)):
            found.setdefault(child, []).append((_clip(said, LONGEST_TURN), _clip(asked, LONGEST_TURN)))
    return {child: pairs[:MOST_REFLECTIONS] for child, pairs in found.items()}


def _node(member: Member, parent: Member | None, said: Sequence[tuple[str, str]] = ()) -> Prompt:
    return {
        "hash": member.hash,
        "parent": member.parent,
        "cycle": member.cycle,
        "components": _texts(member),
        "edits": {} if parent is None else _edits(_texts(parent), _texts(member)),
        "accepted": member.accepted,
        "mean": _digits(member.mean),
        "scored": len(member.scores),
        "feedback": [_clip(text, LONGEST_FEEDBACK) for text in member.feedback],
        "events": [
            [event.cycle, event.accepted, event.reason, _digits(event.mean), event.count] for event in member.events
        ],
        "reflections": list(said),
    }


def _texts(member: Member) -> dict[str, str]:
    return {name: _clip(text, LONGEST_PROMPT) for name, text in member.components.items()}


def _edits(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[list[object]]]:
    """By component, each run of lines that changed: where it was, where it is, and where a line has a line to be compared with,
    what changed within it (null: nothing in common).
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
    scores = {hash_: [_digits(row.get(problem)) for problem in problems] for hash_, row in rows.items()}
    return {"cycle": cycle, "problems": problems, "rows": list(scores.items())}


# -- samples -----------------------------------------------------------------------------------------------------------

SAMPLE = (
    "step", "problem", "prompt", "text", "reward", "feedback", "failure", "finish_reason", "source", "end", "said",
    "tool_calls", "question", "reference",
)  # fmt: skip


def _samples(run: Run) -> list[list[object]]:
    """The kept rollouts, oldest first; each a row of the fields of SAMPLE."""
    rows = []
    for step, lines in run.samples.items():
        for line in lines:
            row = {
                **line,
                "step": step,
                "text": _clip(line["text"], LONGEST_COMPLETION),
                "reward": _digits(line.get("reward")),
                "feedback": _clip(line.get("feedback") or "", LONGEST_FEEDBACK),
                "said": _said(line),
                "question": _question(line),
                "reference": _clip(line.get("reference") or "", LONGEST_FEEDBACK) or None,
            }
            rows.append([row.get(name) for name in SAMPLE])
    return rows


def _question(line: SampleLine) -> list[list[str]]:
    """The problem's messages, each a row of speaker and text; [] where an older run did not keep them."""
    return [[each["role"], _clip(each["content"], LONGEST_QUESTION)] for each in line.get("question") or ()]


def _other_texts(run: Run, known: Collection[str]) -> dict[str, dict[str, str]]:
    """By hash, the prompts of kept rollouts that no search has on record: the seed prompt of RL alone, for example."""
    lines = [line for kept in run.samples.values() for line in kept]
    found = {line["prompt"]: line["components"] for line in lines if line.get("components") and line.get("prompt")}
    return {
        hash_: {name: _clip(text, LONGEST_PROMPT) for name, text in texts.items()}
        for hash_, texts in found.items()
        if hash_ not in known
    }


def _said(line: SampleLine) -> list[list[object]] | None:
    """What was said in an episode of several turns, each a row of speaker, text, calls and mark."""
    if line.get("turns") is None:
        return None
    return [[one.speaker, _clip(one.text, LONGEST_TURN), list(one.calls), one.mark] for one in conversation(line)]


# -- inside ------------------------------------------------------------------------------------------------------------


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _name(value: object) -> str:
    return value if isinstance(value, str) else "?"


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _clip(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _digits(value: object) -> Number:
    """Six significant digits are more than a page can show, and a third of the bytes."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value if isinstance(value, int) else None
