"""The claims of the paper, each with the rule that its verdict is computed by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fastslow.reproduce import looks
from fastslow.reproduce.evidence import Finding
from fastslow.reproduce.sections import HIGHER


@dataclass(frozen=True)
class Claim:
    """`paper` says what the paper reports, "" where the question is ours; `rule` when it held. `columns` are those of
    its table, between the place and the verdict.
    """

    name: str
    short: str
    paper: str
    rule: str
    columns: tuple[str, ...]
    look: Callable[[Path], list[Finding]]


# -- all of them -------------------------------------------------------------------------------------------------------


def verdicts(findings: Iterable[Finding], world: str) -> dict[str, list[str]]:
    """The places of a world by their verdict, in the order in which they came."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        if finding.world == world:
            found.setdefault(finding.verdict, []).append(finding.place)
    return found


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Fewer samples",
        "fewer samples than RL alone",
        "RL's running peak in 3.0 times fewer steps on CodeIO, 1.4 on Math, 3.0 on HoVer-hard; GEPA's own "
        "rollouts are not counted.",
        "Sampled rollouts, the search's included, to 95 % of RL alone's own accuracy at the end: FST over RL alone, "
        "seed by seed, lies below 1.",
        ("level", "FST", "RL alone", "FST / RL"),
        lambda results: looks.compared(results, "fst", "rl", looks.fewer_samples, 4),
    ),
    Claim(
        "Half the rollouts and half the seconds",
        "half the rollouts and seconds (our goal)",
        "",
        "Sampled rollouts and training seconds to 95 % of the better accuracy at the end: FST over RL alone, seed by "
        "seed, both lie below 0.5.",
        ("level", "rollouts, FST / RL", "seconds, FST / RL"),
        lambda results: looks.compared(results, "fst", "rl", looks.half, 3),
    ),
    Claim(
        "A higher ceiling",
        "a higher ceiling",
        "Fitted asymptotes of FST and RL: 47.4 and 43.0 % on CodeIO, 49.2 and 46.4 % on Math, 25.0 and "
        "17.3 % on HoVer-hard.",
        "Accuracy on the test split after training, each under its own prompt: FST less RL alone, seed by "
        "seed, lies above 0.",
        ("FST", "RL alone", "FST - RL"),
        lambda results: looks.compared(results, "fst", "rl", lambda place: looks.above(place, "fst", "rl"), 3),
    ),
    Claim(
        "Less drift at matched accuracy",
        "less drift at matched accuracy",
        "KL to the base up to 70 % lower at matched reward.",
        "KL to the base under the own prompt, where 90 % of the lower one of the two accuracies at the end is first "
        "reached: FST over RL alone, seed by seed, lies below 1. In nats a token, as in the paper: a mean over tokens "
        "is larger where answers are short. The next column has the ratio of the sums over a completion, the last one "
        "what FST's weights have moved there under the seed prompt, each where it was measured.",
        ("level", "FST", "RL alone", "FST / RL", "of completions", "FST, seed prompt"),
        lambda results: looks.compared(results, "fst", "rl", looks.less_drift, 6),
    ),
    Claim(
        "Plasticity",
        "plasticity",
        "RL on HoVer-hard afterwards: about 0 % from RL on Math, near the base's from FST on Math.",
        "Accuracy at the end of plain RL on a second task: from FST's weights less from RL's, seed by "
        "seed, lies above 0.",
        ("from FST", "from RL alone", "from the base", "FST - RL"),
        looks.second_task,
    ),
    Claim(
        "Continual learning",
        "continual learning",
        "One run over HoVer, CodeIO and Physics: in the second stage RL reaches 20.7 %, FST 37.7 %.",
        "Accuracy on a later task of one uninterrupted run at the end of its phase: FST less RL alone, seed by "
        "seed, lies above 0.",
        ("FST", "RL alone", "FST - RL"),
        looks.stream,
    ),
    Claim(
        "Both together are better than each alone",
        "weights and prompt together beat each alone",
        "HoVer-hard: base 2.0, weights only 11.6, prompt only 10.6, both 21.2 %; CodeIO: 25.1, 34.5, 43.3 %.",
        "Accuracy on the test split: both less the weights alone, and both less the prompt alone, seed by seed, lie "
        "above 0. Weights alone: under the seed prompt. Prompt alone: under the base weights; on the real model that "
        "is GEPA alone from the same seed.",
        ("both", "weights alone", "prompt alone", "both - weights", "both - prompt"),
        lambda results: looks.compared(results, "fst", "prompt", looks.decomposed, 5),
    ),
    Claim(
        "The weights alone are better than the base",
        "the weights alone are better than the base",
        "HoVer-hard: base 2.0, weights only 11.6 %.",
        "Accuracy under the seed prompt: the trained weights (test split) less the base (validation problems, before "
        "training), seed by seed, lies above 0.",
        ("weights alone", "base", "weights - base"),
        lambda results: looks.compared(results, "fst", "rl", looks.weights_alone, 3),
    ),
    Claim(
        "Better than prompt evolution alone",
        "better than prompt evolution alone",
        "As before: both 21.2 against prompt only 10.6 % on HoVer-hard.",
        "Accuracy on the test split: FST less GEPA alone, seed by seed, lies above 0. In the lab GEPA alone stops at "
        "fewer rollouts; on the real model all arms have the same.",
        ("FST", "GEPA alone", "FST - GEPA"),
        lambda results: looks.compared(results, "fst", "prompt", lambda place: looks.above(place, "fst", "prompt"), 3),
    ),
    Claim(
        "Out of a zero floor",
        "out of a zero floor",
        "Star graph, where the base model solves 0 of 50 at pass@16: FST moves by step 50, RL by step 300.",
        "Tasks whose accuracy at the start is 0 from every seed (not boxed and star_graph, which the base model "
        "solves now and then): sampled rollouts until it is 0.1, FST over RL alone, seed by seed, lies below "
        "1. A run that never gets there needs infinitely many.",
        ("FST", "RL alone", "FST / RL"),
        looks.zero_floors,
    ),
    Claim(
        "Distillation",
        "distillation: above prompts alone, below FST",
        "FST-distill beats prompt-only, and stays below FST.",
        "Accuracy after training (in the lab on validation problems, otherwise on the test split), the distilled "
        "weights under the seed prompt: the first column less the second, seed by seed, lies above 0.",
        ("the higher one", "the lower one", "difference"),
        looks.distilled,
    ),
    Claim(
        "Ablations",
        "ablations: K, baseline, recipe",
        "CodeIO at step 500: K = 8 42.84, K = 1 41.10; problem baseline 40.65, prompt baseline 39.30; "
        "full recipe 39.85 %.",
        "Accuracy at the end: the first less the second, seed by seed, lies above 0.",
        ("the first", "the second", "difference"),
        looks.ablations,
    ),
    Claim(
        "Reuse saves time",
        "reuse of rollouts saves time",
        "HoVer-hard: 66 seconds a step become 47 with reuse, at equal accuracy.",
        "Training seconds a step: with reuse over without, seed by seed, lies below 1.",
        ("on", "off", "on / off"),
        looks.reuse,
    ),
    Claim(
        "FST against other orders and options",
        "above other orders and options (not in the paper)",
        "",
        "Accuracy after training, at about the same sampled rollouts (in the lab on validation problems, otherwise "
        "on the test split): FST less the other one, seed by seed, lies above 0. Where it did not hold, the other is "
        "as good or better.",
        ("FST", "the other one", "FST - other"),
        looks.orders,
    ),
    Claim(
        "The lower of two learning rates",
        "the lower learning rate is better (not in the paper)",
        "",
        f"The search could not tell {HIGHER} from the lower rate that is taken. Accuracy on the test split at the "
        f"lower rate less that at {HIGHER}, seed by seed, lies above 0. The rule that takes the lower one was made "
        "after the results on json were seen; those of the other tasks were not there yet, but for tool_protocol "
        "at the higher rate.",
        ("lower rate", HIGHER, "lower - higher"),
        looks.learning_rates,
    ),
)
"""In the order of the page. Source: arXiv 2605.12484, sections 4 and 5, and appendix F."""
