"""The rollout store: what one side has sampled, the other need not sample again.

GEPA's evaluations serve the slots of RL's groups (arXiv 2605.12484, appendix F). RL's rollouts serve GEPA's scores of
the prompts that survive, which goes beyond the paper. Both within a limit on staleness, counted in policy versions: a
reused rollout keeps its sampler's log-probabilities, so the ratio in the loss is truly off-policy.

Deviation from the paper: the cache is not cleared at a new cycle, it forgets by age.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from fastslow.types import Rollout

Key = tuple[str, str]


class RolloutStore:
    """Rollouts by (problem, prompt), no older than `max_age` policy versions; `max_age` 0 turns reuse off.

    A rollout is trained on at most once: `take` hands out GEPA's rollouts and never the same one twice. Reading a
    prompt's fitness uses nothing up. Masked rollouts are not kept.
    """

    def __init__(self, max_age: int) -> None:
        self.max_age = max_age
        self._rollouts: dict[Key, list[Rollout]] = defaultdict(list)
        self._trained: dict[Key, int] = defaultdict(int)

    def __len__(self) -> int:
        return sum(len(rollouts) for rollouts in self._rollouts.values())

    def add(self, rollouts: Iterable[Rollout]) -> None:
        """Keep fresh rollouts. Those of RL are trained on as they are made, so `take` will not hand them out."""
        if self.max_age == 0:
            return
        for rollout in rollouts:
            if rollout.reward is not None:
                key = (rollout.problem_id, rollout.prompt_hash)
                # Trained rollouts stand first, so that one number says where the untrained ones begin.
                if rollout.source == "rl":
                    self._rollouts[key].insert(self._trained[key], rollout)
                    self._trained[key] += 1
                else:
                    self._rollouts[key].append(rollout)

    def fresh(self, problem_id: str, prompt_hash: str, policy_version: int) -> tuple[Rollout, ...]:
        """Every rollout of a pair that is young enough to score the prompt under this policy."""
        rollouts = self._rollouts.get((problem_id, prompt_hash), [])
        return tuple(rollout for rollout in rollouts if self._is_fresh(rollout, policy_version))

    def take(self, problem_id: str, prompt_hash: str, policy_version: int, count: int) -> list[Rollout]:
        """Up to `count` rollouts of a pair for an RL group; each is handed out once."""
        key = (problem_id, prompt_hash)
        taken: list[Rollout] = []
        rollouts = self._rollouts.get(key, [])
        while len(taken) < count and self._trained[key] < len(rollouts):
            rollout = rollouts[self._trained[key]]
            self._trained[key] += 1
            if self._is_fresh(rollout, policy_version):
                taken.append(rollout)
        return taken

    def covered_problems(self, prompt_hashes: Sequence[str], policy_version: int) -> list[str]:
        """Problems with a fresh rollout under every one of these prompts, in the order in which they came in."""
        problems = dict.fromkeys(problem for problem, _ in self._rollouts)
        return [p for p in problems if all(self.fresh(p, h, policy_version) for h in prompt_hashes)]

    def expire(self, policy_version: int) -> None:
        """Forget what is too old for either side."""
        for key in list(self._rollouts):
            rollouts = self._rollouts[key]
            trained = [r for r in rollouts[: self._trained[key]] if self._is_fresh(r, policy_version)]
            untrained = [r for r in rollouts[self._trained[key] :] if self._is_fresh(r, policy_version)]
            if trained or untrained:
                self._rollouts[key], self._trained[key] = trained + untrained, len(trained)
            else:
                del self._rollouts[key]
                del self._trained[key]

    def copy(self) -> "RolloutStore":
        """A store with the same rollouts; what one forgets or hands out, the other keeps."""
        other = RolloutStore(self.max_age)
        other._rollouts.update({key: list(rollouts) for key, rollouts in self._rollouts.items()})
        other._trained.update(self._trained)
        return other

    def clear(self) -> None:
        """Forget everything."""
        self._rollouts.clear()
        self._trained.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """One record a pair, in order, for a checkpoint."""
        return [
            {"trained": self._trained[key], "rollouts": [rollout.to_json() for rollout in rollouts]}
            for key, rollouts in self._rollouts.items()
        ]

    def restore(self, records: Iterable[dict[str, Any]]) -> None:
        """Replace the content by what `to_json` gave."""
        self.clear()
        for record in records:
            rollouts = [Rollout.from_json(item) for item in record["rollouts"]]
            key = (rollouts[0].problem_id, rollouts[0].prompt_hash)
            self._rollouts[key], self._trained[key] = rollouts, int(record["trained"])

    def _is_fresh(self, rollout: Rollout, policy_version: int) -> bool:
        return policy_version - rollout.policy_version <= self.max_age
