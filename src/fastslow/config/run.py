"""The config of a whole run: its own options, and the sections that components declare. Strict:
unknown keys are errors.

Defaults are the paper's (arXiv 2605.12484) where it gives one. Ours, where it is silent: sampling temperature 1.0,
`steps_per_cycle` 6 (192 anchor problems / 32 problems a step), LoRA learning rates, the reuse limit in policy versions,
`distill.cycles`. The section `tinker` is ours altogether.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fastslow.extension import load_object
from fastslow.fast.proposers.settings import OpenAIConfig, RemoteConfig
from fastslow.fast.settings import AnyOptimiser, GepaConfig
from fastslow.measuring.settings import EvaluationConfig
from fastslow.methods.settings import METHODS, DistillConfig
from fastslow.rollouts.settings import EpisodesConfig
from fastslow.section import Fraction, NonNegative, PathText, Positive, Section, option
from fastslow.slow.settings import ModelConfig, SamplingConfig, SlowConfig, loss_defaults
from fastslow.slow.tinker.settings import TinkerConfig
from fastslow.tasks.settings import TaskConfig
from fastslow.text import shown
from fastslow.training.settings import NO_TRACKER, LoopConfig, Tracker, TrackingConfig

ENGINES = ("local", "tinker")


class Checked(Protocol):
    """What a config asks of its method; the rest of a method is none of its business."""

    def check(self, config: "Config", *, recorded: bool = False) -> None:
        """Raises ValueError where the config cannot be meant."""
        ...

    def searches(self, config: "Config") -> bool:
        """Whether prompts are evolved at all."""
        ...


class Config(Section):
    """A whole run."""

    engine: str = option(
        "local",
        "or `tinker`: a server, see [scale-out.md](scale-out.md); or `package.module:Class`",
        unit="a name",
    )
    engine_options: dict[str, Any] = option(
        make=dict, meaning="of an engine of your own; they go to its constructor", unit="names to values"
    )
    tinker: TinkerConfig | None = None
    model: ModelConfig
    task: TaskConfig
    method: str = option(
        "fst",
        "how prompts and weights move",
        more="`fst`: both move; `rl`: the seed prompt stays; `prompt`: the weights stay; `distill`: a prompt goes into "
        "the weights.",
        unit="a name",
        source="the paper's FST, its two baselines, and FST-distill",
    )
    output: PathText = option("runs/run", "the run directory; it must not hold a run yet", unit="path")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = option(0, "drives everything", unit="number")
    steps: Positive = option(
        100,
        "training steps; a step of `method: prompt`, and of the search of `distill`, is a cycle",
        unit="training steps; cycles where `method` is `prompt`",
        source="ours; the paper's runs take 200 to 500",
    )
    max_rollouts: Positive | None = option(
        None,
        "also stop when this many rollouts have been sampled",
        unit="rollouts",
        more="GEPA's rollouts and the policy's own reflection are included.",
    )
    max_failure_fraction: Fraction = option(
        0.5, "stop, saved, when more of a step's rollouts cannot be scored", unit="share, 0 to 1"
    )
    threads: Annotated[int, Field(gt=0, le=1024)] | None = option(
        None, "null: PyTorch's own choice", unit="CPU threads"
    )
    tracker: Tracker = option(NO_TRACKER, "`tensorboard`, `wandb`, `trackio`, or `package.module:Class`", unit="a name")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    checkpoint_every: Positive = option(
        50, "how often the run is saved", unit="steps", source="settings: 50, all kept", more="See `kept_checkpoints`."
    )
    kept_checkpoints: Positive | None = option(
        None,
        "the newest ones, which are kept; null: all of them",
        unit="checkpoints",
        source="settings: all kept",
        more="Where it is set, the disk that a run takes is bounded but for its lines of text.",
    )
    resumable_checkpoints: Positive = option(
        2,
        "the newest ones that a run can go on from",
        unit="checkpoints",
        more="Of older ones the weights alone are kept. Of two, one may be broken.",
    )
    rollout_samples: NonNegative = option(16, "rollouts that are written out to be read", unit="rollouts a step")
    loop: LoopConfig = Field(default_factory=LoopConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    episodes: EpisodesConfig = Field(default_factory=EpisodesConfig)
    slow: SlowConfig = Field(default_factory=SlowConfig)
    fast: AnyOptimiser = Field(default_factory=GepaConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="before")
    @classmethod
    def _with_the_losses_own(cls, values: Any) -> Any:
        slow = values.get("slow") if isinstance(values, Mapping) else None
        loss = slow.get("loss") if isinstance(slow, Mapping) else getattr(slow, "loss", None)
        loop = values.get("loop", {}) if loss_defaults(loss).unscaled else None
        if not isinstance(loop, Mapping):
            return values
        return {**values, "loop": {"divide_by_std": False, "batch_normalisation": False, **loop}}

    @field_validator("output")
    @classmethod
    def _a_path(cls, output: str) -> str:
        if not output.strip() or not output.isprintable():
            raise ValueError(f"{shown(output)} is no path that one can read and type: take one of printable characters")
        return output

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> "Config":
        if self.method not in METHODS:
            raise ValueError(f"method: {self.method!r} is unknown: take one of {', '.join(METHODS)}")
        method: Checked = load_object(METHODS[self.method], "method")()
        # A run that was made before a check is still read, and resumed.
        method.check(self, recorded=bool((info.context or {}).get("recorded")))
        if self.engine not in ENGINES and ":" not in self.engine:
            raise ValueError(
                f"engine: {self.engine!r} is unknown: take one of {', '.join(ENGINES)}, or package.module:Class"
            )
        if self.engine in ENGINES and self.engine_options:
            raise ValueError(
                f"engine_options: {sorted(self.engine_options)} are options of an engine of your own, and engine "
                f"{self.engine!r} has none: leave them out"
            )
        if self.engine == "tinker" and self.tinker is None:
            raise ValueError(
                "tinker: is missing: engine 'tinker' needs a section with the server's tinker.base_url "
                "and tinker.backend"
            )
        if method.searches(self):
            self._check_proposer()
            if self.fast.metric_calls <= self.fast.anchor_problems:
                raise ValueError(
                    f"fast.metric_calls: {self.fast.metric_calls} must exceed fast.anchor_problems, "
                    f"{self.fast.anchor_problems}: scoring one prompt on the anchors takes that many"
                )
        return self

    def _check_proposer(self) -> None:
        proposer = self.fast.proposer
        if isinstance(proposer, RemoteConfig) and not proposer.model:
            raise ValueError(f"fast.proposer.model: is missing: kind {proposer.described!r} needs the name of a model")
        if isinstance(proposer, OpenAIConfig) and not proposer.base_url:
            raise ValueError("fast.proposer.base_url: is missing: kind 'openai' needs the address of a server")
