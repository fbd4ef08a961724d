"""The config of single methods, and which methods come with the package."""

from fastslow.section import Positive, Section, option

METHODS = {
    "fst": "fastslow.methods.fst:FastSlow",
    "rl": "fastslow.methods.rl:ReinforcementLearning",
    "prompt": "fastslow.methods.prompt:PromptEvolution",
    "distill": "fastslow.methods.distill:Distillation",
}
"""Import paths by the names that `method` takes, in the order in which tables show them."""


class DistillConfig(Section):
    """The teacher's prompt of `method: distill`; see [distill.md](distill.md)."""

    prompt: str | dict[str, str] = option(
        "evolve",
        "or a prompt that is given",
        more="It is given as `@FILE`, the directory of a run (its best prompt), a text of several words, or component "
        "names to texts.",
        unit="`evolve`, text, file or run",
        source="equation 8; the rest ours",
    )
    cycles: Positive = option(
        10, "`evolve`: the first steps, which only search; `steps` counts them", unit="cycles of the search"
    )
