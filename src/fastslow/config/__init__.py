"""The config: every option with its type, its default and where the default comes from. Strict: unknown keys are errors.

Defaults are the paper's (arXiv 2605.12484) where it gives one. Ours, where it is silent: sampling temperature 1.0,
`steps_per_cycle` 6 (192 anchor problems / 32 problems a step), LoRA learning rates, the reuse limit in policy versions,
`distill.cycles`. The section `tinker` is ours altogether.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from fastslow.config.yaml_text import read_yaml
from fastslow.errors import ConfigError
from fastslow.resources import resolve_path

FROZEN = "frozen"
"""The prompt optimiser that does not search."""

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the config: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LoraConfig(Section):
    """LoRA through PEFT; without this section every parameter is trained."""

    rank: Positive = 16
    alpha: Positive = 32
    targets: str | list[str] = "all-linear"


class ModelConfig(Section):
    """The policy's model: a hub id, a local directory, a .gguf file or `package:NAME/PATH`."""

    name: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    lora: LoraConfig | None = None
    trust_remote_code: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


class TaskConfig(Section):
    """A built-in task, `reasoning_gym:<generator>`, or `package.module:Class`; `options` go to its constructor."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    seed_prompt: str | dict[str, str] | None = None


class LoopConfig(Section):
    """Algorithm 1. T, K, G and B of the paper."""

    steps_per_cycle: Positive = 6
    population_size: Positive = 8
    group_size: Positive = 8
    problems_per_step: Positive = 32
    baseline: Literal["problem", "prompt"] = "problem"
    divide_by_std: bool = True
    batch_normalisation: bool = True
    reuse_max_age: NonNegative = 6


class SamplingConfig(Section):
    """Training rollouts. Evaluation has its own, in `evaluation`.

    The learner takes its log-probabilities at `temperature`, too. `top_p` below 1 is for `method: prompt` alone.
    """

    max_tokens: Positive = 512
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class SlowConfig(Section):
    """The slow weights' optimiser."""

    loss: str = "cispo"
    clip_low: Annotated[float, Field(ge=0.0)] = 1.0
    clip_high: Annotated[float, Field(ge=0.0)] = 3.0
    kl_coefficient: Annotated[float, Field(ge=0.0)] = 1e-3
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-6
    warmup_steps: NonNegative = 10
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    microbatch_tokens: Positive = 2048
    sample_rows: Positive = 128
    prefix_sharing: bool = True

    @property
    def tau(self) -> float:
        """Absolute ceiling of the importance ratio."""
        return 1.0 + self.clip_high


class ProposerConfig(Section):
    """What writes child prompts.

    `litellm`: any LiteLLM model name. `openai`: any OpenAI-compatible server by `base_url`. `policy`: the policy itself.
    `lesson`: no LLM, the most frequent line of the verifier's feedback becomes a line of the prompt, in the words of a
    phrase book where one is given.
    """

    kind: Literal["litellm", "openai", "policy", "lesson"] = "lesson"
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    temperature: Annotated[float, Field(ge=0.0)] = 1.0
    max_tokens: Positive = 4096
    timeout_s: Annotated[float, Field(gt=0.0)] = 120.0
    retries: NonNegative = 4
    backoff_s: Annotated[float, Field(ge=0.0)] = 1.0
    recipe: Literal["light", "full"] = "light"
    phrasebook: str | None = None
    max_prompt_chars: Positive = 16000
    usd_per_million_input_tokens: Annotated[float, Field(ge=0.0)] | None = None
    usd_per_million_output_tokens: Annotated[float, Field(ge=0.0)] | None = None


class FastConfig(Section):
    """The fast weights' optimiser. Budgets are per cycle; metric calls are a hard ceiling.

    `optimiser`: a name that `fast/registry.py` knows, or `package.module:build`; all but `frozen` search.
    """

    optimiser: str = "gepa"
    anchor_problems: Positive = 192
    metric_calls: Positive = 960
    reflection_minibatch: Positive = 8
    proposals_per_iteration: Positive = 1
    anchors_from_store: Fraction = 0.0
    max_backoff: NonNegative = 0
    proposer: ProposerConfig = Field(default_factory=ProposerConfig)


class DistillConfig(Section):
    """The teacher's prompt of `method: distill`.

    `prompt`: `evolve`, `@FILE`, the directory of a run (its best prompt), a text, or component names to texts. `cycles`: how
    long `evolve` searches, one step each, before the first step of distillation.
    """

    prompt: str | dict[str, str] = "evolve"
    cycles: Positive = 10


class EvaluationConfig(Section):
    """Validation during training, and the defaults of `fastslow evaluate`. mean@k at temperature 0.6 and top-p 0.95."""

    every: NonNegative = 10
    problems: Positive = 64
    k: Positive = 4
    temperature: Annotated[float, Field(ge=0.0)] = 0.6
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    kl_problems: NonNegative = 32


class TinkerConfig(Section):
    """The server of `engine: tinker`. `backend` says which one it is: they sum losses, and take thresholds, differently."""

    base_url: str
    backend: Literal["hosted", "jax", "fsdp", "megatron"]
    base_model: str | None = None
    api_key_env: str | None = None
    connect_timeout_s: Annotated[float, Field(gt=0.0)] = 30.0
    outage_s: Annotated[float, Field(gt=0.0)] = 120.0
    batch_timeout_s: Annotated[float, Field(gt=0.0)] = 7200.0
    download_weights: bool = True
    context_limit: Positive | None = None


class Config(Section):
    """A whole run."""

    engine: Literal["local", "tinker"] = "local"
    tinker: TinkerConfig | None = None
    model: ModelConfig
    task: TaskConfig
    method: Literal["fst", "rl", "prompt", "distill"] = "fst"
    output: str = "runs/run"
    seed: NonNegative = 0
    steps: Positive = 100
    max_rollouts: Positive | None = None
    max_failure_fraction: Fraction = 0.5
    threads: Positive | None = None
    tracker: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    checkpoint_every: Positive = 50
    rollout_samples: NonNegative = 16
    loop: LoopConfig = Field(default_factory=LoopConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    slow: SlowConfig = Field(default_factory=SlowConfig)
    fast: FastConfig = Field(default_factory=FastConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @property
    def population_size(self) -> int:
        """K: plain RL has one prompt, the seed prompt; distillation of a given prompt that one."""
        return 1 if self.method == "rl" or self.teacher_is_given else self.loop.population_size

    @property
    def teacher_is_given(self) -> bool:
        """Whether this is distillation of a prompt that need not be searched for."""
        return self.method == "distill" and self.distill.prompt != "evolve"

    @property
    def answering_prompts(self) -> int:
        """Prompts that share a problem's group: K, but in distillation the student's alone."""
        return 1 if self.method == "distill" else self.population_size

    @property
    def searches(self) -> bool:
        """Whether prompts are evolved at all."""
        return self.method != "rl" and not self.teacher_is_given and self.fast.optimiser != FROZEN

    @property
    def search_steps(self) -> int:
        """How many steps, from the first, are cycles of the prompt search that leave the weights as they are."""
        if self.method == "distill":
            return self.distill.cycles if self.searches else 0
        return self.steps if self.method == "prompt" else 0

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> "Config":
        # A run that was made before this check is still read, and resumed.
        if not (info.context or {}).get("recorded"):
            self._check_groups()
        if self.method != "prompt" and self.loop.group_size % self.answering_prompts:
            raise ValueError(
                f"loop.population_size: K = {self.population_size} does not divide loop.group_size, G = "
                f"{self.loop.group_size}: every prompt gets G/K rollouts a problem. Take one of "
                f"{[k for k in range(1, self.loop.group_size + 1) if self.loop.group_size % k == 0]}"
            )
        self._check_clipping()
        if self.method == "distill":
            self._check_distillation()
        if self.engine == "tinker" and self.tinker is None:
            raise ValueError(
                "tinker: is missing: engine 'tinker' needs a section with the server's tinker.base_url and tinker.backend"
            )
        proposer = self.fast.proposer
        if self.searches:
            if proposer.kind in ("litellm", "openai") and not proposer.model:
                raise ValueError(f"fast.proposer.model: is missing: kind {proposer.kind!r} needs the name of a model")
            if proposer.kind == "openai" and not proposer.base_url:
                raise ValueError("fast.proposer.base_url: is missing: kind 'openai' needs the address of a server")
            if self.fast.metric_calls <= self.fast.anchor_problems:
                raise ValueError(
                    f"fast.metric_calls: {self.fast.metric_calls} must exceed fast.anchor_problems, "
                    f"{self.fast.anchor_problems}: scoring one prompt on the anchors takes that many"
                )
        return self

    def _check_clipping(self) -> None:
        """No loss has a floor on the ratio, and plain importance sampling has no ceiling: such a clip would not be used."""
        slow, default = self.slow, SlowConfig()
        floor_does_nothing = slow.loss == "cispo" and slow.clip_low > 1.0
        if slow.clip_low != default.clip_low and not floor_does_nothing:
            name = "CISPO" if slow.loss == "cispo" else slow.loss
            raise ValueError(
                f"slow.clip_low: {slow.clip_low} sets a floor, which {name} does not have: set it to {default.clip_low}"
            )
        if slow.loss == "importance_sampling" and slow.clip_high != default.clip_high:
            raise ValueError(
                f"slow.clip_high: {slow.clip_high} sets a ceiling, which importance_sampling does not have: leave it at "
                f"{default.clip_high}, or take slow.loss: cispo"
            )

    def _check_groups(self) -> None:
        """Raises ValueError for groups of one rollout: its advantage is always 0, so that the weights never move."""
        loop = self.loop
        if self.method not in ("fst", "rl"):
            return
        if loop.group_size == 1:
            raise ValueError(
                f"loop.group_size: 1 gives groups of one rollout, whose advantage is always 0: method {self.method!r} would "
                "never move the weights. Take 2 or more, or method: prompt, which only searches for prompts"
            )
        if loop.baseline == "prompt" and self.searches and loop.group_size == self.population_size:
            raise ValueError(
                f"loop.baseline: 'prompt' compares the G/K rollouts of a problem under one prompt, and loop.group_size, G = "
                f"{loop.group_size}, over loop.population_size, K = {self.population_size}, leaves one under each, "
                f"whose advantage is always 0. Raise loop.group_size to {2 * self.population_size} or more, lower "
                "loop.population_size, or take baseline: problem"
            )

    def _check_distillation(self) -> None:
        if self.teacher_is_given:
            return
        if not self.searches:
            raise ValueError(
                f"distill.prompt: 'evolve' needs a search, and fast.optimiser is {self.fast.optimiser!r}: set it to gepa, or "
                "give the prompt"
            )
        if self.steps <= self.distill.cycles:
            raise ValueError(
                f"steps: {self.steps} leaves none to distil, since the first distill.cycles = {self.distill.cycles} search "
                "for the prompt: raise it"
            )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `key.path=value` overrides. Raises ConfigError with one message per wrong field."""
    path = Path(resolve_path(str(path), "config file"))
    if not path.is_file():
        raise ConfigError(f"config file {str(path)!r} does not exist: give the path of a YAML file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {str(path)!r} is not UTF-8 text: {error}") from error
    tree = read_yaml(text, f"config file {str(path)!r}")
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {str(path)!r} holds {type(tree).__name__}: it must hold keys and values")
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def parse_config(tree: dict[str, Any], *, recorded: bool = False) -> Config:
    """A validated config; `recorded` is that of a run that exists, and need not learn anything.

    Raises: ConfigError that names every wrong field, its value and the way out.
    """
    try:
        return Config.model_validate(_lists_to_tuples(tree), context={"recorded": recorded})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail) for detail in error.errors())) from None


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """A copy of a run's config with `key.path=value` overrides. Raises ConfigError as `load_config` does."""
    tree = config.model_dump(mode="json")
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, recorded=True)


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in a config tree; the value is read as YAML. Raises ConfigError for anything else."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: write it as key.path=value, for example --set loop.group_size=16")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} holds the value {child!r}, not a section")
        node = child
    node[leaf] = read_yaml(text, f"--set {override!r}") if text else None


def _lists_to_tuples(tree: dict[str, Any]) -> dict[str, Any]:
    slow = tree.get("slow")
    if isinstance(slow, dict) and isinstance(slow.get("betas"), list):
        return {**tree, "slow": {**slow, "betas": tuple(slow["betas"])}}
    return tree


def _explain(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        return f"{field}: unknown key. {_nearest(field)}"
    if kind == "missing":
        return f"{field}: is missing and has no default"
    if kind == "value_error":
        message = str(detail["ctx"]["error"])
        return f"{field}: {message}" if field else message
    if kind == "float_type" and isinstance(value, str):
        return f"{field}: {value!r} is text to YAML. Write the number with a dot and a sign, for example 1.0e-6"
    return f"{field}: {detail['msg']}, got {value!r}"


def _nearest(field: str) -> str:
    import difflib

    model: Any = Config
    *parents, leaf = field.split(".")
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        models = [annotation, *getattr(annotation, "__args__", ())]
        model = next((m for m in models if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if model is None:
            return "Remove it"
    names = list(model.model_fields)
    close = difflib.get_close_matches(leaf, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known here: {', '.join(names)}"
