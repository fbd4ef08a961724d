"""Evaluation after training: any weights (base, checkpoint, model) under any prompt (seed, best, population, text)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastslow.config import Config, load_config, with_overrides
from fastslow.errors import ConfigError, positive
from fastslow.measuring.evaluation import (
    EvaluationResult,
    KlResult,
    by_kind_mean,
    complementary_mean,
    evaluate_prompts,
    kl_to_base,
)
from fastslow.measuring.intervals import Interval
from fastslow.methods.registry import find_method
from fastslow.runs.directory import finite
from fastslow.runs.files import is_run
from fastslow.runs.needed import check_whole, find_weights
from fastslow.runs.owner import check_trusted
from fastslow.runs.reader import Run
from fastslow.runs.samples import context_of, sample_line
from fastslow.seeding import derive_seed
from fastslow.slow.bare import is_bare
from fastslow.slow.build import ADAPTER, build_engine
from fastslow.slow.engine import PolicyEngine, SamplingParams
from fastslow.tasks.base import Split, Task, reference_of
from fastslow.text import printable
from fastslow.types import SYSTEM, Problem, Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationRow:
    """One prompt's numbers; `kl` where it was asked for."""

    label: str
    result: EvaluationResult
    kl: KlResult | None


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, and under which settings."""

    target: str
    weights: str
    task: str
    split: Split
    temperature: float
    top_p: float
    seed: int
    rows: tuple[EvaluationRow, ...]
    complementary: tuple[float, Interval] | None = None
    """Of several prompts: mean@k with each problem under the prompt that serves it best, and its interval."""
    by_kind: tuple[float, Interval] | None = None
    """Of a population, where problems are of several kinds: mean@k with each kind under the member chosen for it."""
    asked: tuple[tuple[Problem, str | None], ...] = field(default=(), repr=False)
    """The problems, each with the reference answer where the task tells one."""

    def completions(self) -> Iterator[dict[str, Any]]:
        """Every completion with its question, the reference answer, the prompt's text,
        its score and the verifier's words.

        The fields are those of a line of rollouts/step_N.jsonl; `label` says which prompt it was.
        """
        asked = {problem.id: (problem, reference) for problem, reference in self.asked}
        for row in self.rows:
            for rollout in row.result.rollouts:
                problem, reference = asked.get(rollout.problem_id, (None, None))
                told = {"label": row.label, **context_of(problem, reference, row.result.prompt)}
                yield finite(sample_line(rollout, told))

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the rollouts; None for what was not measured. `scores`: rewards of each problem."""
        record = {name: value for name, value in vars(self).items() if name not in ("rows", "asked")}
        found: dict[str, Any] = finite(record | {"rows": [_row_to_json(row) for row in self.rows]})
        return found


def evaluate(
    target: str | Path,
    *,
    config: str | Path | Config | None = None,
    overrides: Sequence[str] = (),
    weights: str = "latest",
    prompt: str | Prompt | Sequence[str | Prompt] | None = None,
    split: Split = "validation",
    problems: int | None = None,
    k: int | None = None,
    kl: bool = False,
    trust_code: bool = False,
    tell: Callable[[str, dict[str, object]], object] | None = None,
) -> EvaluationReport:
    """mean@k, best@k and, if asked, the KL to the base.

    `target` is a run directory, or a model (then `config` names the task). `weights` of a run: `base`, `latest`,
    `step_N`. `prompt`: `seed`, `best`, `population`, the hash of a candidate, `@FILE`, a text of more than one word, a
    `Prompt`, or a sequence of such, which has a row for each; all are sampled together. None: what the weights were
    trained to answer under, `best` of a run, `seed` of a model and after distillation, both after training with the
    gradient under the seed prompt. `trust_code`: code that another user's run names may run.
    `tell` hears `phase` and `progress` events, as an observer of a run does.
    Raises: ConfigError, before any model loads, for anything that does not exist.
    """
    from fastslow.tasks.registry import build_task

    target = Path(target)
    run = Run(target) if is_run(target) else None
    settings = _settings(target, run, config, overrides)
    if run is not None:
        check_trusted(target, settings, trust_code=trust_code)
    task = build_task(settings.task)
    k = positive("k", k if k is not None else settings.evaluation.k)
    chosen = _problems(task, split, problems)
    named = _named(prompt, settings, run)
    prompts = [found for name in named for found in resolve_prompts(name, task, run)]
    adapter = _checkpoint(run, weights, settings.engine) if run is not None else _adapter(target)
    tell = tell or (lambda kind, payload: None)
    tell("phase", {"name": "loading"})
    engine = build_engine(settings, checkpoint=adapter, trains=False)
    _watch(engine, tell)
    rows = _measure(engine, task, settings, chosen, prompts, split, k, kl, tell)
    sampling = settings.evaluation
    label = weights if run is not None else "model"
    results, chosen_for = [row.result for row in rows], run.by_kind if run is not None else {}
    return EvaluationReport(
        str(target),
        label,
        settings.task.name,
        split,
        sampling.temperature,
        sampling.top_p,
        settings.seed,
        rows,
        complementary_mean(results) if len(named) == 1 else None,
        by_kind_mean(results, chosen_for, chosen) if list(named) == ["population"] and chosen_for else None,
        tuple((problem, reference_of(task, problem)) for problem in chosen),
    )


def resolve_prompts(prompt: str | Prompt, task: Task, run: Run | None) -> list[tuple[str, Prompt]]:
    """Labels and prompts for what the command line names. Raises ConfigError for what does not exist."""
    seed = task.seed_prompt
    if isinstance(prompt, Prompt):
        return [("given", prompt)]
    if prompt == "seed" or (prompt == "best" and run is None):
        return [("seed", seed)]
    if prompt in ("best", "population"):
        if run is None:
            raise ConfigError(f"prompt: {prompt!r} needs a run; of a model, give seed, @FILE or a text")
        members = list(dict.fromkeys(run.population)) or [seed]
        labelled = [(f"{index + 1} of {len(members)}", member) for index, member in enumerate(members)]
        return [("best", members[0])] if prompt == "best" else labelled
    if prompt.startswith("@"):
        path = Path(prompt[1:])
        if not path.is_file():
            raise ConfigError(f"prompt: the file {str(path)!r} does not exist")
        return [(path.name, seed.replace(SYSTEM, path.read_text(encoding="utf-8").strip()))]
    for candidate in run.candidates if run is not None else []:
        if candidate["hash"] == prompt:
            return [(prompt, Prompt.from_dict(candidate["components"]))]
    if not prompt or " " not in prompt:
        raise ConfigError(
            f"prompt: {prompt!r} is neither seed, best, population, a candidate's hash, @FILE nor a "
            "text of several words"
        )
    return [("text", seed.replace(SYSTEM, prompt))]


# -- inside ------------------------------------------------------------------------------------------------------------


def _named(
    prompt: str | Prompt | Sequence[str | Prompt] | None, settings: Config, run: Run | None
) -> Sequence[str | Prompt]:
    if prompt is None:
        return _answered_under(settings, run)
    if isinstance(prompt, (str, Prompt)):
        return [prompt]
    if not prompt:
        raise ConfigError("prompt: the sequence is empty: give at least one, or leave it out")
    return prompt


def _answered_under(settings: Config, run: Run | None) -> list[str]:
    """The prompts that weights are measured under where none is named."""
    if run is None or find_method(settings.method).answers_under_seed_prompt:
        return ["seed"]
    return ["best", "seed"] if is_bare(settings.slow) else ["best"]


def _settings(target: Path, run: Run | None, config: str | Path | Config | None, overrides: Sequence[str]) -> Config:
    if run is not None:
        if config is not None:
            raise ConfigError(f"config: {str(target)!r} is a run and has its own config: leave --config out")
        return with_overrides(run.config, overrides)
    if config is None:
        raise ConfigError(
            f"target: {str(target)!r} is not a run directory (there is no config.yaml in it). For a model, give "
            "--config with the YAML file that names its task"
        )
    if isinstance(config, Config):
        return with_overrides(config, overrides)  # it names the model
    return with_overrides(load_config(config, overrides), [] if _adapter(target) else [f"model.name={target}"])


def _adapter(target: Path) -> Path | None:
    return target if (target / ADAPTER).is_file() else None


def _checkpoint(run: Run, weights: str, engine: str) -> Path | None:
    """The checkpoint's directory; None stands for the base weights."""
    if weights == "base":
        return None
    found = find_weights(run, weights, ", and base")
    check_whole(run, found, engine)
    return found


def _problems(task: Task, split: Split, limit: int | None) -> Sequence[Problem]:
    problems = task.problems(split)
    if not problems:
        raise ConfigError(f"split: task {task.name!r} has no {split} problems")
    if limit is not None and positive("problems", limit) > len(problems):
        logger.warning(
            "problems: %d were asked for, and the %s split of %r has %d: all of them are measured",
            limit,
            split,
            printable(task.name),
            len(problems),
        )
    return problems if limit is None else problems[:limit]


def _watch(engine: PolicyEngine, tell: Callable[[str, dict[str, object]], object]) -> None:
    """Tell of completions, where the sampler does."""
    sampler: Any = getattr(engine, "sampler", None)
    if hasattr(sampler, "on_rows"):
        sampler.on_rows = lambda done, total: tell("progress", {"done": done, "total": total, "unit": "completions"})


def _measure(
    engine: PolicyEngine,
    task: Task,
    settings: Config,
    problems: Sequence[Problem],
    labelled: Sequence[tuple[str, Prompt]],
    split: Split,
    k: int,
    kl: bool,
    tell: Callable[[str, dict[str, object]], object],
) -> tuple[EvaluationRow, ...]:
    """A row for each prompt; all are sampled together, and prompts that are equal once."""
    prompts = list(dict.fromkeys(prompt for _, prompt in labelled))
    under = labelled[0][0] if len(labelled) == 1 else f"{len(labelled)} prompts"
    tell("phase", {"name": f"evaluating under {under}"})
    sampling, seed = settings.evaluation, derive_seed(settings.seed, split)
    params = SamplingParams(settings.sampling.max_tokens, sampling.temperature, sampling.top_p)
    results = evaluate_prompts(engine, task, problems, prompts, k, params, seed, settings.episodes)
    measured: Sequence[KlResult | None] = [None] * len(prompts)
    if kl:
        tell("phase", {"name": f"measuring the KL under {under}"})
        at_one = SamplingParams(settings.sampling.max_tokens)
        measured = kl_to_base(engine, task, problems, prompts, at_one, seed, settings.episodes)
    found = dict(zip(prompts, zip(results, measured, strict=True), strict=True))
    return tuple(EvaluationRow(label, *found[prompt]) for label, prompt in labelled)


def _row_to_json(row: EvaluationRow) -> dict[str, Any]:
    result = {name: value for name, value in vars(row.result).items() if name not in ("prompt", "rollouts")}
    prompt = row.result.prompt
    return {
        "label": row.label,
        "prompt": {"hash": prompt.hash, "components": prompt.as_dict()},
        **result,
        "scores": row.result.scores,
        "kl": {**asdict(row.kl), "per_completion": row.kl.per_completion} if row.kl is not None else None,
    }
