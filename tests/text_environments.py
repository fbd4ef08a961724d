"""Text environments as SkyRL-gym has them; nothing here knows fastslow or SkyRL-gym."""

import random
from typing import Any


class CountDown:
    """Count down from a number, one word a turn. Drawn where the data has none."""

    def __init__(self, env_config: Any = None, extras: dict[str, Any] | None = None) -> None:
        self.bonus = getattr(env_config, "bonus", 0.0)
        self.number = (extras or {}).get("from") or random.randint(2, 4)
        self.turns = 0
        self.closed = 0

    def init(self, prompt: list[dict[str, str]]) -> tuple[list[dict[str, str]], dict[str, Any]]:
        *before, last = prompt
        return [*before, {**last, "content": f"{last['content']}Count down from {self.number} to 1."}], {}

    def step(self, action: str) -> dict[str, Any]:
        self.turns += 1
        if action == "crash":
            raise RuntimeError("the server is gone")
        if action == "nonsense":
            return {"observations": []}  # type: ignore[return-value]
        right = action.strip() == str(self.number)
        self.number -= right
        done = self.number == 0 or self.turns == 6
        reward = 0.25 * right + (self.bonus if done and self.number == 0 else 0.0)
        said = [] if action == "hm" else [{"role": "user", "content": "Right." if right else "Wrong."}]
        return {
            "observations": said,
            "reward": reward,
            "done": done,
            "metadata": {} if right else {"feedback": "Say one number and nothing else."},
        }

    def close(self) -> None:
        self.closed += 1
