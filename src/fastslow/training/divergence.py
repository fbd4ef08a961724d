"""When the policy's numbers are no longer finite: updates that are left out are counted, and too many end the run."""

from fastslow.errors import DivergedError
from fastslow.runs.metrics import POLICY_VERSION
from fastslow.runs.reader import Run
from fastslow.slow.engine import UpdateMetrics
from fastslow.training.context import RunContext

MAX_STUCK_STEPS = 3
"""So many steps without an update, the first left out because its loss or gradient was not finite, end a run."""


def count_stuck(context: RunContext, metrics: UpdateMetrics, version: int) -> None:
    """Say that an update of these weights was left out, and count the steps until the weights move again."""
    state, sound = context.state, metrics.not_finite is None
    if not sound:
        context.warn(f"step {state.step + 1}: the {metrics.not_finite} is NaN or infinite: the update was left out")
        state.stuck_version = state.stuck_version if state.stuck_steps else version
    state.stuck_steps = 0 if sound and metrics.tokens else state.stuck_steps + int(not sound or state.stuck_steps > 0)


def check_stuck(context: RunContext) -> None:
    """Raises DivergedError where the weights have not moved for too long since an update was left out."""
    if context.state.stuck_steps >= MAX_STUCK_STEPS:
        raise DivergedError(
            f"the weights have not moved for {MAX_STUCK_STEPS} steps, since an update whose loss or gradient was NaN "
            "or infinite: they have diverged"
        )


def way_back(context: RunContext) -> str:
    """How to go on after the policy has diverged: from a checkpoint of earlier weights than those that failed."""
    state, run = context.state, context.run
    failed = state.stuck_version if state.stuck_steps else context.engine.policy_version
    read = Run(run.path)
    versions = {step.number: step.get(POLICY_VERSION) for step in read.steps}
    good = [step for step in read.checkpoints if versions.get(step, failed) < failed]
    where = "There is no good checkpoint yet: start again"
    if good:
        path = run.checkpoint_dir(good[-1])
        where = f"The last good checkpoint is {path}: start a new run from it (model.name: {path})"
    return f"The run stopped after step {state.step} and was not saved. {where} with a lower slow.learning_rate"
