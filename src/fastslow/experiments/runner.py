"""Runs an experiment: a list of ordinary runs, side by side in processes, each finished once and then never repeated.

A part is one `fastslow train` with its own settings, and measurements of what came out of it. Its line is appended to
the results file the moment it ends; a part that has a line is skipped, one that was cut is resumed. What a part starts
from (another part's weights) is waited for.
"""

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fastslow.config import parse_config
from fastslow.errors import ConfigError, FastslowError, told
from fastslow.experiments.parts import Experiment, Measure, Part, fingerprint_of, located, part_config
from fastslow.experiments.records import Line, Measured, Outcome
from fastslow.given import is_placeholder, lend_copies, lent
from fastslow.quiet import quiet_libraries
from fastslow.runs.directory import RunDirectory
from fastslow.runs.files import checkpoint_steps, is_run, read_lines
from fastslow.runs.reader import KEPT_TOTALS, Run

FAILURES = "failures.jsonl"
POLL_S = 0.5
START_METHOD = "spawn"
"""How `multiprocessing` starts a part's process: anew, since torch's threads and a GPU do not survive a fork."""


@dataclass(frozen=True)
class Planned:
    """What ends a part: its steps, or its budget of sampled rollouts, whichever comes first."""

    steps: int
    rollouts: int | None = None

    @property
    def work(self) -> int:
        """How large the part is among those of its experiment: rollouts where they have a budget, steps otherwise."""
        return self.rollouts or self.steps

    def done(self, steps: int, rollouts: float) -> float:
        """How much of the work is done after so many steps and rollouts."""
        return self.work * min(1.0, max(steps / self.steps, rollouts / self.rollouts if self.rollouts else 0.0))


@dataclass(frozen=True)
class Status:
    """What is known while an experiment runs: parts that are under way, waiting, done, failed;
    `ended` in these `seconds`.

    `planned` says what ends every part.
    """

    experiment: str
    directory: Path
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    done: tuple[str, ...]
    failed: tuple[str, ...]
    seconds: float
    ended: int
    planned: Mapping[str, Planned] = field(default_factory=dict)


Watcher = Callable[[Status], None]


def run_experiment(
    experiment: Experiment,
    directory: Path,
    *,
    workers: int = 1,
    watcher: Watcher | None = None,
    results: Path | None = None,
) -> list[Line]:
    """Run what has not been run yet; every part's line, in the order of the parts. The runs lie in `directory`, their
    lines in the file `results`, `results.jsonl` beside them unless it is given.

    Raises: ConfigError, before anything runs, for a part whose config does not hold; FastslowError when parts failed,
    after all the others have ended.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _check(experiment, directory)
    results = results or directory / "results.jsonl"
    known = {line["part"]: line for line in read_lines(results)}
    _check_known(experiment, directory, known, results)
    _forget_lost_starts(experiment, directory, known)
    controller = _Controller(experiment, directory, results, workers, watcher or (lambda status: None), known)
    controller.run()
    failed = controller.failed
    if failed:
        first = next(iter(failed.items()))
        raise FastslowError(
            f"{len(failed)} of {len(experiment.parts)} parts of {experiment.name!r} failed: {', '.join(failed)}. The "
            f"first, {first[0]}: {first[1]}. What is done is kept in {results}; run it again to go on"
        )
    return [known[part.name] for part in experiment.parts]


def check_tasks(experiment: Experiment, directory: Path) -> None:
    """What `fastslow train` checks before it loads a model, for every part;
    and that there is a test split to measure on.

    Raises: ConfigError or TaskError, with the part's name in front.
    """
    from fastslow.training.build import check

    for part in experiment.parts:
        config = part_config(experiment, part, directory)
        try:
            _, task = check(config)
        except FastslowError as error:
            raise type(error)(f"part {part.name!r}: {error}") from error
        if part.measures and not task.problems("test"):
            raise ConfigError(
                f"part {part.name!r}: task {config.task.name!r} has no test problems, which the experiment is measured "
                "on: give it a test split"
            )


# -- the controller ----------------------------------------------------------------------------------------------------


def _check(experiment: Experiment, directory: Path) -> None:
    names = [part.name for part in experiment.parts]
    if len(set(names)) < len(names):
        raise ConfigError(f"experiment {experiment.name!r}: two parts have one name among {', '.join(names)}")
    for position, part in enumerate(experiment.parts):
        part_config(experiment, part, directory)
        for needed in part.needs:
            if needed not in names[:position]:
                raise ConfigError(f"part {part.name!r} starts from {needed!r}, which is no earlier part")


def _check_known(experiment: Experiment, directory: Path, known: Mapping[str, Line], results: Path) -> None:
    """Raises ConfigError where a part that has a line was run with other settings:
    old results are never passed off as new.
    """
    for part in experiment.parts:
        line = known.get(part.name)
        if line and line.get("fingerprint", "") not in ("", fingerprint_of(experiment, part, directory)):
            raise ConfigError(
                f"part {part.name!r} has a line in {results} that was run with other settings: give another output, "
                "or take the line out"
            )


def _forget_lost_starts(experiment: Experiment, directory: Path, known: dict[str, Line]) -> None:
    """A part whose weights or prompts another still needs, and which are gone, is run again: results outlive runs."""
    for part in reversed(experiment.parts):
        for needed in part.needs if part.name not in known else ():
            if needed in known and not (directory / needed / "checkpoints").is_dir():
                del known[needed]


class _Controller:
    """Hands the parts that have no line to worker processes, as many at a time as there are workers, and books them."""

    def __init__(
        self,
        experiment: Experiment,
        directory: Path,
        results: Path,
        workers: int,
        watcher: Watcher,
        known: dict[str, Line],
    ) -> None:
        self.experiment, self.directory, self.results = experiment, directory, results
        self.workers, self.watcher, self.known = workers, watcher, known
        self.todo = [part for part in experiment.parts if part.name not in known]
        self.running: dict[Future[Outcome], Part] = {}
        self.failed: dict[str, str] = {}
        configs = {part.name: part_config(experiment, part, directory) for part in experiment.parts}
        self.planned = {name: Planned(config.steps, config.max_rollouts) for name, config in configs.items()}
        self.before, self.started = len(known), time.monotonic()

    def run(self) -> None:
        """Until every part has a line, has failed, or waits for one that has failed."""
        if self.todo:
            with self._pool() as pool:
                try:
                    self._loop(pool)
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        self.watcher(self.status())

    def _pool(self) -> Executor:
        """Processes; this one alone where a config names objects that no other process has."""
        if any(is_placeholder(name) for name in lent()):
            return _Here()
        context = multiprocessing.get_context(START_METHOD)
        workers = min(self.workers, len(self.todo))
        return ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=quiet_libraries)

    def status(self) -> Status:
        """Where every part stands."""
        return Status(
            self.experiment.name,
            self.directory,
            tuple(part.name for part in self.running.values()),
            tuple(part.name for part in self.todo),
            tuple(part.name for part in self.experiment.parts if part.name in self.known),
            tuple(self.failed),
            time.monotonic() - self.started,
            len(self.known) - self.before,
            self.planned,
        )

    def _loop(self, pool: Executor) -> None:
        while self.todo or self.running:
            self._submit(pool)
            self.watcher(self.status())
            if not self.running:
                break
            ended, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in ended:
                self._collect(self.running.pop(future), future)

    def _submit(self, pool: Executor) -> None:
        """Start as many parts as there are free workers, those whose start is there."""
        for part in list(self.todo):
            failed = [needed for needed in part.needs if needed in self.failed]
            if failed:
                self.failed[part.name] = f"its start, {failed[0]}, failed"
                self.todo.remove(part)
            elif len(self.running) < self.workers and all(needed in self.known for needed in part.needs):
                start, prompt = (
                    None if name is None else str(self.directory / name) for name in (part.start, part.prompt)
                )
                config = part_config(self.experiment, part, self.directory).model_dump(mode="json")
                # Side by side, runs that each take all cores are slower by far than runs that share them.
                config["threads"] = config["threads"] or max(1, (os.cpu_count() or 1) // self.workers)
                measures = tuple(located(measure, self.experiment.moved) for measure in part.measures)
                self.running[pool.submit(run_part, config, measures, start, prompt)] = part
                self.todo.remove(part)

    def _collect(self, part: Part, future: Future[Outcome]) -> None:
        """Book what a part brought. One that was interrupted is neither done nor failed."""
        error = future.exception()
        if error is not None:
            self.failed[part.name] = f"{type(error).__name__}: {told(error)}"
            _append(self.directory / FAILURES, {"part": part.name, "error": self.failed[part.name]})
            return
        outcome = future.result()
        if outcome["interrupted"]:
            raise KeyboardInterrupt
        line = {
            "part": part.name,
            "labels": dict(part.labels),
            "settings": dict(part.settings),
            "start": part.start,
            "fingerprint": fingerprint_of(self.experiment, part, self.directory),
        }
        # As it will be read back: lists for tuples.
        self.known[part.name] = json.loads(json.dumps(line | outcome))
        _append(self.results, self.known[part.name])


class _Here(Executor):
    """Runs what it is given at once, in this process, with copies of the models that were given."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future, which is done."""
        future: Future[Any] = Future()
        try:
            with lend_copies():
                future.set_result(function(*args, **kwargs))
        except Exception as error:  # as a process would hand it over
            future.set_exception(error)
        return future


def _append(path: Path, record: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


# -- one part, in a process of its own ---------------------------------------------------------------------------------


def run_part(
    tree: dict[str, object], measures: Sequence[Measure], start: str | None, prompt: str | None = None
) -> Outcome:
    """Train one part, or go on with it, and measure it. What comes in and goes out crosses a process boundary.

    `start` is the run whose last weights it begins with, `prompt` the run whose best prompt is its seed prompt.
    """
    from fastslow.loop import train

    config = parse_config(tree)
    output = Path(config.output)
    if start is not None:
        name = str(Path(start) / "checkpoints" / f"step_{checkpoint_steps(Path(start))[-1]}")
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    if prompt is not None:
        best = Run(Path(prompt)).population[0].as_dict()
        config = config.model_copy(update={"task": config.task.model_copy(update={"seed_prompt": best})})
    if checkpoint_steps(output) and RunDirectory(output).latest_checkpoint() is None:
        shutil.rmtree(output)  # it was finished, and what it brought was not written down
    resume = output if is_run(output) else None
    result = train(config, resume=resume)
    outcome: dict[str, object] = {"interrupted": result.interrupted}
    if not result.interrupted:
        outcome |= summarise(output)
        outcome["measures"] = _all_measured(output, measures)
        for step in checkpoint_steps(output):
            shutil.rmtree(output / "checkpoints" / f"step_{step}" / "resume", ignore_errors=True)
    return cast(Outcome, outcome)


def summarise(run: Path) -> dict[str, Any]:
    """What an experiment keeps of a run: the curve of its evaluations, its totals, its best prompt."""
    read = Run(run)
    totals = asdict(read.totals)
    population = read.population
    return {
        "curve": [point.to_json() for point in read.curve],
        "totals": {name: totals[name] for name in KEPT_TOTALS},
        "prompt": population[0].system if population else None,
    }


def _all_measured(run: Path, measures: Sequence[Measure]) -> dict[str, Measured]:
    """By name. What differs in its prompt alone is measured together."""
    found: dict[str, Measured] = {}
    for measure in measures:
        if measure.name not in found:
            found |= _measured(run, [other for other in measures if other == measure or _go_together(measure, other)])
    return {measure.name: found[measure.name] for measure in measures}


def _go_together(one: Measure, other: Measure) -> bool:
    """Each has one row, and the same weights, settings and KL."""
    single = {one.prompt, other.prompt} <= {"best", "seed"}
    return single and replace(one, name="", prompt=None) == replace(other, name="", prompt=None)


def _measured(run: Path, measures: Sequence[Measure]) -> dict[str, Measured]:
    from fastslow.measuring.evaluate import evaluate

    first = measures[0]
    report = evaluate(
        run,
        overrides=[f"{key}={json.dumps(value)}" for key, value in first.settings.items()],
        weights=first.weights,
        prompt=first.prompt if len(measures) == 1 else [measure.prompt or "best" for measure in measures],
        split="test",
        kl=first.kl,
    )
    # A line keeps figures: thousands of rewards would bury them.
    rows = [
        cast(Measured, {name: value for name, value in row.items() if name != "scores"})
        for row in report.to_json()["rows"]
    ]
    if report.complementary is not None:
        whole = {"mean": report.complementary[0], "mean_interval": report.complementary[1]}
        rows[0] |= cast(Measured, whole | {"members": [row["mean"] for row in rows]})
    if report.by_kind is not None:
        rows[0] |= {"by_kind": report.by_kind[0], "by_kind_interval": report.by_kind[1]}
    return {measure.name: row for measure, row in zip(measures, rows, strict=False)}
