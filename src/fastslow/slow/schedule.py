"""The learning rate of an update: a pure function of its number and the config, so that a resumed run goes on exactly.

The curves are those of transformers. Theirs begin at 0 and end at 0; ours are moved by one update, so that neither the
first nor the last update has a learning rate of 0.
"""

from collections.abc import Callable
from functools import lru_cache

from fastslow.errors import ConfigError
from fastslow.slow.settings import SlowConfig

NAMES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""What transformers calls our schedules."""


def learning_rate(slow: SlowConfig, update: int, updates: int) -> float:
    """That of update number `update`, counted from 0, in a run of `updates`; warm-up is linear and reaches the full
    rate with update `slow.warmup_steps - 1`.
    """
    return slow.learning_rate * _curve(slow.schedule, max(slow.warmup_steps, 1), slow.schedule_steps or updates)(
        update + 1
    )


def check_schedule(slow: SlowConfig, updates: int) -> None:
    """Raises ConfigError where the schedule's length means nothing, or ends before the run does."""
    steps = slow.schedule_steps
    if steps is None:
        return
    if slow.schedule == "constant":
        raise ConfigError(
            f"slow.schedule_steps: {steps} is the length of a schedule, and slow.schedule is constant: take linear or "
            "cosine, or leave it out"
        )
    if steps < updates:
        raise ConfigError(
            f"slow.schedule_steps: after {steps} the learning rate is 0, and the run has {updates} training steps: set "
            f"it to {updates} or more"
        )


def describe_schedule(slow: SlowConfig, updates: int) -> str:
    """Warm-up and schedule in words."""
    words = f"learning rate {slow.learning_rate:g} after {slow.warmup_steps} steps of warm-up"
    if slow.schedule == "constant":
        return words
    last = learning_rate(slow, updates - 1, updates)
    steps = slow.schedule_steps or updates
    return f"{words}, then {slow.schedule} over {steps} training steps, {last:.3g} in the last of them"


@lru_cache(maxsize=8)
def _curve(schedule: str, warmup: int, steps: int) -> Callable[[int], float]:
    import torch
    from transformers import get_scheduler

    unused = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(NAMES[schedule], unused, num_warmup_steps=warmup, num_training_steps=steps + 1)
    curve: Callable[[int], float] = scheduler.lr_lambdas[0]
    return curve
