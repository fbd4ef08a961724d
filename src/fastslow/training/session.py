"""One run: the verbs that methods are made of (`methods/base.py`), around them opening, closing,
logging and checkpoints.

One controller owns the weights (through the engine) and the population; everything else receives values.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fastslow.config import Config
from fastslow.errors import DivergedError, InfrastructureError, ServerError, TooLongError
from fastslow.fast.pareto import mean_score
from fastslow.measuring.validation import Validation
from fastslow.methods.registry import find_method
from fastslow.rollouts.store import RolloutStore
from fastslow.runs.metrics import EVALUATE_S, EVOLVE_S
from fastslow.runs.record import StepRecord
from fastslow.seeding import derive_seed
from fastslow.training import divergence
from fastslow.training.apart import MismatchWatch
from fastslow.training.build import Parts, prepare
from fastslow.training.checkpoints import Checkpoints, Mark
from fastslow.training.context import RunContext, fitting
from fastslow.training.curriculum import Curriculum, union
from fastslow.training.interrupts import Interrupts
from fastslow.training.observer import Observer, Observers, SilentObserver
from fastslow.training.population import Population
from fastslow.training.resume import Found, load_newest, read_resume
from fastslow.training.samples import keep_samples
from fastslow.training.sampling import Group, Sampling
from fastslow.training.state import LoopState
from fastslow.training.updates import Updates
from fastslow.types import Problem, Prompt


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `best_prompt` is the population's first member, after distillation the teacher's; `metrics` the
    last step's record; `problems` how many validation problems an evaluation asks.
    """

    run: Path
    steps: int
    interrupted: bool
    best_prompt: Prompt
    population: tuple[Prompt, ...]
    metrics: dict[str, Any]
    problems: int = 0


class TrainingSession:
    """One run of a method's loop, from open to finish. A context manager: it owns a lock and a signal handler."""

    def __init__(self, parts: Parts, observer: Observer) -> None:
        config, task = parts.config, parts.task
        method = find_method(config.method)
        population = (task.seed_prompt,) * method.population_size(config)
        self.context = RunContext(
            config,
            method,
            task,
            parts.engine,
            parts.run,
            observer,
            parts.room,
            LoopState(population=population),
            RolloutStore(config.loop.reuse_max_age),
        )
        self.optimiser = parts.optimiser
        self.validation = Validation(config, task, parts.engine)
        self.checkpoints = Checkpoints(parts.run, parts.engine, config.resumable_checkpoints, config.kept_checkpoints)
        self.interrupts = Interrupts(self.context.warn)
        self._sampling = Sampling(self.context)
        self._population = Population(self.context)
        self._mismatch = MismatchWatch(self.context, parts)
        self._updates = Updates(self.context, self._mismatch)
        self._curricula: dict[int, Curriculum] = {}
        self._groups: Sequence[Group] = ()
        self._last_record: dict[str, Any] = {}
        self._closing = False

    # -- opening and closing -------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, config: Config, *, resume: Path | None, observer: Observer | None) -> "TrainingSession":
        """Check everything, then load the model; continue from the newest checkpoint where `resume` names a run.

        Events go to the observer, and to the tracker that the config names.
        """
        parts = prepare(config, resume=resume)
        session = cls(parts, Observers([observer or SilentObserver(), parts.tracker]))
        session.interrupts.give_up = getattr(observer, "give_up", None)
        if parts.found is not None:
            try:
                session._restore(parts.found)
                session._mismatch.look_again()
            except BaseException:
                parts.run.close()
                raise
        return session

    def __enter__(self) -> "TrainingSession":
        self.interrupts.listen()
        context, state = self.context, self.context.state
        try:
            context.observer.on_event("start", context.beginning(self._mismatch.first_line()))
            self._mismatch.begin()
            if self._closing:
                self._finish_closing()
            elif state.step == 0 and not self._last_record:
                self._log_start()
                self._set_mark()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.interrupts.stop()
        try:
            if isinstance(error, DivergedError):
                error.add_note(divergence.way_back(self.context))
            elif error is not None and not isinstance(error, KeyboardInterrupt):
                error.add_note(self.checkpoints.rescue(error, self.context.state.step))
        finally:
            self.context.run.close()
        if kind is not None:
            self.context.observer.on_event("abort", {"error": f"{kind.__name__}: {error}"})

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.interrupts.heard

    def train(self) -> TrainResult:
        """Run the method's loop to its end, save, and say how it ended."""
        context, state = self.context, self.context.state
        context.method.train(self)
        self._save()
        asked = len(self.validation.problems(context.stage(max(state.step - 1, 0)).task))
        best = state.population[0]
        result = TrainResult(
            context.run.path, state.step, self.interrupted, best, state.population, self._last_record, asked
        )
        context.observer.on_event("end", {"result": result})
        return result

    # -- the verbs: `methods.base.Session` says what each does
    # -----------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the last step is done, the budget of rollouts is spent, or Ctrl-C was pressed."""
        config, state = self.context.config, self.context.state
        spent = config.max_rollouts is not None and state.sampled_total >= config.max_rollouts
        return self.interrupted or spent or state.step >= config.steps

    @property
    def searching(self) -> bool:
        """Whether this step is a cycle of the search alone, and the weights stay."""
        return self.context.searching

    @property
    def seed_prompt(self) -> Prompt:
        """The task's own prompt."""
        return self.context.task.seed_prompt

    def next_minibatches(self) -> list[list[Problem]]:
        """The T minibatches of the current cycle."""
        context, loop = self.context, self.context.config.loop
        start = context.first_minibatch(context.state.step - context.state.step_in_cycle)
        stage = context.task.stage(start)
        if stage.first_step not in self._curricula:
            problems = stage.task.problems("train")
            self._curricula[stage.first_step] = Curriculum(problems, loop.problems_per_step, context.config.seed)
        return self._curricula[stage.first_step].lookahead(start - stage.first_step, loop.steps_per_cycle)

    def remaining(self, lookahead: Sequence[list[Problem]]) -> Iterator[list[Problem]]:
        """The cycle's minibatches that are still to be trained on; ends early when the run is finished."""
        for minibatch in lookahead[self.context.state.step_in_cycle :]:
            yield minibatch
            if self.finished:
                return

    def search(self, lookahead: Sequence[list[Problem]]) -> tuple[Prompt, ...]:
        """Move the fast weights, unless a search sits out, or the run was resumed after this cycle had moved them."""
        context, state = self.context, self.context.state
        if self._population.is_moved:
            return state.population
        if self._population.task_has_changed():
            state.pace.reset()
        if not state.pace.begin_cycle():
            self._population.keep()
            return state.population
        anchors = self._sampling.anchors(union(lookahead))
        if not anchors:
            # RL's rollouts are to score the population, and it has made none under all of it yet.
            self._population.adopt_unchanged()
            return state.population
        context.phase("evolving")
        with context.record.timer(EVOLVE_S), self._sampling.progress.search():
            evolution = self.optimiser.evolve(
                tuple(dict.fromkeys(state.population)),
                anchors,
                self._sampling.evaluate_pairs,
                size=context.method.population_size(context.config),
                seed=derive_seed(context.config.seed, "evolve", state.cycle),
                previous_scores={hash_: mean_score(scores) for hash_, scores in state.scores.items()},
            )
        self._population.adopt(evolution)
        state.pace.searched(evolution.paid, context.config.fast.max_backoff)
        # A search is dear: what fails after it does not make it be done again.
        self._set_mark(record=True)
        return state.population

    def keep_population(self) -> tuple[Prompt, ...]:
        """Begin a cycle without a search."""
        if not self._population.is_moved:
            self._population.task_has_changed()
            self._population.adopt_unchanged()
        return self.context.state.population

    def teacher(self) -> Prompt:
        """Begin a cycle of distillation: the prompt that was given, or the best that the search found."""
        context, state = self.context, self.context.state
        if not state.cycle:
            for field, prompt in context.method.given_prompts(context.config).items():
                self._population.adopt_given(prompt, f"given as {field}")
        first = context.method.search_steps(context.config)
        if state.population[0] == self.seed_prompt and state.step == first:
            context.warn("the search found no better prompt than the seed prompt: there is nothing to distil")
        # What the search sampled is not the student's.
        context.store.clear()
        return state.population[0]

    def roll_out(self, minibatch: Sequence[Problem], population: Sequence[Prompt]) -> list[Group]:
        """One group of G rollouts a problem, G/K under each prompt; from the store where it is fresh enough."""
        if self.context.config.slow.bare_member:
            population = [*population[:-1], self.seed_prompt]
        groups = self._sampling.groups(minibatch, population)
        self._groups = groups
        self.context.state.pace.observe(r.reward for group in groups for r in group if r.reward is not None)
        return groups

    def reinforce(self, groups: Sequence[Group]) -> None:
        """Move the slow weights by one step of the policy loss."""
        self._updates.reinforce(groups)

    def distil(self, groups: Sequence[Group], teacher: Prompt) -> None:
        """Move the slow weights by one step towards the base weights under the teacher's prompt."""
        self._updates.distil(groups, teacher)

    def close_step(self) -> None:
        """Close a step, whose update is done: evaluate and save where it is due, write the metrics line."""
        context, state = self.context, self.context.state
        context.record.groups(self._groups)
        self._groups = ()
        cycle_steps = 1 if context.searching else context.config.loop.steps_per_cycle
        state.step += 1
        state.step_in_cycle = (state.step_in_cycle + 1) % cycle_steps
        context.store.expire(context.engine.policy_version)
        self._set_mark(record=True, closing=True)
        keep_samples(context)
        self._finish_closing()

    # -- measuring and logging -----------------------------------------------------------------------------------------

    def _finish_closing(self) -> None:
        config, state = self.context.config, self.context.state
        every = config.evaluation.every
        last = self.finished and not self.interrupted
        if every and (state.step % every == 0 or last):
            self._evaluate()
        self._write_record()
        self._closing = False
        self._set_mark()
        divergence.check_stuck(self.context)
        if state.step % config.checkpoint_every == 0:
            self._save()

    def _evaluate(self) -> None:
        """Put what validation gives on the record. A scorer that is down, or a prompt that leaves no room for a
        problem, costs the measurement, never the run.
        """
        context, state = self.context, self.context.state
        context.phase("evaluating")
        current = context.stage(max(state.step - 1, 0)).task
        try:
            with context.record.timer(EVALUATE_S):
                measured = self.validation.measure(current, state.population, state.by_kind, state.library)
        except ServerError:
            raise  # without the policy's server there is nothing to go on with
        except (InfrastructureError, TooLongError) as error:
            context.warn(f"step {state.step}: not evaluated: {error}")
        else:
            context.record.measured(measured)

    def _log_start(self) -> None:
        """Line 0: the base model under the seed prompt."""
        if self.context.config.evaluation.every:
            self._evaluate()
        self._write_record()

    def _write_record(self) -> None:
        context, state = self.context, self.context.state
        record = context.record.finish(
            step=state.step,
            cycle=state.cycle,
            sampled_total=state.sampled_total,
            population_size=len(set(state.population)),
            policy_version=context.engine.policy_version,
            usd_total=state.usd,
        )
        context.run.append_metrics(record)
        context.observer.on_event("step", record)
        self._last_record = record
        context.record = StepRecord()

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _set_mark(self, *, record: bool = False, closing: bool = False) -> Mark:
        """Note where the run stands, with what its step has on record so far or, between two steps, without."""
        context = self.context
        mark = Mark(
            context.state.to_json(),
            context.store.copy(),
            context.run.positions(),
            context.engine.policy_version,
            context.record.to_json() if record else None,
            closing,
        )
        self.checkpoints.mark = mark
        return mark

    def _save(self) -> None:
        if self.checkpoints.due:
            self.context.phase("saving")
            self.checkpoints.save()
            path = self.context.run.checkpoint_dir(self.context.state.step)
            self.context.observer.on_event("checkpoint", {"path": str(path)})

    def _restore(self, found: Found) -> None:
        context = self.context
        found = load_newest(context.engine, context.run, found)
        if found.checkpoint is None:
            for complaint in found.complaints:
                context.warn(f"{complaint}. The record is kept in {context.run.set_record_aside()}")
            context.run.rewind(None, 0)
            return
        loop, store = read_resume(found.checkpoint)
        for (broken, _), complaint in zip(found.broken, found.complaints, strict=True):
            context.warn(f"{complaint}; what is left of the other is kept in {context.run.set_aside(broken)}")
        state = context.state = LoopState.from_json(loop["state"])
        context.run.rewind(loop["positions"], state.step)
        context.run.prune(context.config.resumable_checkpoints, context.config.kept_checkpoints)
        state.population = fitting(context, state.population)
        state.choose_by_kind({})
        if state.cycle:
            self._population.write()
        if state.library:
            context.run.write_library(state.library)
        context.store.restore(store)
        self._last_record = {"step": state.step}
        # Checkpoints of earlier versions stand between two steps.
        begun, self._closing = loop.get("record"), loop.get("closing", False)
        if begun is not None:
            context.record = StepRecord.from_json(begun)
        self.checkpoints.restored(self._set_mark(record=begun is not None, closing=self._closing))
