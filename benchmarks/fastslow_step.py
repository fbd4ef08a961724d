"""fastslow's side of the step benchmark, in a process of its own. Run by step_vs_trl.py."""

import sys

import torch
from workload import Instant, Settings, StepTimes, reward, serve, step_times, tell

from fastslow.slow.advantages import AdvantageSettings, build_datums
from fastslow.slow.engine import LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local import attention
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers import packed
from fastslow.slow.settings import ModelConfig, SlowConfig
from fastslow.types import Completion, Prompt, Rollout, Turn

LEARNING_RATE = 1e-6
# TRL divides a group's rewards by their deviation and does nothing at the batch level: so here.
ADVANTAGES = AdvantageSettings(batch_normalisation=False)
LOSS = LossSettings("cispo", tau=4.0, kl_coefficient=0.0)


class FastslowSide:
    """A local engine that does one RL step of the workload at a time."""

    def __init__(self, settings: Settings) -> None:
        slow = SlowConfig(microbatch_tokens=settings.microbatch) if settings.microbatch else SlowConfig()
        if settings.variant == "plain":  # bfloat16 as it was before it had products and an attention of its own
            packed.PACKED_TYPES = (torch.float32,)
            attention.by_products = lambda query: False
        model = ModelConfig(name=settings.model, dtype=settings.precision, device="cpu")  # type: ignore[arg-type]
        self.engine = LocalEngine(model, slow, threads=settings.threads)
        self.engine.policy.stop = frozenset()  # the end-of-sequence token is a token like any other, on both sides
        self.workload = settings.workload
        self.messages = settings.workload.messages_R()
        self.steps = 0

    def contexts_R(self) -> list[tuple[int, ...]]:
        return [self.engine.encode(messages) for messages in self.messages]

    def step(self) -> StepTimes:
        started = Instant.now()
        groups = self._rollouts()
        sampled = Instant.now()
        datums = build_datums(groups, ADVANTAGES)
        if len(datums) != len(self.messages):
            raise RuntimeError(f"{len(datums)} of {len(self.messages)} rollouts have an advantage: all of them must")
        metrics = self.engine.train_step(datums, LOSS, LEARNING_RATE)
        self.steps += 1
        return step_times(started, sampled, Instant.now(), metrics.tokens)

    def _rollouts(self) -> list[list[Rollout]]:
        """One group a problem. Rollouts of the same context are one request, as in the loop."""
        contexts = self.contexts_R()
        distinct = list(dict.fromkeys(contexts))
        requests = [SampleRequest(c, contexts.count(c), 1000 * self.steps + i) for i, c in enumerate(distinct)]
        drawn = self.engine.sample(requests, SamplingParams(self.workload.new_tokens))
        left = {context: iter(completions) for context, completions in zip(distinct, drawn, strict=True)}
        rollouts = [self._rollout(i, context, next(left[context])) for i, context in enumerate(contexts)]
        size = self.workload.group
        return [rollouts[start : start + size] for start in range(0, len(rollouts), size)]

    def _rollout(self, index: int, context: tuple[int, ...], completion: Completion) -> Rollout:
        return Rollout(
            problem_id=str(index // self.workload.group),
            prompt_hash=Prompt.of(self.messages[index][0]["content"]).hash,
            turns=(Turn(context, completion, self.engine.decode(completion.tokens)),),
            reward=reward(completion.tokens),
            feedback="",
            failure=None,
            policy_version=self.engine.policy_version,
            source="rl",
        )


def main() -> None:
    side = FastslowSide(Settings.from_json(sys.argv[1]))
    tell(event="ready", contexts=side.contexts_R(), unshared=side.engine.policy.unshared_reason)
    serve(side.step)


if __name__ == "__main__":
    main()
