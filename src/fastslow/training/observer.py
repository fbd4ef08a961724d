"""What a run tells while it goes on: observers show it, send it on, or keep silent."""

from collections.abc import Sequence
from typing import Protocol


class Observer(Protocol):
    """Receives the events of a run.

    Kinds and payloads: `start` {steps, max_rollouts, output, step, rollouts, engine, search_every, search_until,
    evaluate_every}; `phase` {name}; `progress` {name, done, total, unit} within a phase, of a search also {candidates,
    best}; `cycle` {cycle, population, metric_calls, error, best_score, candidates (lines of prompts.jsonl), means (by
    hash)}; `samples` {step, samples (lines of rollouts/step_N.jsonl)}; `step` (the line of metrics.jsonl); `checkpoint`
    {path}; `warning` {message, loud}; `end` {result}, or `abort` {error} where an exception ends the run. A `warning`
    that a signal was heard comes from another thread.
    """

    def on_event(self, kind: str, payload: dict[str, object]) -> None:
        """Hear of one event; several observers get the same payload."""
        ...


class SilentObserver:
    """Shows nothing."""

    def on_event(self, kind: str, payload: dict[str, object]) -> None:
        """One event of the run, in the order in which they happen."""
        return None


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = list(observers)

    def on_event(self, kind: str, payload: dict[str, object]) -> None:
        """Nothing."""
        for observer in self.observers:
            observer.on_event(kind, payload)
