"""The config of the fast side: what every prompt optimiser has, GEPA's own section, and one for somebody's own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from fastslow.fast.proposers.settings import AnyProposer, LessonConfig
from fastslow.section import Fraction, NonNegative, Positive, Section, drop_foreign, option

GEPA = "GEPA, arXiv 2507.19457"
OWN = "package.module:Class"
Ties = Literal["different", "problems"]
"""What turns a child down that ties while nothing scores: more different complaints over the minibatch than its parent
has, or complaints that grow on more problems than they shrink on.
"""


class FastConfig(Section):
    """What every prompt optimiser has. Budgets are per cycle; metric calls are a hard ceiling;
    see [prompts.md](prompts.md).
    """

    anchor_problems: Positive = option(
        192,
        "problems that prompts are scored on",
        unit="problems a cycle",
        source="settings: 192, Math 96, star graph 200",
    )
    metric_calls: Positive = option(
        960, "a hard ceiling", unit="(prompt, problem) pairs a cycle", source="settings: 960, Math 1500"
    )
    anchors_from_store: Fraction = option(
        0.0, "share of the anchors that recent rollouts cover already", unit="share, 0 to 1"
    )
    max_backoff: NonNegative = option(
        0,
        "longest pause after searches that brought nothing",
        more="After such a search, sit out 1 cycle, then 2, 4 ... up to this many. 0: search every cycle.",
        unit="cycles",
        source="ours; 0 is the paper",
    )
    scores: Literal["anchors", "rollouts"] = option(
        "anchors", "what prompts are scored by; `rollouts`: those of RL, the search samples none", unit="a name",
        source="anchors: the paper; rollouts: arXiv 2602.14697",
        more="With `rollouts`, children take part in the next steps before anything is known of them. See "
        "[prompts.md](prompts.md#a-search-that-samples-nothing).",
    )  # fmt: skip
    proposer: AnyProposer = Field(default_factory=LessonConfig)


class GepaConfig(FastConfig):
    """Reflective evolution with the `gepa` package."""

    optimiser: Literal["gepa"] = option(
        "gepa",
        "or `frozen`, or your own as `package.module:build`",
        unit="a name",
        source=GEPA,
        more="`frozen` alone does not search. See [your own](prompts.md#write-your-own-optimiser).",
    )
    reflection_minibatch: Positive = option(8, "problems that a parent and its child are compared on", unit="problems")
    proposals_per_iteration: Positive = option(1, "children proposed and scored in one batch", unit="prompts")
    use_merge: bool = option(
        False,
        "cross two prompts of the pool as well: each component from the one that changed it",
        unit="yes or no",
        source=GEPA,
        more="A task whose prompt has one component has nothing to cross.",
    )
    max_merges: Positive = option(5, "merged prompts that a cycle may accept", unit="prompts a cycle", source=GEPA)
    trials: Positive = option(
        1, "`scores: rollouts`: places of the population that new children get each cycle", unit="prompts"
    )
    ties: Ties = option(
        "different",
        "while nothing scores: which complaints turn a child down that ties",
        unit="a name",
        source="ours",
        more="`different`: more different ones than its parent has. `problems`: they grow on more problems than they "
        "shrink on. See [prompts.md](prompts.md#traps).",
    )
    held_out: Annotated[float, Field(ge=0.0, le=0.5)] = option(
        0.0, "share of the anchors that reflection is never shown; 0 turns the guard off", unit="share, 0 to 0.5",
        source="ours; gepa issue 261",
        more="A child whose gain is on the shown anchors alone is refused. See "
        "[prompts.md](prompts.md#children-that-copy-problems).",
    )  # fmt: skip


class FrozenConfig(GepaConfig):
    """No search. It keeps GEPA's keys, so that one key switches a search off."""

    optimiser: Literal["frozen"]  # type: ignore[assignment]


class OwnOptimiserConfig(FastConfig):
    """A prompt optimiser of your own, by its import path."""

    optimiser: Annotated[str, Field(pattern=":")]
    options: dict[str, Any] = option(make=dict, meaning="its own; they go to its constructor", unit="names to values")


def _optimiser(value: Any) -> str:
    name = value.get("optimiser", "gepa") if isinstance(value, dict) else getattr(value, "optimiser", "gepa")
    return OWN if isinstance(name, str) and ":" in name else str(name)


KINDS: Mapping[str, type[FastConfig]] = {"gepa": GepaConfig, "frozen": FrozenConfig, OWN: OwnOptimiserConfig}


def _own_keys(value: Any, info: ValidationInfo) -> Any:
    return drop_foreign(value, _optimiser(value), KINDS, info)


AnyOptimiser = Annotated[
    Annotated[GepaConfig, Tag("gepa")]
    | Annotated[FrozenConfig, Tag("frozen")]
    | Annotated[OwnOptimiserConfig, Tag(OWN)],
    Discriminator(_optimiser),
    BeforeValidator(_own_keys),
]
"""The section `fast`: its `optimiser` says which keys it has."""
