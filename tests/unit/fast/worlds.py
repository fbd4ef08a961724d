"""A world without a model: a prompt's reward on a problem is a function, and every policy call is written down."""

from collections.abc import Callable, Sequence
from typing import Any

from fastslow.errors import ReflectionError
from fastslow.fast.gepa.optimiser import GepaOptimiser
from fastslow.fast.optimiser import Candidate, Evaluation, Evolution, Usage
from fastslow.fast.proposers.base import Example, Proposal, ProposalRequest
from fastslow.types import Completion, Problem, Prompt, Rollout, Turn

SEED = Prompt.of("seed")

Reward = Callable[[Prompt, Problem], float | None]


def rollout_of(prompt: Prompt, problem: Problem, reward: float | None, feedback: str = "Do better.") -> Rollout:
    failure = "the scorer crashed" if reward is None else None
    return Rollout(
        problem.id,
        prompt.hash,
        (Turn((1,), Completion((1,), (0.0,), "stop"), "answer"),),
        reward,
        feedback,
        failure,
        0,
        "gepa",
    )


def make_problems(count: int) -> list[Problem]:
    return [Problem(f"p{index}", ({"role": "user", "content": f"question {index}"},)) for index in range(count)]


class World:
    """`evaluate` is the fast side's; `batches` holds the pairs of each call. A reward of None is a masked rollout."""

    def __init__(self, reward: Reward, feedback: str = "Do better.") -> None:
        self.reward, self.feedback = reward, feedback
        self.batches: list[list[tuple[Prompt, Problem]]] = []

    @property
    def calls(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def evaluate(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        self.batches.append(list(pairs))
        return [self._evaluation(prompt, problem) for prompt, problem in pairs]

    def _evaluation(self, prompt: Prompt, problem: Problem) -> Evaluation:
        return Evaluation(prompt, problem, (rollout_of(prompt, problem, self.reward(prompt, problem), self.feedback),))


class Appender:
    """Proposes parent + '+' and a number; `fail(number)` gives an error in place of a proposal. Counts its batches."""

    def __init__(self, fail: Callable[[int], ReflectionError | None] = lambda number: None) -> None:
        self.fail, self.number = fail, 0
        self.batches: list[list[ProposalRequest]] = []

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        raise AssertionError("a proposer that takes batches is asked in batches")

    def propose_batch(self, requests: Sequence[ProposalRequest]) -> list[Proposal | ReflectionError]:
        self.batches.append(list(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> Proposal | ReflectionError:
        self.number += 1
        error = self.fail(self.number)
        text = f"{request.parent.as_dict()[request.component]}+{self.number}"
        return error or Proposal(text, Usage(calls=1, input_tokens=10, output_tokens=2, usd=0.5))


def plus_signs(prompt: Prompt, problem: Problem) -> float:
    """Each edit is worth a tenth."""
    return min(1.0, 0.1 + 0.1 * prompt.system.count("+"))


def evolve(
    world: World,
    proposer: Any,
    population: list[Prompt] | None = None,
    *,
    problems: int = 6,
    metric_calls: int = 60,
    minibatch: int = 2,
    size: int = 2,
    seed: int = 0,
    proposals: int = 1,
    previous: dict[str, float] | None = None,
) -> Evolution:
    optimiser = GepaOptimiser(
        proposer, SEED, metric_calls=metric_calls, reflection_minibatch=minibatch, proposals_per_iteration=proposals
    )
    evolution = optimiser.evolve(
        population or [SEED],
        make_problems(problems),
        world.evaluate,
        size=size,
        seed=seed,
        previous_scores=previous or {},
    )
    assert len(evolution.population) == size
    assert evolution.metric_calls == world.calls <= metric_calls
    return evolution


def children(evolution: Evolution) -> list[Candidate]:
    return [candidate for candidate in evolution.candidates if candidate.parent_hash is not None]
