"""The config of what draws completions on this machine: a section for each kind, and one for one's own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from fastslow.section import NonNegativeNumber, Positive, PositiveNumber, Section, drop_foreign, option

OWN = "package.module:Class"


class ForestConfig(Section):
    """Our own sampler, over a prefix forest."""

    kind: Literal["forest"] = option("forest", "or `vllm`, or your own as `package.module:Class`", unit="a name")
    decoder: Literal["auto", "growing", "static"] = option(
        "auto",
        "`static`: fixed shapes, CUDA graphs; `growing`: a batch that shrinks",
        unit="a name",
        more="`auto` is `static` on a GPU and `growing` on a CPU. Models that do not share prefixes have neither.",
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto",
        "fuse small operations of the `static` decoder by torch.compile",
        unit="a name",
        more="`auto`: on a GPU where Triton is installed. It takes about 20 seconds at the first step.",
    )
    kept_gib: NonNegativeNumber = option(
        2.0,
        "keys and values of live episodes, kept between their turns; 0: none",
        unit="GiB",
        more="What has no room is computed again in the next turn. Nothing is kept during updates.",
    )


class VllmConfig(Section):
    """vLLM in the learner's process: see [engine.md](engine.md#vllm)."""

    kind: Literal["vllm"]
    kv_cache_gib: PositiveNumber = option(4.0, "memory for keys and values", unit="GiB")
    max_num_seqs: Positive = option(256, "completions that are drawn at a time", unit="completions")
    max_model_len: Positive | None = option(
        None,
        "longest context with its completion; null: the model's",
        unit="tokens",
        more="The memory for keys and values must hold one sequence of this length.",
    )
    enforce_eager: bool = option(
        False,
        "no compilation and no CUDA graphs",
        unit="yes or no",
        more="Starting takes less time then, and drawing more.",
    )
    sleep: bool = option(
        False, "vLLM gives its GPU memory back during updates", unit="yes or no", more="Refused without a GPU."
    )


class OwnSamplerConfig(Section):
    """A sampler of your own, by its import path."""

    kind: Annotated[str, Field(pattern=":")]
    options: dict[str, Any] = option(make=dict, meaning="its own; they go to its constructor", unit="names to values")


KINDS: Mapping[str, type[Section]] = {"forest": ForestConfig, "vllm": VllmConfig, OWN: OwnSamplerConfig}


def _kind(value: Any) -> str:
    kind = value.get("kind", "forest") if isinstance(value, Mapping) else getattr(value, "kind", "forest")
    return OWN if isinstance(kind, str) and ":" in kind else str(kind)


def _own_keys(value: Any, info: ValidationInfo) -> Any:
    return drop_foreign(value, _kind(value), KINDS, info)


AnySampler = Annotated[
    Annotated[ForestConfig, Tag("forest")] | Annotated[VllmConfig, Tag("vllm")] | Annotated[OwnSamplerConfig, Tag(OWN)],
    Discriminator(_kind),
    BeforeValidator(_own_keys),
]
"""The section `slow.sampler`: its `kind` says which keys it has."""


def sampling_limit(sampler: AnySampler, model_limit: int | None) -> int | None:
    """Positions that a context with its completion may have: the model's, or the sampler's where they are fewer."""
    own = sampler.max_model_len if isinstance(sampler, VllmConfig) else None
    return min((limit for limit in (model_limit, own) if limit is not None), default=None)
