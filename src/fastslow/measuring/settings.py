"""The config of what is measured while a run goes on, and of `fastslow evaluate`."""

from typing import Annotated

from pydantic import Field

from fastslow.section import NonNegative, NonNegativeNumber, Positive, Section, option


class EvaluationConfig(Section):
    """Validation during training, and the defaults of `fastslow evaluate`; see [evaluation.md](evaluation.md)."""

    every: NonNegative = option(10, "0 turns it off", unit="steps")
    problems: Positive = option(64, "validation problems, the first of the split", unit="problems")
    k: Positive = option(4, "mean@k and best@k", unit="completions a problem", source="the paper: mean@4")
    temperature: NonNegativeNumber = option(0.6, "0 is greedy", unit="number", source="the paper: 0.6")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = option(
        0.95, "of the completions", unit="share, 0 to 1", source="the paper: 0.95"
    )
    kl_problems: NonNegative = option(
        32, "problems that the KL to the base is measured on; 0 turns it off", unit="problems"
    )
    seed_prompt: bool = option(
        False, "measure the weights under the task's seed prompt as well", unit="yes or no",
        more="What they do without an evolved prompt. `slow.gradient_context: bare` measures it in any case.",
    )  # fmt: skip
