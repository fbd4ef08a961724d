"""Updates of the slow weights: from a step's groups to datums, to one optimiser step, to what is on record of it."""

from collections.abc import Callable, Sequence

from fastslow.runs.metrics import UPDATE_S
from fastslow.slow.advantages import advantage_settings, build_datums
from fastslow.slow.bare import bare_datums, is_bare
from fastslow.slow.distillation import build_distill_datums
from fastslow.slow.engine import TokenSequence, UpdateMetrics
from fastslow.slow.limits import fits
from fastslow.slow.mismatch import loss_settings
from fastslow.slow.schedule import learning_rate
from fastslow.training import divergence
from fastslow.training.apart import MismatchWatch
from fastslow.training.context import RunContext
from fastslow.training.sampling import Group
from fastslow.types import Prompt, Rollout

Done = tuple[UpdateMetrics, int]
"""What an update did, and how many datums it was made of."""


class Updates:
    """Makes a run's updates, each at the learning rate of its step."""

    def __init__(self, context: RunContext, mismatch: MismatchWatch) -> None:
        self.context, self.mismatch = context, mismatch

    def reinforce(self, groups: Sequence[Group]) -> None:
        """One step of the policy loss."""
        self._update(lambda rate: self._reinforce(groups, rate))

    def distil(self, groups: Sequence[Group], teacher: Prompt) -> None:
        """One step towards the base weights under the teacher's prompt."""
        self._update(lambda rate: self._distil(groups, teacher, rate))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _reinforce(self, groups: Sequence[Group], rate: float) -> Done:
        config, engine = self.context.config, self.context.engine
        settings, loss = advantage_settings(config), loss_settings(config.slow, config.sampling.temperature)
        if not is_bare(config.slow):
            datums = build_datums(groups, settings, engine.policy_version)
            return engine.train_step(datums, loss, rate), len(datums)
        datums = build_datums(groups, settings, engine.policy_version, self._bare_contexts())
        sequences = [TokenSequence(datum.context_tokens, datum.completion_tokens) for datum in datums]
        learner = engine.logprobs(sequences) if sequences else []
        pieces, gap = bare_datums(datums, learner, config.slow)
        self.context.record.bare(gap)
        return engine.train_step(pieces, loss, rate), len(datums)

    def _bare_contexts(self) -> Callable[[Rollout], Sequence[tuple[int, ...] | None]]:
        """Contexts under the seed prompt; a later turn that does not fit into the model beside it is left out."""
        retold = self.context.retold(self.context.task.seed_prompt)
        limit = self.context.engine.context_limit

        def contexts(rollout: Rollout) -> list[tuple[int, ...] | None]:
            pairs = zip(rollout.turns, retold.contexts(rollout), strict=True)
            return [
                told if number == 0 or fits(limit, len(told), len(turn.completion.tokens)) else None
                for number, (turn, told) in enumerate(pairs)
            ]

        return contexts

    def _distil(self, groups: Sequence[Group], teacher: Prompt, rate: float) -> Done:
        context, engine = self.context, self.context.engine
        datums = build_distill_datums(groups, context.retold(teacher).contexts, engine.context_limit)
        return engine.distill_step(datums, rate, context.config.sampling.temperature), len(datums)

    def _update(self, step: Callable[[float], Done]) -> None:
        context, slow = self.context, self.context.config.slow
        context.phase("updating")
        searches = context.method.search_steps(context.config)
        rate = learning_rate(slow, context.state.step - searches, context.config.steps - searches)
        version = context.engine.policy_version
        with context.record.timer(UPDATE_S):
            metrics, datums = step(rate)
        context.record.update(metrics, rate, datums)
        divergence.count_stuck(context, metrics, version)
        self.mismatch.see(metrics)
