"""How long the rest of a run will take, from what its steps, searches and evaluations have taken so far."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from fastslow.runs import metrics as m
from fastslow.runs.reader import Step


@dataclass
class Mean:
    """A mean that grows."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """One value more."""
        self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float:
        """0 where there is none yet."""
        return self.total / self.count if self.count else 0.0


class Pace:
    """Hears the events of a run. A search and an evaluation do not come every step, so each has a mean of its own:
    one step is enough for an estimate.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.step = self.steps = self.rollouts = 0
        self.max_rollouts: int | None = None
        self._search_every = self._search_until = self._evaluate_every = 0
        self._trained, self._searched, self._evaluated = Mean(), Mean(), Mean()
        self._trained_rollouts, self._search_rollouts = Mean(), Mean()
        self._since = now()

    def on_event(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take in what an event says of time."""
        if kind == "start":
            self.steps, self.max_rollouts = payload["steps"], payload["max_rollouts"]
            self.step, self.rollouts = payload["step"], payload["rollouts"]
            self._search_every = payload.get("search_every", 0)
            self._search_until = payload.get("search_until", self.steps)
            self._evaluate_every = payload.get("evaluate_every", 0)
            self._since = self._now()
        elif kind == "step":
            self._take(Step(payload))

    @property
    def total(self) -> int:
        """What the bar counts up to: rollouts where they are limited, else steps."""
        return self.max_rollouts or self.steps

    @property
    def done(self) -> int:
        """How far the bar is."""
        return self.rollouts if self.max_rollouts else self.step

    def seconds_left(self) -> float | None:
        """Seconds until the end; None before the first step is done."""
        if not self._trained.count:
            return None
        steps = self._steps_left()
        searches = self._due(steps, self._search_every, first=0, until=self._search_until)
        evaluations = self._due(steps, self._evaluate_every, first=self._evaluate_every - 1)
        expected = steps * self._trained.value + searches * self._searched.value + evaluations * self._evaluated.value
        return max(0.0, expected - min(self._now() - self._since, expected / max(steps, 1)))

    def _take(self, step: Step) -> None:
        self._since = self._now()
        evolve_s, evaluate_s = step.amount(m.EVOLVE_S), step.amount(m.EVALUATE_S)
        if evaluate_s:
            self._evaluated.add(evaluate_s)
        if not step.number:
            return
        self.step, self.rollouts = step.number, int(step.amount(m.SAMPLED_TOTAL))
        self._trained.add(max(0.0, step.amount(m.STEP_S) - evolve_s - evaluate_s))
        searched = step.amount(m.SAMPLED_GEPA) + step.amount(m.SAMPLED_REFLECTION)
        self._trained_rollouts.add(step.amount(m.SAMPLED) - searched)
        if evolve_s:
            self._searched.add(evolve_s)
            self._search_rollouts.add(searched)

    def _steps_left(self) -> int:
        left = max(0, self.steps - self.step)
        if self.max_rollouts is None:
            return left
        searching = self._search_rollouts.value / self._search_every if self._search_every else 0.0
        a_step = self._trained_rollouts.value + searching
        budget = max(0, self.max_rollouts - self.rollouts)
        return min(left, ceil(budget / a_step)) if a_step else left

    def _due(self, steps: int, every: int, *, first: int, until: int | None = None) -> int:
        """How many of the next steps have the number `first` within their `every`."""
        if not every:
            return 0
        end = self.step + steps if until is None else max(self.step, min(self.step + steps, until))
        return len(range(self.step + (first - self.step) % every, end, every))
