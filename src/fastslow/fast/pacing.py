"""When to search for prompts again. The paper searches at the start of every cycle; that is the default here too.

Deviation, by option (`fast.max_backoff`): a search that brings nothing is followed by cycles without one, first 1,
then 2, 4 and so on up to the limit. A search that pays ends that, and so does a population that has gone stale:
its training reward fell below half of its best cycle since the last search. What is open in the paper here: "a
fixed T, or when it pays".
"""

from collections.abc import Iterable
from dataclasses import dataclass

STALE_SHARE = 0.5


@dataclass
class SearchPace:
    """`resting`: cycles still to sit out. `pause`: the last pause. Rewards are means over the rollouts of a cycle."""

    resting: int = 0
    pause: int = 0
    reward_sum: float = 0.0
    reward_count: int = 0
    best_reward: float = 0.0

    def observe(self, rewards: Iterable[float]) -> None:
        """Count the training rewards of one step."""
        for reward in rewards:
            self.reward_sum += reward
            self.reward_count += 1

    def begin_cycle(self) -> bool:
        """Whether to search now."""
        reward = self.reward_sum / self.reward_count if self.reward_count else 0.0
        stale = reward < STALE_SHARE * self.best_reward
        self.best_reward = max(self.best_reward, reward)
        self.reward_sum, self.reward_count = 0.0, 0
        if self.resting and not stale:
            self.resting -= 1
            return False
        self.best_reward = 0.0
        return True

    def searched(self, paid: bool, longest: int) -> None:
        """Book a search; `longest` is the limit of the pauses, 0 for none."""
        self.pause = 0 if paid else min(max(1, 2 * self.pause), longest)
        self.resting = self.pause

    def reset(self) -> None:
        """Forget everything: the task has changed."""
        self.resting = self.pause = self.reward_count = 0
        self.reward_sum = self.best_reward = 0.0
