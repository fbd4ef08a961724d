"""A world without a model, in which prompt optimisers are checked: a prompt's reward on a problem is a function."""

from collections.abc import Callable, Sequence

from fastslow.fast.optimiser import Evaluation, Usage
from fastslow.fast.proposers.base import Example, Proposal
from fastslow.types import Completion, Problem, Prompt, Rollout, Turn

Reward = Callable[[Prompt, Problem], float | None]


def plus_signs(prompt: Prompt, problem: Problem) -> float:
    """Each edit of `Plus` is worth a tenth."""
    return min(1.0, 0.1 + 0.1 * sum(text.count("+") for text in prompt.as_dict().values()))


def problems_of(count: int, kinds: Sequence[str] = ("",)) -> list[Problem]:
    """Problems p0, p1 ...; their kinds take turns."""
    question = "question {}"
    return [
        Problem(f"p{i}", ({"role": "user", "content": question.format(i)},), {}, kinds[i % len(kinds)])
        for i in range(count)
    ]


class World:
    """`evaluate` is the fast side's, and `pairs` what it was asked. A reward of None is a masked rollout."""

    def __init__(self, reward: Reward = plus_signs, *, copies: int = 1) -> None:
        self.reward, self.copies = reward, copies
        self.pairs: list[tuple[Prompt, Problem]] = []

    @property
    def calls(self) -> int:
        """Metric calls so far."""
        return len(self.pairs)

    def evaluate(self, pairs: Sequence[tuple[Prompt, Problem]]) -> list[Evaluation]:
        """One evaluation a pair, in order."""
        self.pairs.extend(pairs)
        return [
            Evaluation(prompt, problem, (self._rollout(prompt, problem),) * self.copies) for prompt, problem in pairs
        ]

    def _rollout(self, prompt: Prompt, problem: Problem) -> Rollout:
        reward = self.reward(prompt, problem)
        failure = "the scorer crashed" if reward is None else None
        completion = Completion((1,), (0.0,), "stop")
        return Rollout(
            problem.id, prompt.hash, (Turn((1,), completion, "answer"),), reward, "Do better.", failure, 0, "gepa"
        )


class Plus:
    """A proposer: the parent with a plus sign and what its seed gives; or always an error. `asked` counts its calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, 0

    def propose(self, parent: Prompt, component: str, examples: Sequence[Example], *, seed: int) -> Proposal:
        """A child of one more sign."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        text = f"{parent.as_dict()[component]}+{seed % 97}"
        return Proposal(text, Usage(calls=1, input_tokens=10, output_tokens=2, usd=0.5))
