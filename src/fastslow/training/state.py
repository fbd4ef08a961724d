"""Where the loop stands: what a resumed run continues from, besides the engine and the rollout store."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fastslow.fast.pacing import SearchPace
from fastslow.types import Prompt


@dataclass
class LoopState:
    """Everything besides the engine and the store that a resumed run continues from."""

    step: int = 0
    cycle: int = 0
    step_in_cycle: int = 0
    population: tuple[Prompt, ...] = ()
    sampled_rl: int = 0
    sampled_gepa: int = 0
    sampled_reflection: int = 0
    usd: float | None = 0.0
    candidates: int = 0
    evolved_for_step: int = -1
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    library: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """By task of a stream, the population that it was left with."""
    by_kind: dict[str, str] = field(default_factory=dict)
    """By kind of problems, where there are several, the hash of the member that is best for it."""
    pace: SearchPace = field(default_factory=SearchPace)
    stuck_steps: int = 0
    """Steps without an update since one was left out for a loss or gradient that is not finite; 0 after a sound one."""
    stuck_version: int = 0
    """The policy version whose update was left out, where steps are stuck."""

    @property
    def sampled_total(self) -> int:
        """All sampled rollouts, those of the search and of reflection included; reused ones are not."""
        return self.sampled_rl + self.sampled_gepa + self.sampled_reflection

    def choose_by_kind(self, chosen: Mapping[str, Prompt]) -> None:
        """Take what a search found best for each kind; of kinds that it did not see, earlier choices still members."""
        members = {prompt.hash for prompt in self.population}
        known = self.by_kind | {kind: prompt.hash for kind, prompt in chosen.items()}
        self.by_kind = {kind: hash_ for kind, hash_ in known.items() if hash_ in members}

    def to_json(self) -> dict[str, Any]:
        """As it is written into a checkpoint."""
        return {**asdict(self), "population": [prompt.as_dict() for prompt in self.population]}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "LoopState":
        """The state that a checkpoint holds."""
        population = tuple(Prompt.from_dict(item) for item in record["population"])
        return cls(**{**record, "population": population, "pace": SearchPace(**record.get("pace", {}))})
