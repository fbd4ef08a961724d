"""The config of Algorithm 1."""

from typing import Literal

from fastslow.section import NonNegative, Positive, Section, option


class LoopConfig(Section):
    """Algorithm 1: T, K, G and B of the paper."""

    steps_per_cycle: Positive = option(
        6, "T: 192 anchor problems / 32 problems a step", unit="steps, T", source="algorithm 1; the number is ours"
    )
    population_size: Positive = option(8, "K; divides G", unit="prompts, K", source="settings: 8 or 4")
    group_size: Positive = option(
        8,
        "G rollouts a problem, G/K under each prompt",
        unit="rollouts a problem, G",
        source="settings: 8",
        more="1 is refused with `fst` and `rl`: its advantage is always 0.",
    )
    problems_per_step: Positive = option(32, "B", unit="problems, B", source="settings: 32, Math 64")
    baseline: Literal["problem", "prompt"] = option(
        "problem", "one mean and deviation a problem, or one a (problem, `prompt`)", unit="a name",
        source="3.2 and the ablation on it", more="`prompt` needs G/K of 2 or more.",
    )  # fmt: skip
    divide_by_std: bool = option(
        True, "the paper's Math runs set it to false", unit="yes or no", source="3.2; settings: no for Math"
    )
    batch_normalisation: bool = option(
        True,
        "advantages over their root mean square in the batch",
        unit="yes or no",
        source="ScaleRL, arXiv 2510.13786",
    )
    reuse_max_age: NonNegative = option(
        6, "policy versions for which a rollout is reused; 0 turns reuse off", unit="policy versions",
        source="appendix F: at most T steps old",
    )  # fmt: skip
