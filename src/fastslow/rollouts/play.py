"""From problems and prompts to rollouts: render, sample in one batch, score in one batch.

Two things are never mixed. A wrong, empty or cut-off completion is the model's doing and scores what the task says, 0
where it was cut off. A scorer that breaks is not the model's doing: the rollout is masked and counted. So is one whose
context is too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.slow.engine import PolicyEngine, SampleRequest, SamplingParams
from fastslow.slow.limits import excess, fits
from fastslow.tasks.base import ScoringFailure, Task
from fastslow.types import Completion, Problem, Prompt, Rollout, RolloutSource, Score

NOTHING = Completion((), (), "stop")
"""Stands where nothing was sampled."""


@dataclass(frozen=True)
class RolloutRequest:
    """`n` rollouts of one problem under one prompt."""

    problem: Problem
    prompt: Prompt
    n: int
    seed: int


def make_rollouts(
    engine: PolicyEngine,
    task: Task,
    requests: Sequence[RolloutRequest],
    params: SamplingParams,
    source: RolloutSource,
    *,
    context_limit: int | None = None,
) -> list[list[Rollout]]:
    """The rollouts of each request, in order: one `engine.sample` call, one `task.score_batch` call.

    With `context_limit` rollouts whose context is too long for the model are masked; without, the engine raises TooLongError.
    """
    if not requests:
        return []
    contexts = [engine.encode(task.messages(request.problem, request.prompt)) for request in requests]
    fitting = [fits(context_limit, len(context), params.max_tokens) for context in contexts]
    asked = [SampleRequest(c, r.n, r.seed) for c, r, fit in zip(contexts, requests, fitting, strict=True) if fit]
    sampled = iter(engine.sample(asked, params) if asked else [])
    completions = [next(sampled) if fit else [NOTHING] * r.n for fit, r in zip(fitting, requests, strict=True)]
    version = engine.policy_version
    flat = [
        (request, context, completion, engine.decode(completion.tokens))
        for request, context, group in zip(requests, contexts, completions, strict=True)
        for completion in group
    ]
    answered = [(request.problem, text) for request, _, completion, text in flat if completion is not NOTHING]
    problems, texts = [problem for problem, _ in answered], [text for _, text in answered]
    scores = iter(task.score_batch(problems, texts) if answered else [])
    made = iter(
        _rollout(
            request,
            context,
            completion,
            text,
            _too_long(context_limit, context, params) if completion is NOTHING else next(scores),
            version,
            source,
        )
        for request, context, completion, text in flat
    )
    return [[next(made) for _ in group] for group in completions]


def cut_off_score(score: Score, tokens: int) -> Score:
    """The score of a completion that was cut off: 0, with a rule of its own in front of the verifier's words."""
    rule = f"The answer was cut off after {tokens} tokens: keep it shorter."
    return Score(0.0, "\n".join(line for line in (rule, score.feedback) if line))


def _too_long(limit: int | None, context: tuple[int, ...], params: SamplingParams) -> ScoringFailure:
    return ScoringFailure(f"the context is too long: {excess(limit, len(context), params.max_tokens)}")


def _rollout(
    request: RolloutRequest,
    context: tuple[int, ...],
    completion: Completion,
    text: str,
    score: Score | ScoringFailure,
    policy_version: int,
    source: RolloutSource,
) -> Rollout:
    if isinstance(score, Score) and completion.finish_reason == "length":
        score = cut_off_score(score, len(completion.tokens))
    return Rollout(
        problem_id=request.problem.id,
        prompt_hash=request.prompt.hash,
        context_tokens=context,
        completion=completion,
        text=text,
        reward=None if isinstance(score, ScoringFailure) else score.reward,
        feedback="" if isinstance(score, ScoringFailure) else score.feedback,
        failure=score.reason if isinstance(score, ScoringFailure) else None,
        policy_version=policy_version,
        source=source,
    )
