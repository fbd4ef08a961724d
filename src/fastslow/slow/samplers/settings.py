"""The config of what draws completions on this machine: one section for each kind, and one for a sampler of one's own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fastslow.section import Section, option

OWN = "package.module:Class"


class ForestConfig(Section):
    """How the local engine draws completions."""

    kind: Literal["forest"] = option("forest", "over a prefix forest; or `package.module:Class`", unit="a name")
    decoder: Literal["auto", "growing", "static"] = option(
        "auto",
        "`static`: fixed shapes, CUDA graphs; `growing`: a batch that shrinks",
        unit="a name",
        more="`auto` is `static` on a GPU and `growing` on a CPU. Models that do not share prefixes have neither.",
    )


class OwnSamplerConfig(Section):
    """A sampler of your own, by its import path."""

    kind: Annotated[str, Field(pattern=":")]
    options: dict[str, Any] = option(make=dict, meaning="its own; they go to its constructor", unit="names to values")


def _kind(value: Any) -> str:
    kind = value.get("kind", "forest") if isinstance(value, Mapping) else getattr(value, "kind", "forest")
    return OWN if isinstance(kind, str) and ":" in kind else str(kind)


AnySampler = Annotated[
    Annotated[ForestConfig, Tag("forest")] | Annotated[OwnSamplerConfig, Tag(OWN)], Discriminator(_kind)
]
"""The section `slow.sampler`: its `kind` says which keys it has."""
