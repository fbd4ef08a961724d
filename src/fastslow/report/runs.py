"""A run directory as plain data for the page: curves, totals, prompts, samples, config.

Seconds are training seconds: evaluations are left out, as in the results of experiments.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fastslow.errors import ConfigError
from fastslow.report.redact import redact_config
from fastslow.runs.directory import read_candidates, read_metrics
from fastslow.runs.metrics import kl_name, kl_of

LONGEST_COMPLETION = 8_000
LONGEST_FEEDBACK = 2_000
LONGEST_PROMPT = 20_000
TIMES = ("evolve", "sample", "update", "evaluate")
TRAINING = {
    "reward": "reward/mean",
    "informative": "reward/informative_groups",
    "entropy": "slow/entropy",
    "kl_penalty": "slow/kl_penalty",
    "length": "rollouts/completion_tokens",
}  # fmt: skip

BY_KIND = "each kind under its own prompt"

Line = Mapping[str, Any]


def is_run(path: Path) -> bool:
    """Whether a run lies here."""
    return (path / "config.yaml").is_file()


def read_run(path: Path, name: str) -> dict[str, Any]:
    """Everything that the page shows of one run. Raises ConfigError where one of its files is broken."""
    config = _read_config(path)
    lines = _checked(read_metrics, path, "metrics.jsonl", ("step",))
    prompts = read_prompts(path)
    options = config.get("task", {}).get("options", {})
    return {
        "name": name,
        "path": str(path),
        "method": config.get("method", "?"),
        "task": config.get("task", {}).get("name", "?"),
        "task_options": ", ".join(f"{key}={_short(value)}" for key, value in redact_config(options).items()),
        "model": config.get("model", {}).get("name", "?"),
        "seed": config.get("seed"),
        "planned_steps": config.get("steps"),
        "problems": config.get("evaluation", {}).get("problems"),
        **curves(lines),
        "totals": totals(lines),
        "errors": [[line["step"], line["fast/error"]] for line in lines if line.get("fast/error")],
        **prompts,
        "samples": read_samples(path),
        "config": redact_config(config),
    }


# -- metrics -----------------------------------------------------------------------------------------------------------


def curves(lines: Sequence[Line]) -> dict[str, Any]:
    """`evaluations`: one point each; `training`: columns, one value a step. NaN, which is null in the files, is None."""
    evaluations: list[dict[str, Any]] = []
    training: dict[str, list[Any]] = {name: [] for name in ("step", "rollouts", "seconds", *TRAINING)}
    seconds = 0.0
    for line in lines:
        if line["step"]:
            seconds += (line.get("time/step_s") or 0.0) - (line.get("time/evaluate_s") or 0.0)
        at = {"step": line["step"], "rollouts": line.get("rollouts/sampled_total", 0), "seconds": round(seconds, 3)}
        point = evaluation_point(line)
        if point:
            evaluations.append(at | point)
        if line["step"]:
            for name, value in {**at, **{name: _digits(line.get(key)) for name, key in TRAINING.items()}}.items():
                training[name].append(value)
    return {"evaluations": evaluations, "training": training}


def evaluation_point(line: Line) -> dict[str, Any]:
    """The evaluation of one line of metrics or of an experiment's curve: {} where there was none."""
    point: dict[str, Any] = {}
    tasks: dict[str, float] = {}
    for name, value in line.items():
        group, _, rest = name.partition("/")
        kind = rest.rpartition("/")[2].partition("@")[0]
        if group != "val" or kind not in ("mean", "best") or value is None:
            continue
        if "/" not in rest:
            point["accuracy" if kind == "mean" else "best"] = _digits(value)
            point["k"] = rest.partition("@")[2]
        elif kind == "mean":
            tasks[BY_KIND if rest.startswith("by_kind/") else rest.rpartition("/")[0]] = _digits(value)
    if tasks:
        point["tasks"] = tasks
    if kl_of(line) is not None:
        point["kl"], point["kl_name"] = _digits(kl_of(line)), kl_name([line])
    return point


def totals(lines: Sequence[Line]) -> dict[str, Any]:
    """What the run has cost so far; `usd` is None where a price is not known."""
    trained = [line for line in lines if line["step"]]

    def added(key: str) -> float:
        return sum(line.get(key) or 0 for line in trained)

    times = {f"{name}_s": round(added(f"time/{name}_s"), 3) for name in TIMES}
    unknown = any("fast/usd" in line and line["fast/usd"] is None for line in trained)
    return {
        "steps": trained[-1]["step"] if trained else 0,
        "updates": trained[-1].get("policy_version") if trained else 0,
        "seconds": round(max(0.0, added("time/step_s") - added("time/evaluate_s")), 3),
        **times,
        "sampled": int(added("rollouts/sampled")),
        "sampled_rl": int(added("rollouts/sampled_rl")),
        "sampled_gepa": int(added("rollouts/sampled_gepa")),
        "sampled_reflection": int(added("rollouts/sampled_reflection")),
        "reused": int(added("rollouts/reused")),
        "failed": int(added("rollouts/failed")),
        "tokens": int(added("rollouts/sampled_tokens")),
        "usd": None if unknown else (lines[-1].get("usd_total") if lines else None),
        "reflection_calls": int(added("fast/reflection_calls")),
        "reflection_failures": int(added("fast/reflection_failures")),
        "reflection_refused": int(added("fast/reflection_refused")),
        "reflection_tokens": int(added("fast/input_tokens") + added("fast/output_tokens")),
    }


# -- prompts -----------------------------------------------------------------------------------------------------------


PROMPT = ("hash", "parent", "cycle", "components", "accepted", "reason", "mean", "scores", "feedback")


def read_prompts(path: Path) -> dict[str, Any]:
    """`prompts`: every candidate once, parents before children, with what happened to it; `grids`: a table of scores for
    each cycle; `population`: hashes, best first.
    """
    nodes: dict[str, dict[str, Any]] = {}
    grids: dict[int, dict[str, Mapping[str, float]]] = {}
    for line in _checked(read_candidates, path, "prompts.jsonl", PROMPT):
        parent = line["parent"] if line["parent"] in nodes else None
        node = nodes.get(line["hash"])
        if node is None:
            node = nodes[line["hash"]] = {
                "hash": line["hash"], "parent": parent, "cycle": line["cycle"], "components": _clipped(line["components"]),
                "accepted": False, "mean": None, "scored": 0, "feedback": [], "events": [],
            }  # fmt: skip
        node["accepted"] = node["accepted"] or bool(line["accepted"])
        if line["scores"]:
            node["mean"], node["scored"] = _digits(line["mean"]), len(line["scores"])
            grids.setdefault(line["cycle"], {})[line["hash"]] = line["scores"]
        node["feedback"] = node["feedback"] or [_clip(text, LONGEST_FEEDBACK) for text in line["feedback"]]
        _add_event(node["events"], [line["cycle"], bool(line["accepted"]), line["reason"], _digits(line["mean"]), 1])
    population = _population(path, nodes)
    return {
        "prompts": list(nodes.values()),
        "grids": [_grid(cycle, rows) for cycle, rows in grids.items()],
        "population": population,
    }


def _add_event(events: list[list[Any]], event: list[Any]) -> None:
    """The same thing again is counted, not listed."""
    for known in events:
        if known[:4] == event[:4]:
            known[4] += 1
            return
    events.append(event)


def _grid(cycle: int, rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    problems = list(dict.fromkeys(problem for scores in rows.values() for problem in scores))
    scores = {hash_: [_digits(row.get(problem)) for problem in problems] for hash_, row in rows.items()}
    return {"cycle": cycle, "problems": problems, "rows": [[hash_, row] for hash_, row in scores.items()]}


def _population(path: Path, nodes: dict[str, dict[str, Any]]) -> list[str]:
    """The population's hashes. A member that prompts.jsonl does not have (RL alone has no search) becomes a node."""
    file = path / "population.json"
    if not file.is_file():
        return []
    record = _checked(
        lambda _: [json.loads(file.read_text(encoding="utf-8"))], path, "population.json", ("population",)
    )
    members = record[0]["population"]
    for member in members:
        nodes.setdefault(
            member["hash"],
            {
                "hash": member["hash"], "parent": None, "cycle": 0, "components": _clipped(member["components"]),
                "accepted": True, "mean": _digits(member["mean"]), "scored": 0, "feedback": [], "events": [],
            },
        )  # fmt: skip
    return [member["hash"] for member in members]


# -- samples -----------------------------------------------------------------------------------------------------------

SAMPLE = ("step", "problem", "prompt", "text", "reward", "feedback", "failure", "finish_reason", "source")


def read_samples(path: Path) -> list[list[Any]]:
    """The kept rollouts, oldest first; each a row of the fields of SAMPLE."""
    files = {int(file.stem.removeprefix("step_")): file for file in path.glob("rollouts/step_*.jsonl")}
    rows = []
    for step, file in sorted(files.items()):
        *complete, _torn = file.read_bytes().split(b"\n")
        lines = _checked(
            lambda _, found=complete: [json.loads(each) for each in found], path, f"rollouts/{file.name}", ("text",)
        )
        for line in lines:
            line["text"] = _clip(line["text"], LONGEST_COMPLETION)
            line["feedback"] = _clip(line.get("feedback") or "", LONGEST_FEEDBACK)
            line["reward"] = _digits(line.get("reward"))
            rows.append([step, *(line.get(name) for name in SAMPLE[1:])])
    return rows


# -- inside ------------------------------------------------------------------------------------------------------------


def _read_config(path: Path) -> dict[str, Any]:
    """The config as it stands, so that runs of other versions can be shown too."""
    try:
        tree = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path / 'config.yaml')!r} is no YAML file: {error}") from error
    sections = ("task", "model", "evaluation")
    if not isinstance(tree, dict) or not all(isinstance(tree.get(name, {}), dict) for name in sections):
        raise ConfigError(f"{str(path / 'config.yaml')!r} is not the config of a run")
    return tree


def _checked(read: Any, path: Path, name: str, needed: Sequence[str] = ()) -> Any:
    """What `read` finds in a file of JSON lines; each line must have what is needed."""
    try:
        found = read(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path / name)!r} is broken: {error}") from error
    for number, line in enumerate(found, start=1):
        missing = [key for key in needed if not isinstance(line, dict) or key not in line]
        if missing:
            raise ConfigError(
                f"{str(path / name)!r}, line {number}: {missing[0]!r} is missing: this is not the file of a run"
            )
    return found


def _clipped(components: Mapping[str, str]) -> dict[str, str]:
    return {name: _clip(text, LONGEST_PROMPT) for name, text in components.items()}


def _clip(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _digits(value: Any) -> Any:
    """Six significant digits are more than a page can show, and a third of the bytes."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
