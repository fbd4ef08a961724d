"""The one reader of run directories: whatever wants to know what a run did goes through it.

Seconds are training seconds: evaluations draw the learning curve and are no part of what training costs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.runs import metrics as m
from fastslow.runs import shapes
from fastslow.runs.files import (
    CANDIDATE_KEYS,
    CONFIG,
    METRICS,
    POPULATION,
    PROMPTS,
    REFLECTION_KEYS,
    REFLECTIONS,
    CandidateLine,
    MemberRecord,
    ReflectionLine,
    SampleLine,
    checkpoint_steps,
    read_config,
    read_lines,
    read_record,
    read_tree,
    sample_files,
    step_of,
)
from fastslow.runs.metric import Merge, Metric
from fastslow.runs.shapes import check_metrics, checked_lines
from fastslow.types import Prompt


@dataclass(frozen=True)
class Evaluation:
    """What one line says of an evaluation; None for what was not measured.

    `accuracy` is mean@k, `best` best@k, `by_kind` mean@k with each kind of problems under its own prompt. Of a stream,
    `tasks` has mean@k of each task, `own` that of earlier tasks under the prompt that was kept for them. `kl` is that
    to the base in nats a token, over the full vocabulary or, where `kl_is_estimate`, estimated from the sampled
    tokens. `kl_completion` is its sum over a completion. `seed_accuracy`, `seed_kl` and `seed_kl_completion` are the
    same under the task's seed prompt.
    """

    k: int | None = None
    accuracy: float | None = None
    best: float | None = None
    by_kind: float | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)
    kl: float | None = None
    kl_is_estimate: bool = False
    seed_accuracy: float | None = None
    seed_kl: float | None = None
    kl_completion: float | None = None
    seed_kl_completion: float | None = None


def evaluation_of(values: Mapping[str, Any]) -> Evaluation:
    """The evaluation in a line of metrics, or in a point of a learning curve as results files keep it."""
    plain: dict[Metric, float] = {}
    tasks: dict[str, float] = {}
    own: dict[str, float] = {}
    k = None
    for key, value in values.items():
        found = m.find(key)
        if found is None or value is None or not m.is_evaluation(key):
            continue
        k = found.k if found.metric is m.VAL_MEAN else k
        if found.task is None:
            plain[found.metric] = value
        else:
            (own if found.metric is m.VAL_TASK_OWN else tasks)[found.task] = value
    return Evaluation(
        k,
        plain.get(m.VAL_MEAN),
        plain.get(m.VAL_BEST),
        plain.get(m.VAL_BY_KIND),
        tasks,
        own,
        plain.get(m.KL, plain.get(m.KL_ESTIMATE)),
        m.KL not in plain and m.KL_ESTIMATE in plain,
        plain.get(m.VAL_SEED),
        plain.get(m.KL_SEED, plain.get(m.KL_SEED_ESTIMATE)),
        plain.get(m.KL_COMPLETION),
        plain.get(m.KL_SEED_COMPLETION),
    )


def kl_name(evaluations: Iterable[Evaluation]) -> str:
    """What a table calls the KL of evaluations: whoever reads it must see that a figure is an estimate."""
    return f"KL{kl_mark(evaluations)}"


def kl_mark(evaluations: Iterable[Evaluation]) -> str:
    """What stands behind the KL of evaluations where only the figure is shown."""
    return " (estimate)" if any(each.kl_is_estimate for each in evaluations) else ""


@dataclass(frozen=True)
class Step:
    """One line of metrics.jsonl."""

    values: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Steps done; 0 for the line that comes before the first."""
        return int(self.values[m.STEP.name])

    @cached_property
    def evaluation(self) -> Evaluation:
        """What was measured at the end of the step."""
        return evaluation_of(self.values)

    @property
    def training_s(self) -> float:
        """Seconds without the evaluation; 0 for the line before the first step, which is an evaluation alone."""
        return self.amount(m.STEP_S) - self.amount(m.EVALUATE_S) if self.number else 0.0

    def get(self, metric: Metric) -> Any:
        """The value of a metric without places; None where it is null or missing."""
        return self.values.get(metric.name)

    def amount(self, metric: Metric) -> float:
        """The same for what is added up: 0 where it is null or missing."""
        return self.values.get(metric.name) or 0


@dataclass(frozen=True)
class Point:
    """One evaluation of the learning curve: where the run stood, and what was measured there.

    `rollouts` are those sampled since the start, GEPA's included; `seconds` those of training.
    """

    step: int
    rollouts: int
    seconds: float
    evaluation: Evaluation
    values: Mapping[str, Any] = field(repr=False)
    """By name as in metrics.jsonl."""

    def to_json(self) -> dict[str, Any]:
        """As results files keep it; `evaluation_of` reads it back."""
        return {"step": self.step, "rollouts": self.rollouts, "seconds": self.seconds, **self.values}


@dataclass(frozen=True)
class Totals:
    """What a run has cost so far. `usd` is None where a price is not known."""

    steps: int
    updates: int | None
    seconds: float
    evolve_s: float
    sample_s: float
    update_s: float
    evaluate_s: float
    sampled: int
    sampled_rl: int
    sampled_gepa: int
    sampled_reflection: int
    reused: int
    failed: int
    tokens: int
    usd: float | None
    reflection_calls: int
    reflection_failures: int
    reflection_refused: int
    reflection_tokens: int


KEPT_TOTALS = (
    "steps",
    "updates",
    "sampled",
    "sampled_gepa",
    "sampled_reflection",
    "reused",
    "seconds",
    "evolve_s",
    "sample_s",
    "update_s",
    "evaluate_s",
)
"""The totals that results files keep of a run."""


def merged(steps: Sequence[Step], metric: Metric) -> Any:
    """What several steps have of a metric together, as its `merge` says; None where no step has any of it."""
    values = [value for value in (step.get(metric) for step in steps) if value is not None]
    if not values or metric.merge is Merge.NONE:
        return None
    if metric.merge is Merge.SUM:
        return sum(values)
    if metric.merge is Merge.MEAN:
        return sum(values) / len(values)
    return max(values) if metric.merge is Merge.MAX else values[-1]


def seconds_at(steps: Sequence[Step]) -> list[float]:
    """Training seconds since the start at the end of each step."""
    seconds, found = 0.0, []
    for step in steps:
        seconds += step.training_s
        found.append(round(max(0.0, seconds), 3))
    return found


def curve_of(steps: Sequence[Step]) -> list[Point]:
    """The learning curve: the steps at which something was evaluated."""
    points = []
    for step, seconds in zip(steps, seconds_at(steps), strict=True):
        values = {key: value for key, value in step.values.items() if m.is_evaluation(key)}
        if values:
            rollouts = int(step.amount(m.SAMPLED_TOTAL))
            points.append(Point(step.number, rollouts, seconds, step.evaluation, values))
    return points


def totals_of(steps: Sequence[Step]) -> Totals:
    """What the steps have cost together."""
    trained = [step for step in steps if step.number]

    def total(metric: Metric) -> Any:
        return merged(trained, metric) or 0

    unknown = any(m.USD.name in step.values and step.get(m.USD) is None for step in trained)

    def seconds(metric: Metric) -> float:
        return round(float(total(metric)), 3)

    return Totals(
        steps=trained[-1].number if trained else 0,
        updates=trained[-1].get(m.POLICY_VERSION) if trained else 0,
        seconds=seconds_at(steps)[-1] if steps else 0.0,
        evolve_s=seconds(m.EVOLVE_S),
        sample_s=seconds(m.SAMPLE_S),
        update_s=seconds(m.UPDATE_S),
        evaluate_s=seconds(m.EVALUATE_S),
        sampled=int(total(m.SAMPLED_TOTAL)),
        sampled_rl=int(total(m.SAMPLED_RL)),
        sampled_gepa=int(total(m.SAMPLED_GEPA)),
        sampled_reflection=int(total(m.SAMPLED_REFLECTION)),
        reused=int(total(m.REUSED)),
        failed=int(total(m.FAILED)),
        tokens=int(total(m.SAMPLED_TOKENS)),
        usd=None if unknown or not steps else steps[-1].get(m.USD_TOTAL),
        reflection_calls=int(total(m.REFLECTION_CALLS)),
        reflection_failures=int(total(m.REFLECTION_FAILURES)),
        reflection_refused=int(total(m.REFLECTION_REFUSED)),
        reflection_tokens=int(total(m.INPUT_TOKENS) + total(m.OUTPUT_TOKENS)),
    )


class Run:
    """A run directory, read. Each file is read when it is first asked for, and once.

    Raises: ConfigError where a file is broken, or is not the file of a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @cached_property
    def config(self) -> Config:
        """The config that the run was made with. Raises ResumeError where there is none."""
        return read_config(self.path)

    @cached_property
    def config_tree(self) -> dict[str, Any]:
        """The config as it stands in the file, so that runs of other versions can be shown too."""
        path = self.path / CONFIG
        tree = read_tree(path)
        sections = ("task", "model", "evaluation")
        if not all(isinstance(tree.get(name, {}), dict) for name in sections):
            raise ConfigError(f"{str(path)!r} is not the config of a run")
        return tree

    @cached_property
    def steps(self) -> list[Step]:
        """The lines of metrics.jsonl; the first is that before the first step."""
        path = self.path / METRICS
        lines = read_lines(path, (m.STEP.name,))
        for number, line in enumerate(lines, start=1):
            check_metrics(line, f"{str(path)!r}, line {number}")
        return [Step(line) for line in lines]

    @property
    def trained(self) -> list[Step]:
        """The lines without that before the first step."""
        return [step for step in self.steps if step.number]

    @cached_property
    def curve(self) -> list[Point]:
        """The learning curve."""
        return curve_of(self.steps)

    @cached_property
    def totals(self) -> Totals:
        """What the run has cost so far."""
        return totals_of(self.steps)

    @cached_property
    def candidates(self) -> list[CandidateLine]:
        """Every candidate that a cycle proposed or scored, in order."""
        return checked_lines(self.path / PROMPTS, CANDIDATE_KEYS, shapes.CANDIDATE)

    @cached_property
    def reflections(self) -> list[ReflectionLine]:
        """What was asked of a reflection LM, in order; empty where none was."""
        return checked_lines(self.path / REFLECTIONS, REFLECTION_KEYS, shapes.REFLECTION)

    @cached_property
    def members(self) -> list[MemberRecord]:
        """The current population as population.json has it, best first; empty before the first cycle."""
        members: list[MemberRecord] = self._population.get("population", [])
        return members

    @property
    def population(self) -> list[Prompt]:
        """The current population, best first; empty before the first cycle."""
        return [Prompt.from_dict(member["components"]) for member in self.members]

    @property
    def by_kind(self) -> dict[str, str]:
        """By kind of problems, the hash of the member that is best for it; empty where there is one kind."""
        return dict(self._population.get("by_kind", {}))

    @cached_property
    def samples(self) -> dict[int, list[SampleLine]]:
        """By step, the rollouts that were kept to be read."""
        return {step_of(path): self.samples_of(path) for path in sample_files(self.path)}

    def samples_of(self, path: Path) -> list[SampleLine]:
        """Those of one step: of a long run all are too much to hold at once. `path`: a file of `sample_files`."""
        return checked_lines(path, ("text",), shapes.SAMPLE)

    @cached_property
    def checkpoints(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return checkpoint_steps(self.path)

    @property
    def losses(self) -> list[str]:
        """What the run had written and its files no longer hold, in words; nothing of a run that is whole."""
        newest, last = (max(steps, default=0) for steps in (self.checkpoints, [step.number for step in self.steps]))
        lost = []
        # A run that an error ended may be saved after a step whose line is still to be written.
        if newest and (not self.steps or last < newest - 1):
            what = "is gone or empty" if not self.steps else f"ends at step {last}"
            lost.append(
                f"{METRICS} {what}, but there is a checkpoint of step {newest}: what is shown is a part of the run"
            )
        known = {line["hash"] for line in self.candidates}
        # Of what was never searched for, such as the seed prompt of RL alone, there is no line.
        scored = [member["hash"] for member in self.members if member["mean"] is not None]
        unknown = [hash_ for hash_ in scored if hash_ not in known]
        if unknown:
            what = "lacks" if known else "is gone or empty, so it lacks"
            lost.append(f"{PROMPTS} {what} {len(unknown)} of the prompts in {POPULATION}, {unknown[0]} first")
        return lost

    @cached_property
    def _population(self) -> dict[str, Any]:
        path = self.path / POPULATION
        record = read_record(path, ("population",))
        shapes.check_shape(shapes.POPULATION, record, repr(str(path)))
        return record


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a torn last line is left out."""
    return read_lines(Path(run) / METRICS)


def read_candidates(run: str | Path) -> list[CandidateLine]:
    """The lines of prompts.jsonl; a torn last line is left out."""
    return read_lines(Path(run) / PROMPTS)


def read_reflections(run: str | Path) -> list[ReflectionLine]:
    """The lines of reflections.jsonl; a torn last line is left out. Empty where no language model reflected."""
    return Run(run).reflections


def read_population(run: str | Path) -> list[Prompt]:
    """The current population, best first; empty before the first cycle."""
    return Run(run).population
