"""How far a search or a round of sampling has come, for those who watch a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastslow.fast.optimiser import Evaluation
from fastslow.training.context import RunContext
from fastslow.types import Problem, Prompt


class Progress:
    """Counts the metric calls of a search, whatever its optimiser, and tells of completions where the sampler does."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._searching = False
        self._calls = self._asked = 0
        self._rewards: dict[Prompt, list[float]] = {}
        sampler: Any = getattr(context.engine, "sampler", None)
        if hasattr(sampler, "on_rows"):
            sampler.on_rows = self.rows

    @contextmanager
    def search(self) -> Iterator[None]:
        """What is sampled inside are the metric calls of one search."""
        self._searching, self._calls, self._asked, self._rewards = True, 0, 0, {}
        self._tell(0)
        try:
            yield
        finally:
            self._searching = False

    def asked(self, pairs: Sequence[tuple[Prompt, Problem]]) -> None:
        """The search asks for these."""
        self._asked = len(pairs)
        for prompt, _ in pairs:
            self._rewards.setdefault(prompt, [])
        self._tell(self._calls)

    def answered(self, evaluations: Sequence[Evaluation]) -> None:
        """The search has got these."""
        self._calls, self._asked = self._calls + self._asked, 0
        for each in evaluations:
            self._rewards[each.prompt].append(each.reward or 0.0)
        self._tell(self._calls)

    def rows(self, done: int, total: int) -> None:
        """The sampler has drawn so many completions of the call that it is at."""
        if self._searching:
            self._tell(self._calls + min(done, self._asked))
        else:
            self.context.progress(done, total, "completions")

    def _tell(self, calls: int) -> None:
        budget = self.context.config.fast.metric_calls
        self.context.progress(
            calls, max(budget, calls), "metric calls", candidates=len(self._rewards), best=self._best()
        )

    def _best(self) -> float | None:
        """The best mean of the prompts that were scored on as many problems as any: of few it would be luck."""
        most = max(map(len, self._rewards.values()), default=0)
        means = [sum(rewards) / most for rewards in self._rewards.values() if most and len(rewards) == most]
        return max(means, default=None)
