"""Rollouts that are kept to be read: written into the run directory, and told to whoever watches the run."""

from collections.abc import Mapping

from fastslow.runs.samples import context_of
from fastslow.tasks.base import reference_of
from fastslow.training.context import RunContext
from fastslow.types import Rollout


def keep_samples(context: RunContext) -> None:
    """Keep some of the step's rollouts, each with its question, the reference answer and the prompt's text."""
    state, task = context.state, context.task
    prompts = {prompt.hash: prompt for prompt in (task.seed_prompt, *state.population)}

    def told(rollout: Rollout) -> Mapping[str, object]:
        problem = context.training_problems.get(rollout.problem_id)
        reference = None if problem is None else reference_of(task, problem)
        return context_of(problem, reference, prompts.get(rollout.prompt_hash))

    limit = context.config.rollout_samples
    lines = context.run.write_rollout_samples(state.step, context.record.rollouts, limit, told)
    if lines:
        context.observer.on_event("samples", {"step": state.step, "samples": lines})
