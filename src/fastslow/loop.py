"""Fast-Slow Training: Algorithm 1 of arXiv 2605.12484.

`method: rl` is the same loop with one prompt that never moves, `method: prompt` the same loop with weights that never
move, `method: distill` that one for some cycles, and then a loop in which prompts stay and the update is distillation
(`slow/distillation.py`). Mechanics (sampling, reuse, checkpoints, metrics) are in `training/session.py`.

Deviations from the paper: the rollout store forgets by age instead of being cleared each cycle; groups without variance
are left out of the update; see `rollouts/store.py` and `slow/advantages.py`.
"""

from pathlib import Path

from fastslow.config import Config
from fastslow.training.progress import Observer
from fastslow.training.session import TrainingSession, TrainResult


def train(config: Config, *, resume: Path | None = None, observer: Observer | None = None) -> TrainResult:
    """Run, or resume, one training run.

    Raises: ConfigError and TaskError before any model loads; InfrastructureError when too many rollouts fail. An error that
    ends the loop, whatever it is, is raised after the last good step has been saved, with a note that says where.
    """
    with TrainingSession.open(config, resume=resume, observer=observer) as session:
        while not session.finished:
            lookahead = session.next_minibatches()  # T minibatches, fetched ahead
            population = session.evolve(lookahead)  # fast weights: K prompts, evolved under the current policy
            for minibatch in session.remaining(lookahead):
                groups = session.rollout_groups(minibatch, population)  # G/K rollouts a prompt and problem
                session.update(groups)  # slow weights: one CISPO step
                session.end_step()  # evaluate, log, save
                if session.finished:
                    break
        return session.finish()
