"""Sampler and learner of a run: what is told of their difference, at its start and while it goes on."""

from fastslow.slow.engine import UpdateMetrics
from fastslow.slow.mismatch import MISMATCH_BAR, ways_out
from fastslow.training.build import Parts, measure
from fastslow.training.context import RunContext


class MismatchWatch:
    """Says what was found before the first step, and warns once of an update before which they were too far apart."""

    def __init__(self, context: RunContext, parts: Parts) -> None:
        self.context, self.parts = context, parts
        self.agreement = parts.agreement
        self.warned = False

    def look_again(self) -> None:
        """Measure a resumed run; its weights are there. It goes on where the uninterrupted run would have gone on."""
        parts = self.parts
        self.agreement = measure(parts.config, parts.task, parts.engine, parts.longest_tokens)

    def first_line(self) -> str:
        """What the engine computes in, and how well its two sides agree."""
        engine = self.context.engine.describe()
        return engine if self.agreement is None else f"{engine}; {self.agreement}"

    def begin(self) -> None:
        """Warn of what was found."""
        found = self.agreement
        if found is not None and (found.complaint or found.warning):
            self.context.warn(found.complaint or found.warning or "")

    def see(self, metrics: UpdateMetrics) -> None:
        """Look at an update."""
        if self.warned or not metrics.mismatch_kl > MISMATCH_BAR:  # a NaN is not
            return
        self.warned = True
        self.context.warn(
            f"step {self.context.state.step + 1}: sampler and learner were {metrics.mismatch_kl:.2g} nats a token "
            f"apart before the update (slow/mismatch_kl; above {MISMATCH_BAR:g} training may become unstable). What "
            f"helps: {ways_out(self.context.config)}"
        )
