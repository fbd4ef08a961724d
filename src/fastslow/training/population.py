"""The fast weights of a run: when a search comes, what a search changes, and what each task of a stream keeps."""

from fastslow.fast.optimiser import Candidate, Evolution, Usage
from fastslow.training.context import RunContext, fitting
from fastslow.types import Prompt

SHOWN_REASONS = 3


class Population:
    """Moves the population from cycle to cycle, and writes what becomes of it."""

    def __init__(self, context: RunContext) -> None:
        self.context = context

    @property
    def is_moved(self) -> bool:
        """Whether this cycle has moved the population already: a run resumed in its middle does not do it again."""
        state = self.context.state
        return state.evolved_for_step == state.step - state.step_in_cycle

    def keep(self) -> None:
        """Begin a cycle with the population as it is."""
        state = self.context.state
        state.cycle += 1
        state.evolved_for_step = state.step

    def adopt(self, evolution: Evolution) -> None:
        """Begin a cycle with what a search brought."""
        context, state = self.context, self.context.state
        state.population = evolution.population
        self.keep()
        ids = list(range(state.candidates, state.candidates + len(evolution.candidates)))
        state.candidates += len(evolution.candidates)
        state.usd = None if state.usd is None or evolution.usage.usd is None else state.usd + evolution.usage.usd
        state.sampled_reflection += evolution.usage.sampled
        context.record.evolution(evolution)
        lines = context.run.append_candidates(state.cycle, evolution.candidates, ids)
        context.run.append_reflections(state.cycle, evolution.reflections)
        known = {candidate.prompt.hash: candidate.scores for candidate in evolution.candidates if candidate.scores}
        state.scores = {prompt.hash: known.get(prompt.hash, {}) for prompt in state.population}
        state.choose_by_kind(evolution.by_kind)
        self.write()
        if evolution.error:
            context.warn(f"cycle {state.cycle}: {evolution.error}", loud=True)
        elif (complaint := all_refused(evolution)) is not None:
            context.warn(f"cycle {state.cycle}: {complaint}", loud=True)
        context.observer.on_event(
            "cycle",
            {
                "cycle": state.cycle,
                "population": list(state.population),
                "metric_calls": evolution.metric_calls,
                "error": evolution.error,
                "best_score": evolution.info.get("best_mean"),
                "candidates": lines,
                "means": {line["hash"]: line["mean"] for line in lines if line["mean"] is not None},
            },
        )

    def adopt_given(self, prompt: Prompt, reason: str) -> None:
        """Begin with a population of one prompt that nobody searched for."""
        self.adopt(Evolution((prompt,), (Candidate(prompt, None, True, reason),), 0, Usage()))

    def adopt_unchanged(self) -> None:
        """Begin a cycle with the population as it is, on record as a cycle in which nothing was searched for."""
        self.adopt(Evolution(self.context.state.population, (), 0, Usage()))

    def task_has_changed(self) -> bool:
        """Whether a task of a stream begins here; then its population stands in its place, where it had one before."""
        context, state = self.context, self.context.state
        if not state.step:
            return False
        before, now = context.stage(state.step - 1), context.stage(state.step)
        if before.first_step == now.first_step:
            return False
        self._change(before.task.name, now.task.name)
        return True

    def write(self) -> None:
        """population.json."""
        state = self.context.state
        self.context.run.write_population(
            state.cycle, state.evolved_for_step, state.population, state.scores, state.by_kind
        )

    def _change(self, before: str, now: str) -> None:
        """Keep the population of a task that ends; one that comes back gets its own again."""
        context, state = self.context, self.context.state
        state.by_kind = {}
        state.library[before] = [prompt.as_dict() for prompt in state.population]
        if now in state.library:
            state.population = fitting(context, [Prompt.from_dict(item) for item in state.library[now]])
            state.scores = {}
        context.run.write_library(state.library)


def all_refused(evolution: Evolution) -> str | None:
    """That a language model was asked and none of its replies adopted, with the first reasons; None where one was."""
    usage, reasons = evolution.usage, evolution.refusals
    if not usage.calls or evolution.proposed != 0 or not reasons:
        return None
    first = "; ".join(f"{count} x {reason}" for reason, count in list(reasons.items())[:SHOWN_REASONS])
    more = f"; and {len(reasons) - SHOWN_REASONS} more reasons" if len(reasons) > SHOWN_REASONS else ""
    return (
        f"EVERY reply of the reflection LM was refused, {sum(reasons.values())} of them, so that the search had no new "
        f"prompt to try. The first reasons: {first}{more}. reflections.jsonl has what it was asked and what it said"
    )
