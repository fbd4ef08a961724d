"""The config of the slow side: the model, the rollouts that are trained on, the optimiser."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fastslow.section import (
    FROM_LIST,
    NonNegative,
    NonNegativeNumber,
    PathText,
    Positive,
    PositiveNumber,
    Section,
    option,
)
from fastslow.slow.samplers.settings import AnySampler, ForestConfig

LORA_SOURCE = "ours: the paper trains every parameter"
CLIP = "settings: 1 and 3"
Aggregation = Literal["problem", "token", "sequence", "constant"]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
MICROBATCH_TOKENS = 2048
TEMPLATE_ARGUMENTS = ("conversation", "tools", "add_generation_prompt", "tokenize", "return_dict", "return_tensors")
"""What fastslow itself tells the chat template."""


@dataclass(frozen=True)
class LossDefaults:
    """What holds with a loss where the config is silent. `unscaled`: the loss is defined by dividing by neither lengths
    nor deviations, so its aggregation cannot be another, and `loop` divides advantages by nothing.
    """

    clip_low: float = 1.0
    clip_high: float = 3.0
    aggregation: Aggregation = "problem"
    unscaled: bool = False


LOSS_DEFAULTS: Mapping[str, LossDefaults] = {
    "cispo": LossDefaults(),
    "importance_sampling": LossDefaults(),
    "ppo": LossDefaults(0.2, 0.2, "sequence"),
    "dapo": LossDefaults(0.2, 0.28),
    "dr_grpo": LossDefaults(0.2, 0.2, "constant", unscaled=True),
    "gspo": LossDefaults(3e-4, 4e-4, "sequence"),
}
"""By the names of the losses that come with the package; where each number is from: docs/engine.md."""


def loss_defaults(loss: Any) -> LossDefaults:
    """Those of a loss by its name; a loss of one's own has those of CISPO."""
    return LOSS_DEFAULTS.get(loss, LossDefaults()) if isinstance(loss, str) else LossDefaults()


class LoraConfig(Section):
    """LoRA through PEFT. With this section an adapter is trained, without it every parameter is. Where `model.name` is
    [an adapter](engine.md#the-local-engine), rank, alpha and targets are its own.
    """

    rank: Positive = option(16, "rank of the adapter", unit="number", source=LORA_SOURCE)
    alpha: Positive = option(32, "its scale is alpha / rank", unit="number", source=LORA_SOURCE)
    targets: str | list[str] = option(
        "all-linear", "the layers that get an adapter, as PEFT names them", unit="names of layers"
    )


class ModelConfig(Section):
    """The policy's model."""

    name: PathText = option(
        meaning="a hub id, a local directory, a `.gguf` file, or `package:NAME/PATH`",
        more="`package:NAME/PATH` is a directory of an installed package. A [PEFT adapter](engine.md#the-local-engine) "
        "is a directory as well.",
        unit="hub id, path or package", source="settings name one for each domain",
    )  # fmt: skip
    revision: str | None = option(None, "of a hub id", unit="branch, tag or commit")
    tokenizer: PathText | None = option(None, "another tokenizer than the model's own", unit="hub id or path")
    dtype: Literal["float32", "bfloat16"] = option(
        "float32",
        "or `bfloat16`, with float32 master weights",
        unit="a name",
        more="A CPU without bfloat16 arithmetic computes in float32.",
    )
    device: str = option("auto", "`auto`, `cpu`, `cuda`", unit="a name")
    lora: LoraConfig | None = None
    trust_remote_code: bool = option(False, "run code that comes with the model", unit="yes or no")
    chat_template_kwargs: dict[str, Any] = option(
        make=dict, meaning="for example `{enable_thinking: false}`", unit="names to values",
        source="settings: thinking or not",
    )  # fmt: skip
    special_tokens_in_text: bool = option(
        False,
        "read special tokens in contents as such",
        unit="yes or no",
        more="By default those in problems, prompts and environments' answers stay text: no text can forge a role.",
    )

    @field_validator("chat_template_kwargs")
    @classmethod
    def _the_templates_own(cls, values: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(values) & set(TEMPLATE_ARGUMENTS))
        if taken:
            raise ValueError(f"{', '.join(taken)}: fastslow itself sets what these name, so they must be left out")
        return values


class SamplingConfig(Section):
    """Training rollouts. Evaluation has its own, in `evaluation`.

    The learner takes its log-probabilities at `temperature`, too. `top_p` below 1 is for `method: prompt` alone.
    """

    max_tokens: Positive = option(
        512, "of a completion, the end-of-sequence token included", unit="tokens",
        more="They must fit into the model's context after the longest problem.",
        source="settings: 8192, star graph 4096; the default is ours, for small models",
    )  # fmt: skip
    temperature: PositiveNumber = option(
        1.0,
        "the learner works at the same temperature",
        unit="number",
        more="A temperature other than 1 is for `engine: local` alone.",
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = option(
        1.0, "below 1 for `method: prompt` alone", unit="share, 0 to 1"
    )


class SlowConfig(Section):
    """The slow weights' optimiser."""

    loss: str = option(
        "cispo", "`importance_sampling`, `ppo`, `dapo`, `dr_grpo`, `gspo`, or `package.module:function`", unit="a name",
        source="CISPO: 3.2; arXiv 2506.13585",
        more="[The others](engine.md#the-losses) have sources of their own.",
    )  # fmt: skip
    clip_low: NonNegativeNumber = option(
        1.0,
        "the paper's notation: the ratio is clamped to [1 - clip_low, 1 + clip_high]",
        unit="ratio minus 1, downwards",
        source=CLIP,
        more="The default is that of `cispo`. `ppo`, `dapo` and `dr_grpo` have 0.2, `gspo` has 3e-4. `cispo` and "
        "`importance_sampling` have no floor: a value that would set one is refused.",
    )
    clip_high: NonNegativeNumber = option(
        3.0,
        "so the paper's clamp is [0, 4]",
        unit="ratio minus 1, upwards",
        source=CLIP,
        more="The default is that of `cispo`. `ppo` and `dr_grpo` have 0.2, `dapo` has 0.28, `gspo` has 4e-4. "
        "`importance_sampling` has no ceiling: another value is refused there.",
    )
    aggregation: Aggregation = option(
        "problem", "what a token's loss is divided by: [the four ways](engine.md#aggregation)", unit="a name",
        source="3.2",
        more="`ppo` and `gspo` have `sequence`, `dr_grpo` has `constant` and takes no other. `method: distill` has "
        "`problem`.",
    )  # fmt: skip
    kl_coefficient: NonNegativeNumber = option(
        1e-3,
        "penalty towards the base",
        unit="loss per nat",
        source="settings: 1e-3; estimator of arXiv 2402.03300, eq. 4",
    )
    entropy_coefficient: NonNegativeNumber = option(
        0.0,
        "bonus for the entropy of the learner's distribution",
        unit="loss per nat",
        source="off in the paper; arXiv 1602.01783",
        more="The gradient flows through the entropy over the full vocabulary, so it is for `engine: local` and policy "
        "losses.",
    )
    learning_rate: PositiveNumber = option(
        1e-6, "for full fine-tuning of 8 B; LoRA wants 1e-5 to 1e-4", unit="per step",
        source="settings: 1e-6, full fine-tuning of 8 B",
    )  # fmt: skip
    warmup_steps: NonNegative = option(10, "linear, from zero", unit="steps", source="settings: 10")
    schedule: Literal["constant", "linear", "cosine"] = option(
        "constant", "after the warm-up: `constant`, or `linear` or `cosine` towards 0", unit="a name",
        source="settings: constant",
        more="The [length](engine.md#the-learning-rate) is that of the run: all of its training steps.",
    )  # fmt: skip
    schedule_steps: Positive | None = option(
        None,
        "training steps until `schedule` is at 0; null: those of the run",
        unit="steps",
        more="Not below those of the run. A run whose `steps` may grow when it is resumed needs it.",
    )
    optimiser: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = option(
        "adamw", "the last two: 8-bit moments, in memory that may be paged; extra `8bit`", unit="a name",
        source="settings: AdamW; 8-bit: arXiv 2110.02861",
        more="8-bit moments are for `engine: local` on a GPU, by bitsandbytes. Embeddings keep moments of 32 bits.",
    )  # fmt: skip
    freeze: Annotated[tuple[str, ...], FROM_LIST] = option(
        (), "patterns of parameter names that stay as they are, such as `model.layers.0.*`", unit="patterns of names",
        more="`*` stands for anything. A pattern without a match is refused. Tied weights are named by all of their "
        "names. For `engine: local` without `model.lora`.",
    )  # fmt: skip
    betas: Annotated[tuple[Beta, Beta], FROM_LIST] = option(
        (0.9, 0.999), "AdamW", unit="number", source="settings: (0.9, 0.999)"
    )
    weight_decay: NonNegativeNumber = option(0.0, "AdamW", unit="number", source="settings: 0")
    max_grad_norm: PositiveNumber | None = option(
        1.0, "longer gradients are scaled down to it; null: never", unit="norm"
    )
    mismatch_correction: Literal["none", "truncate", "mask"] = option(
        "none", "`none`, `truncate` or `mask`, where sampler and learner differ", unit="a name",
        source="truncate: Yao et al. 2025; mask: Liu et al. 2025",
        more="`truncate` weighs a token by learner / sampler, at most the upper bound. `mask` leaves out a completion "
        "whose ratio lies outside the bounds. See [engine.md](engine.md#sampler-and-learner-differ).",
    )  # fmt: skip
    mismatch_bounds: Annotated[tuple[float, float], FROM_LIST] = option(
        (0.0, 2.0), "of learner / sampler; the lower is for `mask` alone", unit="ratio of probabilities",
        source="TRL: 2 above, nothing below",
    )  # fmt: skip
    gradient_context: Literal["prompt", "bare"] = option(
        "prompt", "`bare`: sampled under evolved prompts, gradient under the seed prompt", unit="a name",
        source="prompt: 3.2; bare: arXiv 2603.21877",
        more="The weights then learn to do without a prompt, and validation measures them under the seed prompt as "
        "well. See [method.md](method.md#the-gradient-under-the-seed-prompt).",
    )  # fmt: skip
    bare_behaviour: Literal["learner", "sampler"] = option(
        "learner", "`bare`: whose probability divides in the ratio", unit="a name",
        source="learner: code of arXiv 2603.21877",
        more="`learner`: its own under the seed prompt, before the update. `sampler`: that of sampling, under the "
        "evolved prompt.",
    )  # fmt: skip
    bare_bounds: Annotated[tuple[float, float], FROM_LIST] = option(
        (0.01, 10.0), "`bare`: tokens outside are left out; of seed prompt / evolved prompt",
        unit="ratio of probabilities",
        source="scripts of arXiv 2603.21877", more="With `bare_behaviour: learner` alone.",
    )  # fmt: skip
    bare_member: bool = option(
        False, "`bare`: while weights train, the seed prompt has the population's last place", unit="yes or no",
        more="Groups then see what the seed prompt lacks: where every prompt of the population solves a problem, all "
        "advantages are 0 without it.",
    )  # fmt: skip
    microbatch_tokens: Positive = option(
        MICROBATCH_TOKENS,
        "memory: tokens of a training pass",
        unit="tokens",
        more="Not beside `memory_gib`, which finds them.",
    )
    memory_gib: PositiveNumber | None = option(
        None, "memory: what tensors may take at most; null: `microbatch_tokens` says", unit="GiB",
        more="[The engine finds](engine.md#a-memory-budget) how many tokens fit into a training pass, and samples "
        "fewer than `sample_rows` at a time where it must. For `engine: local`.",
    )  # fmt: skip
    activation_checkpointing: bool = option(
        False,
        "memory: layers are computed twice in an update instead of kept",
        unit="yes or no",
        more="About a third more work, and the same gradients.",
    )
    sample_rows: Positive = option(128, "memory: completions sampled at a time", unit="completions")
    prefix_sharing: bool = option(True, "off: plain batches, for comparison", unit="yes or no")

    sampler: AnySampler = Field(default_factory=ForestConfig)

    @model_validator(mode="before")
    @classmethod
    def _with_the_losses_own(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        own = loss_defaults(values.get("loss"))
        defaults = {"clip_low": own.clip_low, "clip_high": own.clip_high, "aggregation": own.aggregation}
        return {**defaults, **values}

    @model_validator(mode="after")
    def _one_measure_of_memory(self) -> "SlowConfig":
        if self.memory_gib is not None and self.microbatch_tokens != MICROBATCH_TOKENS:
            raise ValueError(
                f"memory_gib: {self.memory_gib:g} and microbatch_tokens: {self.microbatch_tokens} both say how large a "
                "training pass is: leave microbatch_tokens out"
            )
        return self

    @property
    def tau(self) -> float:
        """Absolute ceiling of the importance ratio."""
        return 1.0 + self.clip_high
