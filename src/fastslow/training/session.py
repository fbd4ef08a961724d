"""What Algorithm 1 needs around it: sampling with reuse, counting, evaluation, logging, checkpoints, resuming.

One controller owns the weights (through the engine) and the population; everything else receives values.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from fastslow.config import Config
from fastslow.errors import DivergedError, InfrastructureError, ServerError, TooLongError
from fastslow.fast.optimiser import Candidate, Evaluation, Evolution, PromptOptimiser, Usage
from fastslow.fast.pareto import mean_score
from fastslow.measuring.validation import Validation
from fastslow.rollouts.play import RolloutRequest, make_rollouts
from fastslow.rollouts.store import RolloutStore
from fastslow.runs.directory import RunDirectory, checkpoint_steps, read_metrics
from fastslow.runs.metrics import StepRecord
from fastslow.seeding import derive_seed
from fastslow.slow.advantages import AdvantageSettings, build_datums
from fastslow.slow.context_room import ContextRoom
from fastslow.slow.distillation import build_distill_datums
from fastslow.slow.engine import LossSettings, PolicyEngine, SamplingParams, UpdateMetrics
from fastslow.tasks.base import Stage, Task
from fastslow.training.checkpoints import Checkpoints, Mark
from fastslow.training.curriculum import Curriculum, union
from fastslow.training.progress import Observer, SilentObserver
from fastslow.training.resume import read_resume
from fastslow.training.state import LoopState
from fastslow.types import Problem, Prompt, Rollout

logger = logging.getLogger(__name__)

Group = list[Rollout]

MAX_STUCK_STEPS = 3
"""So many steps without an update, the first left out because its loss or gradient was not finite, end a run."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `best_prompt` is the population's first member, after distillation the teacher's; `metrics` the last
    step's record.
    """

    run: Path
    steps: int
    interrupted: bool
    best_prompt: Prompt
    population: tuple[Prompt, ...]
    metrics: dict[str, Any]


class TrainingSession:
    """One run of the loop, from open to finish. Use it as a context manager: it owns a lock and a signal handler."""

    def __init__(
        self,
        config: Config,
        task: Task,
        engine: PolicyEngine,
        optimiser: PromptOptimiser,
        run: RunDirectory,
        observer: Observer,
        room: ContextRoom,
    ) -> None:
        self.config, self.task, self.engine, self.optimiser = config, task, engine, optimiser
        self.run, self.observer, self.room = run, observer, room
        self.state = LoopState(population=(task.seed_prompt,) * config.population_size)
        self.validation = Validation(config, task, engine)
        self.store = RolloutStore(config.loop.reuse_max_age)
        self._curricula: dict[int, Curriculum] = {}
        self.record = StepRecord()
        self.interrupted = False
        self._last_record: dict[str, Any] = {}
        self.checkpoints = Checkpoints(run, engine)
        self._closing = False
        self._previous_handler: Any = None

    # -- opening and closing -------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, config: Config, *, resume: Path | None, observer: Observer | None) -> "TrainingSession":
        """Check everything, then load the model; continue from the newest checkpoint where `resume` names a run."""
        from fastslow.training.build import prepare

        parts = prepare(config, resume=resume)
        shown = observer or SilentObserver()
        session = cls(parts.config, parts.task, parts.engine, parts.optimiser, parts.run, shown, parts.room)
        if resume is not None:
            session._restore()
        return session

    def __enter__(self) -> "TrainingSession":
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        self.observer.on_event(
            "start",
            {
                "steps": self.config.steps,
                "max_rollouts": self.config.max_rollouts,
                "output": str(self.run.path),
                "step": self.state.step,
                "rollouts": self.state.sampled_total,
                "engine": self.engine.describe(),
            },
        )
        try:
            if self._closing:
                self._close_step()
            elif self.state.step == 0 and not self._last_record:
                self._log_start()
                self._set_mark()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
        try:
            if isinstance(error, DivergedError):
                error.add_note(self._last_good())
            elif isinstance(error, Exception):
                error.add_note(self.checkpoints.rescue(error, self.state.step))
        finally:
            self.run.close()
        if kind is not None:
            self.observer.on_event("abort", {"error": f"{kind.__name__}: {error}"})

    @property
    def finished(self) -> bool:
        budget = self.config.max_rollouts
        spent = budget is not None and self.state.sampled_total >= budget
        return self.interrupted or spent or self.state.step >= self.config.steps

    def finish(self) -> TrainResult:
        """Save, and say how the run ended."""
        self._save()
        result = TrainResult(
            self.run.path, self.state.step, self.interrupted, self.state.population[0], self.state.population,
            self._last_record,
        )  # fmt: skip
        self.observer.on_event("end", {"result": result})
        return result

    # -- Algorithm 1 ---------------------------------------------------------------------------------------------------

    def next_minibatches(self) -> list[list[Problem]]:
        """The T minibatches of the current cycle."""
        start = self.state.step - self.state.step_in_cycle
        if self._searching:
            start *= self.config.loop.steps_per_cycle
        stage = self.task.stage(start)
        if stage.first_step not in self._curricula:
            self._curricula[stage.first_step] = Curriculum(
                stage.task.problems("train"), self.config.loop.problems_per_step, self.config.seed
            )
        return self._curricula[stage.first_step].lookahead(start - stage.first_step, self.config.loop.steps_per_cycle)

    def remaining(self, lookahead: list[list[Problem]]) -> Iterator[list[Problem]]:
        """The cycle's minibatches that are still to be trained on; prompts alone take one step a cycle."""
        yield from lookahead[self.state.step_in_cycle :] if not self._searching else [[]]

    def evolve(self, lookahead: list[list[Problem]]) -> tuple[Prompt, ...]:
        """Move the fast weights, unless the run was resumed after this cycle had moved them."""
        state = self.state
        if self._distilling:
            return self._student_prompts()
        if state.evolved_for_step == state.step - state.step_in_cycle:
            return state.population
        if not self._search_is_due():
            state.cycle += 1
            state.evolved_for_step = state.step
            return state.population
        self._phase("evolving")
        with self.record.timer("evolve"):
            evolution = self.optimiser.evolve(
                tuple(dict.fromkeys(state.population)),
                self._anchors(union(lookahead)),
                self._evaluate_pairs,
                size=self.config.population_size,
                seed=derive_seed(self.config.seed, "evolve", state.cycle),
                previous_scores={hash_: mean_score(scores) for hash_, scores in state.scores.items()},
            )
        self._adopt(evolution)
        state.pace.searched(evolution.paid, self.config.fast.max_backoff)
        # A search is dear: what fails after it does not make it be done again.
        self._set_mark(record=True)
        return state.population

    def rollout_groups(self, minibatch: Sequence[Problem], population: Sequence[Prompt]) -> list[Group]:
        """One group of G rollouts a problem, G/K under each prompt; from the store where it is fresh enough."""
        if not minibatch:
            return []
        self._phase("sampling")
        share = self.config.loop.group_size // len(population)
        counts = {prompt: population.count(prompt) * share for prompt in population}
        slots = [(problem, prompt, count) for problem in minibatch for prompt, count in counts.items()]
        version = self.engine.policy_version
        reused = [self.store.take(problem.id, prompt.hash, version, count) for problem, prompt, count in slots]
        requests = [
            RolloutRequest(problem, prompt, count - len(served), self._seed("rl", self.state.step, problem, prompt))
            for (problem, prompt, count), served in zip(slots, reused, strict=True)
        ]
        with self.record.timer("sample"):
            sampled = self._roll_out(requests, "rl")
        self.record.count_rl(sampled, reused)
        self.state.sampled_rl += sum(len(rollouts) for rollouts in sampled)
        groups = _by_problem(minibatch, [[*old, *new] for old, new in zip(reused, sampled, strict=True)])
        self._check_failures(groups)
        return groups

    def update(self, groups: Sequence[Group]) -> None:
        """Move the slow weights by one step."""
        self.record.groups(groups)
        self.state.pace.observe(r.reward for group in groups for r in group if r.reward is not None)
        if self._searching:
            return
        self._phase("updating")
        slow, trained = self.config.slow, self.state.step - self.config.search_steps
        learning_rate = slow.learning_rate * min(1.0, (trained + 1) / max(slow.warmup_steps, 1))
        step, version = self._distill if self._distilling else self._reinforce, self.engine.policy_version
        with self.record.timer("update"):
            metrics, datums = step(groups, learning_rate)
        self.record.update(metrics, learning_rate, datums)
        self._count_stuck(metrics, version)

    def end_step(self) -> None:
        """Close a step, whose update is done: evaluate and save where it is due, write the metrics line."""
        state = self.state
        cycle_steps = 1 if self._searching else self.config.loop.steps_per_cycle
        state.step += 1
        state.step_in_cycle = (state.step_in_cycle + 1) % cycle_steps
        self.store.expire(self.engine.policy_version)
        self._set_mark(record=True, closing=True)
        self.run.write_rollout_samples(self.state.step, self.record.rollouts, self.config.rollout_samples)
        self._close_step()

    def _close_step(self) -> None:
        every = self.config.evaluation.every
        last = self.finished and not self.interrupted
        if every and (self.state.step % every == 0 or last):
            self._evaluate()
        self._write_record()
        self._closing = False
        self._set_mark()
        if self.state.stuck_steps >= MAX_STUCK_STEPS:
            raise DivergedError(
                f"the weights have not moved for {MAX_STUCK_STEPS} steps, since an update whose loss or gradient was NaN or "
                "infinite: they have diverged"
            )
        if self.state.step % self.config.checkpoint_every == 0:
            self._save()

    @property
    def _searching(self) -> bool:
        """Whether this step is a cycle of the search alone, and the weights stay."""
        return self.state.step < self.config.search_steps

    @property
    def _distilling(self) -> bool:
        return self.config.method == "distill" and not self._searching

    def _reinforce(self, groups: Sequence[Group], learning_rate: float) -> tuple[UpdateMetrics, int]:
        loop, slow = self.config.loop, self.config.slow
        datums = build_datums(groups, AdvantageSettings(loop.baseline, loop.divide_by_std, loop.batch_normalisation))
        loss = LossSettings(slow.loss, slow.tau, slow.kl_coefficient, self.config.sampling.temperature)
        return self.engine.train_step(datums, loss, learning_rate), len(datums)

    def _distill(self, groups: Sequence[Group], learning_rate: float) -> tuple[UpdateMetrics, int]:
        teacher, problems = self.state.population[0], [self._training_problems[g[0].problem_id] for g in groups]
        contexts = {problem.id: self.engine.encode(self.task.messages(problem, teacher)) for problem in problems}
        datums = build_distill_datums(groups, contexts)
        return self.engine.distill_step(datums, learning_rate, self.config.sampling.temperature), len(datums)

    # -- sampling ------------------------------------------------------------------------------------------------------

    def _roll_out(self, requests: Sequence[RolloutRequest], source: Any) -> list[list[Rollout]]:
        sampling = self.config.sampling
        params = SamplingParams(sampling.max_tokens, sampling.temperature, sampling.top_p)
        wanted = [request for request in requests if request.n]
        limit = self.room.limit
        made = iter(make_rollouts(self.engine, self.task, wanted, params, source, context_limit=limit))
        rollouts = [next(made) if request.n else [] for request in requests]
        self.store.add(rollout for group in rollouts for rollout in group)
        return rollouts

    def _evaluate_pairs(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        """The fast side's `Evaluate`: one rollout a pair, or what the store knows of it."""
        version = self.engine.policy_version
        known = [self.store.fresh(problem.id, prompt.hash, version) for prompt, problem in pairs]
        requests = [
            RolloutRequest(
                problem, prompt, 0 if served else 1, self._seed("gepa", self.record.pairs + i, problem, prompt)
            )
            for i, ((prompt, problem), served) in enumerate(zip(pairs, known, strict=True))
        ]
        sampled = self._roll_out(requests, "gepa")
        self.record.count_gepa(sampled, known)
        self.state.sampled_gepa += sum(len(rollouts) for rollouts in sampled)
        return [
            Evaluation(prompt, problem, old or tuple(new))
            for (prompt, problem), old, new in zip(pairs, known, sampled, strict=True)
        ]

    def _anchors(self, problems: Sequence[Problem]) -> list[Problem]:
        """The anchor set: the look-ahead batch or a part of it, and by option problems that the store covers already."""
        fast = self.config.fast
        wanted = int(fast.anchors_from_store * fast.anchor_problems)
        hashes = [prompt.hash for prompt in self.state.population]
        covered = self.store.covered_problems(hashes, self.engine.policy_version)[-wanted:] if wanted else []
        anchors = union([[self._training_problems[problem_id] for problem_id in covered], problems])
        return anchors[: fast.anchor_problems]

    @cached_property
    def _training_problems(self) -> dict[str, Problem]:
        return {problem.id: problem for problem in self.task.problems("train")}

    def _seed(self, kind: str, number: int, problem: Problem, prompt: Prompt) -> int:
        return derive_seed(self.config.seed, kind, self.state.cycle, number, problem.id, prompt.hash)

    # -- the population ------------------------------------------------------------------------------------------------

    def _adopt(self, evolution: Evolution) -> None:
        state = self.state
        state.population = evolution.population
        state.cycle += 1
        state.evolved_for_step = state.step
        ids = list(range(state.candidates, state.candidates + len(evolution.candidates)))
        state.candidates += len(evolution.candidates)
        state.usd = None if state.usd is None or evolution.usage.usd is None else state.usd + evolution.usage.usd
        state.sampled_reflection += evolution.usage.sampled
        self.record.evolution(evolution)
        self.run.append_candidates(state.cycle, evolution.candidates, ids)
        known = {candidate.prompt.hash: candidate.scores for candidate in evolution.candidates if candidate.scores}
        state.scores = {prompt.hash: known.get(prompt.hash, {}) for prompt in state.population}
        state.choose_by_kind(evolution.by_kind)
        self._write_population()
        if evolution.error:
            self._warn(f"cycle {state.cycle}: {evolution.error}")
        self.observer.on_event(
            "cycle",
            {
                "cycle": state.cycle,
                "population": list(state.population),
                "metric_calls": evolution.metric_calls,
                "error": evolution.error,
                "best_score": evolution.info.get("best_mean"),
            },
        )

    def _student_prompts(self) -> tuple[Prompt, ...]:
        """Distillation: the population stays and is the teacher's; the student answers under the seed prompt alone."""
        state, given = self.state, self.config.distill.prompt
        if isinstance(given, dict) and not state.cycle:
            teacher = Prompt.from_dict(given)
            self._adopt(Evolution((teacher,), (Candidate(teacher, None, True, "given as distill.prompt"),), 0, Usage()))
        if state.population[0] == self.task.seed_prompt and state.step == self.config.search_steps:
            self._warn("the search found no better prompt than the seed prompt: there is nothing to distil")
        # What the search sampled is not the student's.
        self.store.clear()
        return (self.task.seed_prompt,)

    def _search_is_due(self) -> bool:
        """Whether this cycle begins with a search. A new task of a stream always does."""
        if self.state.step:
            before, now = self._stage(self.state.step - 1), self._stage(self.state.step)
            if before.first_step != now.first_step:
                self.state.pace.reset()
                self._change_population(before.task.name, now.task.name)
        return self.state.pace.begin_cycle()

    def _stage(self, step: int) -> Stage:
        return self.task.stage(step * (self.config.loop.steps_per_cycle if self.config.method == "prompt" else 1))

    def _change_population(self, before: str, now: str) -> None:
        """Keep the population of a task that ends; one that comes back gets its own again."""
        state = self.state
        state.by_kind = {}
        state.library[before] = [prompt.as_dict() for prompt in state.population]
        if now in state.library:
            state.population = self._fitting([Prompt.from_dict(item) for item in state.library[now]])
            state.scores = {}
        self.run.write_library(state.library)

    def _fitting(self, population: Sequence[Prompt]) -> tuple[Prompt, ...]:
        """A population from a file, in which those that are too long for the model have given their places to others."""
        refusals = {prompt: self.room.refusal(prompt) for prompt in population} if self.config.searches else {}
        if not any(refusals.values()):
            return tuple(population)
        self._warn(f"a prompt leaves the population: {next(filter(None, refusals.values()))}")
        kept = [prompt for prompt in population if refusals[prompt] is None] or [self.task.seed_prompt]
        return tuple(kept[index % len(kept)] for index in range(len(population)))

    def _write_population(self) -> None:
        state = self.state
        self.run.write_population(state.cycle, state.evolved_for_step, state.population, state.scores, state.by_kind)

    # -- measuring and logging -----------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        """Put what validation gives on the record. A scorer that is down, or a prompt that leaves no room for a problem,
        costs the measurement, never the run.
        """
        self._phase("evaluating")
        state, current = self.state, self._stage(max(self.state.step - 1, 0)).task
        try:
            with self.record.timer("evaluate"):
                measured = self.validation.measure(current, state.population, state.by_kind, state.library)
        except ServerError:
            raise  # without the policy's server there is nothing to go on with
        except (InfrastructureError, TooLongError) as error:
            self._warn(f"step {state.step}: not evaluated: {error}")
        else:
            for name, value in measured.items():
                self.record.set(name, value)

    def _log_start(self) -> None:
        """Line 0: the base model under the seed prompt."""
        if self.config.evaluation.every:
            self._evaluate()
        self._write_record()

    def _write_record(self) -> None:
        state = self.state
        record = self.record.finish(
            step=state.step,
            cycle=state.cycle,
            sampled_total=state.sampled_total,
            population_size=len(set(state.population)),
            policy_version=self.engine.policy_version,
            usd_total=state.usd,
        )
        self.run.append_metrics(record)
        self.observer.on_event("step", record)
        self._last_record = record
        self.record = StepRecord()

    def _phase(self, name: str) -> None:
        self.observer.on_event("phase", {"name": name})

    def _warn(self, message: str) -> None:
        logger.warning("%s", message)
        self.observer.on_event("warning", {"message": message})

    # -- failures and interrupts ---------------------------------------------------------------------------------------

    def _check_failures(self, groups: Sequence[Group]) -> None:
        rollouts = [rollout for group in groups for rollout in group]
        failures = [rollout.failure for rollout in rollouts if rollout.failure is not None]
        if failures:
            self._warn(f"step {self.state.step + 1}: {len(failures)} of {len(rollouts)} rollouts masked: {failures[0]}")
        if len(failures) > self.config.max_failure_fraction * len(rollouts):
            raise InfrastructureError(
                f"{len(failures)} of {len(rollouts)} rollouts of step {self.state.step + 1} could not be scored, more than "
                f"max_failure_fraction = {self.config.max_failure_fraction} allows. The first: {failures[0]}"
            )

    def _count_stuck(self, metrics: UpdateMetrics, version: int) -> None:
        """Say that an update of these weights was left out, and count the steps until the weights move again."""
        state, sound = self.state, metrics.not_finite is None
        if not sound:
            self._warn(f"step {state.step + 1}: the {metrics.not_finite} is NaN or infinite: the update was left out")
            state.stuck_version = state.stuck_version if state.stuck_steps else version
        state.stuck_steps = (
            0 if sound and metrics.tokens else state.stuck_steps + int(not sound or state.stuck_steps > 0)
        )

    def _last_good(self) -> str:
        """How to go on after the policy has diverged: from a checkpoint of earlier weights than those that failed."""
        failed = self.state.stuck_version if self.state.stuck_steps else self.engine.policy_version
        versions = {line["step"]: line["policy_version"] for line in read_metrics(self.run.path)}
        good = [step for step in checkpoint_steps(self.run.path) if versions.get(step, failed) < failed]
        where = "There is no good checkpoint yet: start again"
        if good:
            path = self.run.checkpoint_dir(good[-1])
            where = f"The last good checkpoint is {path}: start a new run from it (model.name: {path})"
        return (
            f"The run stopped after step {self.state.step} and was not saved. {where} with a lower slow.learning_rate"
        )

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._warn("interrupted: this step is finished and saved first; press Ctrl-C again to stop at once")

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _set_mark(self, *, record: bool = False, closing: bool = False) -> Mark:
        """Note where the run stands, with what its step has on record so far or, between two steps, without."""
        mark = Mark(
            self.state.to_json(),
            self.store.copy(),
            self.run.positions(),
            self.engine.policy_version,
            self.record.to_json() if record else None,
            closing,
        )
        self.checkpoints.mark = mark
        return mark

    def _save(self) -> None:
        if self.checkpoints.due:
            self._phase("saving")
            self.checkpoints.save()
            self.observer.on_event("checkpoint", {"path": str(self.run.checkpoint_dir(self.state.step))})

    def _restore(self) -> None:
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is None:
            self.run.rewind(None, 0)
            return
        loop, store = read_resume(checkpoint)
        self.state = LoopState.from_json(loop["state"])
        self.run.rewind(loop["positions"], self.state.step)
        self.state.population = self._fitting(self.state.population)
        self.state.choose_by_kind({})
        if self.state.cycle:
            self._write_population()
        if self.state.library:
            self.run.write_library(self.state.library)
        self.store.restore(store)
        self.engine.load(checkpoint)
        self._last_record = {"step": self.state.step}
        # Checkpoints of earlier versions stand between two steps.
        begun, self._closing = loop.get("record"), loop.get("closing", False)
        if begun is not None:
            self.record = StepRecord.from_json(begun)
        self.checkpoints.restored(self._set_mark(record=begun is not None, closing=self._closing))


def _by_problem(minibatch: Sequence[Problem], slots: Sequence[Group]) -> list[Group]:
    """Join the slots of each problem into its one group; slots come problem after problem."""
    per_problem = len(slots) // len(minibatch)
    return [
        [rollout for slot in slots[start : start + per_problem] for rollout in slot]
        for start in range(0, len(slots), per_problem)
    ]
