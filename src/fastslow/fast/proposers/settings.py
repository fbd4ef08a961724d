"""The config of what writes child prompts: one section for each kind, and one for a proposer of somebody's own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, ValidationInfo

from fastslow.section import (
    Address,
    NonNegative,
    NonNegativeNumber,
    Positive,
    PositiveNumber,
    Section,
    VariableName,
    drop_foreign,
    option,
)

MODEL_SOURCE = "settings: `litellm`, gpt-5.2; the default `lesson` is ours"
PRICE = "a price, where LiteLLM does not know it"


class ProposerConfig(Section):
    """What every kind of proposer has."""

    recipe: Literal["light", "full"] = option(
        "light", "small edits, or `full`: rewrites allowed", unit="a name", source="the paper's light and full recipes"
    )
    max_prompt_chars: Positive = option(
        16000,
        "longer replies are refused",
        unit="characters",
        more="So are those that the model's context does not hold.",
    )

    @property
    def described(self) -> str:
        """Who proposes, in words."""
        return str(getattr(self, "kind", ""))


class LessonConfig(ProposerConfig):
    """No LLM: the most frequent line of the verifier's feedback becomes a line of the prompt."""

    kind: Literal["lesson"] = option("lesson", "what writes child prompts", unit="a name", source=MODEL_SOURCE)
    phrasebook: str | None = option(
        None, "sentences that the policy knows, a JSON file or `package:NAME/PATH`", unit="path"
    )

    @property
    def described(self) -> str:
        """Who proposes, in words."""
        return f"the verifier's own lessons{', in the words of a phrase book' if self.phrasebook else ''}, no LLM"


class ReflectionConfig(ProposerConfig):
    """What every proposer that asks a language model has."""

    temperature: NonNegativeNumber = option(1.0, "of the replies", unit="number")
    max_tokens: Positive = option(4096, "of a reply; thoughts of a reasoning model count", unit="tokens")
    background: str | None = option(
        None,
        "what the reflection LM should know of the task",
        unit="text",
        more="It stands in every request, as it is.",
    )
    template: str | None = option(
        None,
        "the wording of the requests, a text file or `package:NAME/PATH`",
        unit="path",
        source="ours, after gepa's own",
        more="It has the fields of [prompts.md](prompts.md#what-reflection-is-asked), checked before any model loads.",
    )
    request_chars: Positive = option(
        24000,
        "what a request may take for all its examples together",
        unit="characters",
        more="With `policy` it is 8000, and less where its context is short. Texts that are too long lose their "
        "middle.",
    )
    example_chars: Positive | None = option(
        None, "the most of one example; none: short ones make room", unit="characters"
    )
    reference_answers: bool = option(False, "show the right answer of each example, where known", unit="yes or no")
    refused_attempts: NonNegative = option(
        0,
        "refused edits of the same text that a request shows",
        unit="edits",
        more="The newest of this cycle's search.",
    )
    log_chars: NonNegative = option(
        20000,
        "what `reflections.jsonl` keeps of a request; 0: no such file",
        unit="characters",
    )


class RemoteConfig(ReflectionConfig):
    """What every proposer that asks a server has."""

    model: str | None = option(None, "the reflection LM", unit="a name", source=MODEL_SOURCE)
    base_url: Address | None = option(None, "the server that it is on", unit="address")
    api_key_env: VariableName | None = option(
        None,
        "the environment variable that holds the key",
        unit="name of a variable",
        more="Keys never stand in a config.",
    )
    timeout_s: PositiveNumber = option(120.0, "of one attempt", unit="seconds")
    retries: NonNegative = option(4, "after an attempt that failed for a passing reason", unit="attempts")
    backoff_s: NonNegativeNumber = option(1.0, "before the first retry; it doubles", unit="seconds")
    usd_per_million_input_tokens: NonNegativeNumber | None = option(
        None, PRICE, unit="USD per million tokens", source="the provider"
    )
    usd_per_million_output_tokens: NonNegativeNumber | None = option(
        None, PRICE, unit="USD per million tokens", source="the provider"
    )

    @property
    def described(self) -> str:
        """Who proposes, in words."""
        return f"{super().described} {self.model or ''}".strip()


class LiteLLMConfig(RemoteConfig):
    """Any model that LiteLLM knows."""

    kind: Literal["litellm"]


class OpenAIConfig(RemoteConfig):
    """Any server that speaks the OpenAI chat-completions protocol, by `base_url`."""

    kind: Literal["openai"]


class PolicyProposerConfig(ReflectionConfig):
    """The policy itself, with its current weights."""

    kind: Literal["policy"]
    request_chars: Positive = option(8000, "what a request may take for all its examples together", unit="characters")


class OwnProposerConfig(ProposerConfig):
    """A proposer of your own, by its import path."""

    kind: Annotated[str, Field(pattern=":")]
    options: dict[str, Any] = option(make=dict, meaning="its own; they go to its constructor", unit="names to values")


KINDS: Mapping[str, type[ProposerConfig]] = {
    "lesson": LessonConfig,
    "litellm": LiteLLMConfig,
    "openai": OpenAIConfig,
    "policy": PolicyProposerConfig,
}
OWN = "package.module:Class"


def _kind(value: Any) -> str:
    kind = value.get("kind", "lesson") if isinstance(value, Mapping) else getattr(value, "kind", "lesson")
    return OWN if isinstance(kind, str) and ":" in kind else str(kind)


def _own_keys(value: Any, info: ValidationInfo) -> Any:
    return drop_foreign(value, _kind(value), KINDS, info)


AnyProposer = Annotated[
    Annotated[LessonConfig, Tag("lesson")]
    | Annotated[LiteLLMConfig, Tag("litellm")]
    | Annotated[OpenAIConfig, Tag("openai")]
    | Annotated[PolicyProposerConfig, Tag("policy")]
    | Annotated[OwnProposerConfig, Tag(OWN)],
    Discriminator(_kind),
    BeforeValidator(_own_keys),
]
"""The section `fast.proposer`: its `kind` says which keys it has."""


def proposer_config(**fields: Any) -> ProposerConfig:
    """The section of the kind that `fields` name, as a config would have it. Raises pydantic's ValidationError."""
    section: ProposerConfig = TypeAdapter(AnyProposer).validate_python(fields)
    return section
