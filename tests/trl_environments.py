"""Environments written for TRL's `environment_factory`; nothing here knows fastslow.

`IncrementEnv` and `CountToEnv` are the two of TRL's documentation (`docs/source/grpo_trainer.md`, Environments): one
makes its task up, the other takes it from the data.
"""

import random
from typing import ClassVar


class IncrementEnv:
    def reset(self, **kwargs) -> str | None:
        self.counter = 0
        self.target = random.randint(1, 6)
        return f"Increment the counter by {self.target}."

    def get_reward(self) -> float:
        return float(self.counter == self.target)

    def increment(self, step: int) -> int:
        """
        Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        """
        self.counter += step
        return self.counter


class CountToEnv(IncrementEnv):
    def reset(self, target, **kwargs) -> None:
        self.counter = 0
        self.target = target


class TargetEnv(IncrementEnv):
    """The same with the task in the data, words for reflection, and calls that are refused."""

    def reset(self, target: int, **kwargs) -> str:
        self.counter, self.target = 0, target
        self.feedback = ""
        return f" The target is {target}."

    async def get_reward(self) -> float:
        self.feedback = "" if self.counter == self.target else "Stop at the target."
        return float(self.counter == self.target)

    def increment(self, step: int) -> dict[str, int]:
        """Increment the internal counter.

        Args:
            step: Value to add to the counter, 1 to 3.
        """
        if not 1 <= step <= 3:
            raise ValueError("a step is 1 to 3")
        if step == 3 and self.counter == 3:
            raise OSError("the counter is jammed")
        self.counter += step
        return {"counter": self.counter}


class ManualEnv(TargetEnv):
    """It has a manual, which the policy reads by a tool."""

    skills: ClassVar[dict[str, str]] = {"manual": "Steps are small."}

    def read_manual(self) -> str:
        """Read how the counter works."""
        return self.skills["manual"]


class CodingEnv:
    def reset(self, **kwargs) -> str:
        return f"Compute the {random.randint(1, 20)}th Fibonacci number."

    async def run_code(self, code: str) -> str:
        """Run the given Python code and return its stdout.

        Args:
            code: The Python source to execute.
        """
        return f"ran {len(code)} characters"


def brief(completions, environments, **kwargs) -> list[float]:
    """A trainer's own reward: few words in the last message."""
    assert all(hasattr(environment, "reset") for environment in environments)
    return [float(len(completion[-1]["content"]) < 10) for completion in completions]
