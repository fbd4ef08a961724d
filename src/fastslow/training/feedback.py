"""Whether the prompt search has anything to read: it learns from what the verifier says of wrong answers, in words."""

from collections.abc import Sequence

from fastslow.config import Config
from fastslow.fast.optimiser import Evaluation
from fastslow.fast.proposers.lesson import may_teach
from fastslow.fast.proposers.settings import LessonConfig
from fastslow.methods.registry import find_method
from fastslow.tasks.base import ScoringFailure, Task, has_turns
from fastslow.text import is_bare_number, shown

A_GUESS = "I do not know."
WAYS = (
    "Take a scorer or a reward function that returns (reward, feedback) or a fastslow.Score, with a rule in words; or "
    "let a language model read the answers (fast.proposer.kind: policy, openai or litellm), better with the reference "
    "answers (task.options.answer)"
)


def silence(config: Config, task: Task) -> list[str]:
    """What `--dry-run` says where a wrong answer gets no words: lines, none where it does,
    or where only playing would tell.

    The scorer is asked once, about a training problem.
    """
    if not find_method(config.method).searches(config) or has_turns(task):
        return []
    (score,) = task.verdicts([task.problems("train")[0]], [A_GUESS])
    if isinstance(score, ScoringFailure):
        return [f"feedback: the scorer broke on the answer {A_GUESS!r}: {score.reason}"]
    lines = score.feedback.splitlines()
    told = f"a wrong answer gets {shown(score.feedback)}" if score.feedback else "a wrong answer gets no words"
    if score.reward >= 1.0:
        return []
    if isinstance(config.fast.proposer, LessonConfig) and not any(map(may_teach, lines)):
        return [f"feedback: {told}: the fast side has nothing to read, and the prompts will stay as they are. {WAYS}"]
    if all(map(is_bare_number, lines)):
        return [f"feedback: {told}: what proposes prompts has questions, answers and rewards to read, and no words"]
    return []


def unheard(config: Config, evaluations: Sequence[Evaluation]) -> str | None:
    """What a run says where rollouts that were not right got no words that a prompt could say; None where some did."""
    rollouts = [rollout for each in evaluations for rollout in each.rollouts]
    wrong = [rollout.feedback for rollout in rollouts if rollout.reward is not None and rollout.reward < 1.0]
    words = any(may_teach(line) for feedback in wrong for line in feedback.splitlines())
    if not wrong or words or not isinstance(config.fast.proposer, LessonConfig):
        return None
    return (
        f"the first {len(wrong)} rollouts that were not right got no words: prompts have nothing to learn from. {WAYS}"
    )
