"""Every metric of a run, declared once: its name in `metrics.jsonl`, its unit and meaning, where it comes from.

Whoever writes, reads, shows or explains a metric takes it from here. `docs/glossary.md` and the tables of
`docs/run-directory.md` are made from it (`tools/write_docs.py`).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from fastslow.runs.metric import Found, Merge, Metric, Start
from fastslow.section import OURS

GEPA, APPENDIX_F = "GEPA, arXiv 2507.19457", "appendix F"
CHANCES = "the paper's mean@4, best@k; unbiased: arXiv 2107.03374, 2510.23393"
REWARD, COUNT_A_STEP, NATS = "reward, 0 to 1", "rollouts a step", "nats per token"

STEP = Metric("step", "steps", "steps done", "algorithm 1")
CYCLE = Metric("cycle", "cycles", "prompt-evolution cycles done", "algorithm 1")
POLICY_VERSION = Metric(
    "policy_version", "updates", "updates that the weights have had; a step without any signal makes none"
)
USD_TOTAL = Metric(
    "usd_total", "USD since the start", "reflection's cost since the start", "ours; the paper's runs stay below 10"
)

REWARD_MEAN = Metric(
    "reward/mean", REWARD, "over the step's rollouts, masked ones left out", "3.2: the reward that both sides climb",
    Merge.MEAN, Start.NULL,
)  # fmt: skip
REWARD_STD = Metric(
    "reward/std", REWARD, "deviation over the same rollouts", "3.2: the reward that both sides climb", Merge.MEAN,
    Start.NULL,
)  # fmt: skip
INFORMATIVE_GROUPS = Metric(
    "reward/informative_groups", "share of problems, 0 to 1",
    "share of problems whose rewards are not all equal: only these teach", "3.2: groups of equal rewards teach nothing",
    Merge.MEAN, Start.NULL,
)  # fmt: skip

SAMPLED = Metric(
    "rollouts/sampled", COUNT_A_STEP, "rollouts sampled for this step, the search before it included",
    "ours: the paper does not count GEPA's", Merge.SUM,
)  # fmt: skip
SAMPLED_RL = Metric("rollouts/sampled_rl", COUNT_A_STEP, "its first part: RL's groups", SAMPLED.source, Merge.SUM)
SAMPLED_GEPA = Metric(
    "rollouts/sampled_gepa", COUNT_A_STEP, "its second part: the search's metric calls", SAMPLED.source, Merge.SUM
)
SAMPLED_REFLECTION = Metric(
    "rollouts/sampled_reflection", "completions of the policy a step",
    "its third part: what the policy wrote as its own proposer",
    "ours: they are samples of the policy too", Merge.SUM,
    more="Refused replies are included. 0 where `fast.proposer.kind` is not `policy`.",
)  # fmt: skip
REUSED = Metric("rollouts/reused", COUNT_A_STEP, "rollouts that came from the store instead", APPENDIX_F, Merge.SUM)
REUSED_RL = Metric(
    "rollouts/reused_rl", COUNT_A_STEP, "slots of RL's groups that GEPA's rollouts filled", APPENDIX_F, Merge.SUM
)
REUSED_GEPA = Metric(
    "rollouts/reused_gepa", "metric calls a step", "metric calls that earlier rollouts answered", merge=Merge.SUM
)
SAMPLED_TOTAL = Metric(
    "rollouts/sampled_total", "rollouts since the start", "sampled since the start: what `max_rollouts` limits",
    more="GEPA's and the policy's reflection are included: the x-axis of honest comparisons.",
)  # fmt: skip
SAMPLED_TOKENS = Metric(
    "rollouts/sampled_tokens", "tokens a step", "completion tokens of the sampled rollouts", merge=Merge.SUM
)
FAILED = Metric(
    "rollouts/failed", COUNT_A_STEP, "rollouts of the step's groups that are masked: they are in no mean",
    merge=Merge.SUM,
    more="They could not be scored, or their context was too long.",
)  # fmt: skip
CUT_OFF_FRACTION = Metric(
    "rollouts/cut_off_fraction", "share of rollouts, 0 to 1",
    "share of rollouts that ended at a limit, as `sampling.max_tokens`: they score 0", merge=Merge.MEAN,
)  # fmt: skip
COMPLETION_TOKENS = Metric(
    "rollouts/completion_tokens", "tokens, mean", "mean completion length in tokens", merge=Merge.MEAN
)

EPISODE_TURNS = Metric(
    "episodes/turns", "turns, mean", "completions of an episode; of tasks of several turns, as all of these",
    merge=Merge.MEAN,
)  # fmt: skip
TOOL_CALLS = Metric("episodes/tool_calls", "calls, mean", "calls of tools that an episode made", merge=Merge.MEAN)
TOOL_ERRORS = Metric(
    "episodes/tool_errors", "calls, mean",
    "calls of an episode that a tool answered with an error, unreadable ones included",
    merge=Merge.MEAN,
)  # fmt: skip
FORKS = Metric(
    "episodes/forks", "turns a step",
    "turns whose context the chat template renders in another way than it was sampled",
    merge=Merge.SUM, more="Such a turn has a context of its own, and shares no more than its beginning.",
)  # fmt: skip
EPISODE_COMPUTED = Metric(
    "episodes/computed_tokens", "tokens a step",
    "tokens that sampling put through the model for the step's new episodes",
    merge=Merge.SUM, more="Of samplers that count them: the forest sampler does.",
)  # fmt: skip
EPISODE_KEPT = Metric(
    "episodes/kept_tokens", "tokens a step",
    "tokens of their contexts that were kept from the turn before, not computed",
    merge=Merge.SUM, more="See [episodes.md](episodes.md#what-it-costs).",
)  # fmt: skip
CUT_OFF_TURN_TOKENS = Metric(
    "episodes/cut_off_turn_tokens", COUNT_A_STEP, "episodes cut off within a turn, at `sampling.max_tokens`",
    merge=Merge.SUM,
)  # fmt: skip
CUT_OFF_MAX_TURNS = Metric(
    "episodes/cut_off_max_turns", COUNT_A_STEP, "episodes cut off at `episodes.max_turns`", merge=Merge.SUM
)
CUT_OFF_MAX_TOKENS = Metric(
    "episodes/cut_off_max_tokens", COUNT_A_STEP, "episodes cut off at `episodes.max_tokens`", merge=Merge.SUM
)
CUT_OFF_CONTEXT = Metric(
    "episodes/cut_off_context", COUNT_A_STEP, "episodes that no longer fitted into the model's context", merge=Merge.SUM
)
ENVIRONMENT_FAILED = Metric(
    "episodes/environment_failed", COUNT_A_STEP,
    "episodes whose environment raised, or gave what it must not; they are masked",
    merge=Merge.SUM,
)  # fmt: skip
ENVIRONMENT_TIMED_OUT = Metric(
    "episodes/environment_timed_out", COUNT_A_STEP,
    "episodes whose environment hung, at `episodes.step_timeout_s`; masked too",
    merge=Merge.SUM,
)  # fmt: skip
POPULATION_SIZE = Metric(
    "fast/population_size", "prompts", "distinct prompts in the population",
    "K of algorithm 1, equal ones counted once",
)  # fmt: skip
METRIC_CALLS = Metric(
    "fast/metric_calls", "(prompt, problem) pairs a cycle", "(prompt, problem) pairs that the search asked for", GEPA,
    Merge.SUM, Start.COUNT, more="The option `fast.metric_calls` is a hard ceiling of a cycle.",
)  # fmt: skip
CANDIDATES = Metric("fast/candidates", "prompts a cycle", "prompts proposed or scored in the cycle", GEPA, Merge.SUM)
ACCEPTED = Metric("fast/accepted", "prompts a cycle", "how many of them were taken into the pool", GEPA, Merge.SUM)
REFLECTION_CALLS = Metric(
    "fast/reflection_calls", "calls a cycle", "calls of the proposer's LM", OURS, Merge.SUM, Start.COUNT
)
REFLECTION_FAILURES = Metric(
    "fast/reflection_failures",
    "calls a cycle",
    "calls that failed; retries count one each",
    OURS,
    Merge.SUM,
    Start.COUNT,
)
REFLECTION_REFUSED = Metric(
    "fast/reflection_refused", "replies a cycle",
    "replies that were refused: empty, truncated, too long, or nothing new", OURS, Merge.SUM, Start.COUNT,
)  # fmt: skip
TOO_LONG = Metric(
    "fast/too_long", "prompts a cycle", "of these, prompts that did not fit into the model's context", merge=Merge.SUM,
    more="They must fit beside the longest problem and a whole completion.",
)  # fmt: skip
MERGES_TRIED = Metric(
    "fast/merges_tried", "prompts a cycle", "prompts that were merged from two and scored; with `fast.use_merge`", GEPA,
    Merge.SUM,
)  # fmt: skip
MERGES_ACCEPTED = Metric(
    "fast/merges_accepted", "prompts a cycle", "how many of them were taken into the pool", GEPA, Merge.SUM
)
OVERFITTED = Metric(
    "fast/overfitted", "prompts a cycle",
    "children whose gain was on the anchors that reflection was shown alone: refused",
    "ours; gepa issue 261", Merge.SUM, more="With `fast.held_out`.",
)  # fmt: skip
INPUT_TOKENS = Metric("fast/input_tokens", "tokens a cycle", "what the proposer read", OURS, Merge.SUM, Start.COUNT)
OUTPUT_TOKENS = Metric("fast/output_tokens", "tokens a cycle", "what the proposer wrote", OURS, Merge.SUM, Start.COUNT)
USD = Metric(
    "fast/usd", "USD a cycle", "what the cycle's reflection cost; `null` where the price is not known", OURS, Merge.SUM,
    Start.AMOUNT,
)  # fmt: skip
BEST_SCORE = Metric("fast/best_score", REWARD, "best mean on the anchor problems", GEPA, Merge.LAST, Start.NULL)
MASKED_CALLS = Metric(
    "fast/masked", "metric calls a cycle", "metric calls that could not be scored at first", merge=Merge.SUM
)
ERROR = Metric("fast/error", "text", "why the population was kept as it was, where reflection failed", merge=Merge.NONE)

LOSS = Metric(
    "slow/loss", "nats per token, weighted", "the loss that was minimised, KL penalty included", "3.2", Merge.MEAN,
    Start.NULL, more="In distillation it is the KL to the teacher, in nats a token.",
)  # fmt: skip
GRAD_NORM = Metric("slow/grad_norm", "norm", "before clipping", OURS, Merge.MEAN, Start.NULL)
RATIO_MEAN = Metric(
    "slow/ratio_mean", "ratio of probabilities", "importance ratio of learner and sampler, mean over tokens",
    "3.2: `rho`",
    Merge.MEAN, Start.NULL, more="`null` in distillation.",
)  # fmt: skip
RATIO_MAX = Metric(
    "slow/ratio_max", "ratio of probabilities", "the highest such ratio of the step's tokens", "3.2: `rho`", Merge.MAX,
    Start.NULL, more="`null` in distillation.",
)  # fmt: skip
CLIP_FRACTION = Metric(
    "slow/clip_fraction", "share of tokens, 0 to 1", "share of tokens whose ratio is above tau",
    "3.2: `rho` above `tau`",
    Merge.MEAN, Start.NULL,
    more="With `ppo`, `dapo` and `dr_grpo` the share of tokens whose gradient the clip takes away, with `gspo` that of "
    "completions. `null` in distillation.",
)  # fmt: skip
ENTROPY = Metric(
    "slow/entropy", NATS, "of the policy at completion positions, at the rollouts' temperature", OURS, Merge.MEAN,
    Start.NULL,
)  # fmt: skip
KL_PENALTY = Metric(
    "slow/kl_penalty", NATS, "estimate of KL(policy, base) on the trained tokens", "arXiv 2402.03300, eq. 4",
    Merge.MEAN,
    Start.NULL, more="0 where `slow.kl_coefficient` is 0; `null` in distillation.",
)  # fmt: skip
MISMATCH_KL = Metric(
    "slow/mismatch_kl", NATS, "how far sampler and learner were apart before the update: an estimate of their KL",
    "k3 estimate: arXiv 2402.03300, eq. 4", Merge.MEAN, Start.NULL,
    more="It is the mean over the fresh tokens that were trained on; rounding for the forest sampler. Above 0.01 a run "
    "warns. `null` where no fresh rollout was trained on, and in distillation. See "
    "[engine.md](engine.md#sampler-and-learner-differ).",
)  # fmt: skip
MISMATCH_MAX = Metric(
    "slow/mismatch_max", "nats", "the largest difference of their log-probabilities on one of these tokens", OURS,
    Merge.MAX,
    Start.NULL, more="`null` as `slow/mismatch_kl`.",
)  # fmt: skip
MISMATCH_MASKED = Metric(
    "slow/mismatch_masked", "completions a step", "completions that `slow.mismatch_correction: mask` left out",
    "Liu et al. 2025", Merge.SUM, Start.NULL,
)  # fmt: skip
BARE_RATIO_MEAN = Metric(
    "slow/bare/ratio_mean", "ratio of probabilities",
    "a token's probability under the seed prompt over the sampled one, mean over tokens",
    "arXiv 2603.21877", Merge.MEAN,
    more="Of the learner before the update over the sampler. As all of these, with `slow.gradient_context: bare`.",
)  # fmt: skip
BARE_RATIO_MAX = Metric(
    "slow/bare/ratio_max", "ratio of probabilities", "the highest such ratio of the step's tokens", "arXiv 2603.21877",
    Merge.MAX,
)  # fmt: skip
BARE_LEFT_OUT = Metric(
    "slow/bare/left_out", "share of tokens, 0 to 1", "tokens whose ratio lies outside `slow.bare_bounds`",
    "arXiv 2603.21877",
    Merge.MEAN,
)  # fmt: skip
BARE_KL = Metric(
    "slow/bare/kl", NATS,
    "estimate of KL(evolved prompts, seed prompt): what the prompts still say that the weights do not",
    "k3 estimate: arXiv 2402.03300, eq. 4", Merge.MEAN,
)  # fmt: skip
LEARNING_RATE = Metric(
    "slow/learning_rate",
    "per step",
    "by warm-up and schedule",
    "settings: warm-up, then constant",
    Merge.LAST,
    Start.NULL,
)
DATUMS = Metric("slow/datums", COUNT_A_STEP, "rollouts that were trained on", OURS, Merge.SUM, Start.NULL)
TOKENS = Metric("slow/tokens", "tokens a step", "completion tokens that were trained on", OURS, Merge.SUM, Start.NULL)
COMPUTED_TOKENS = Metric(
    "slow/computed_tokens", "tokens a step", "tokens of the forward passes, shared prefixes counted once", OURS,
    Merge.SUM,
    Start.NULL,
)  # fmt: skip
SKIPPED_UPDATES = Metric(
    "slow/skipped_updates", "updates a step, 0 or 1",
    "1 where the update was left out because its loss or gradient was NaN or infinite", OURS, Merge.SUM, Start.NULL,
    more="See [engine.md](engine.md#numbers-that-are-not-finite).",
)  # fmt: skip
LOSS_METRIC = Metric(
    "slow/loss/<name>", "as the loss has it", "what a loss measures besides: the mean over tokens or completions",
    merge=Merge.MEAN, more="See [engine.md](engine.md#one-of-your-own).",
)  # fmt: skip

VAL_MEAN = Metric(
    "val/mean@k", REWARD, "on validation problems under the population's first prompt", CHANCES,
    more="In distillation it is under the seed prompt. It is measured every `evaluation.every` steps.",
)  # fmt: skip
VAL_BEST = Metric(
    "val/best@k", REWARD, "the same for the best of k completions", CHANCES,
    more="It is over the problems with k scored completions, and `null` where there are none.",
)  # fmt: skip
VAL_BY_KIND = Metric(
    "val/by_kind/mean@k", REWARD, "where problems are of several kinds: each kind under its own prompt", CHANCES,
    more="That is the member of the population that was best for the kind on the anchors.",
)  # fmt: skip
VAL_SEED = Metric(
    "val/seed_prompt/mean@k", REWARD, "on the same problems under the task's seed prompt", "as `val/mean@k`",
    more="With `evaluation.seed_prompt`, and with `slow.gradient_context: bare`.",
)  # fmt: skip
VAL_TASK_OWN = Metric(
    "val/<task>/own/mean@k",
    REWARD,
    "of a stream, on an earlier task under the best prompt that was kept for it",
    CHANCES,
)
VAL_TASK = Metric("val/<task>/mean@k", REWARD, "of a stream, the same as `val/mean@k` on each of its tasks", CHANCES)
VAL_MASKED = Metric("val/masked", "rollouts", "rollouts of the evaluation that could not be scored: in neither mean")
KL = Metric(
    "kl/base", NATS, "KL(policy, base) under the same context, over the full vocabulary, at temperature 1", "4.3",
    more="The base is what `model.name` names.",
)  # fmt: skip
KL_ESTIMATE = Metric(
    "kl/base_estimate", NATS, "the same with `engine: tinker`, from the sampled tokens alone",
    "ours: an estimate of 4.3",
    more="It is a Monte-Carlo estimate from their log-probabilities.",
)  # fmt: skip
KL_COMPLETION = Metric(
    "kl/base_completion", "nats a completion", "`kl/base` or its estimate, summed over a completion", "ours",
    more="Of tasks of several turns: over an episode. A mean over tokens is larger where answers are short, this sum "
    "is not.",
)  # fmt: skip
KL_SEED_COMPLETION = Metric(
    "kl/seed_prompt/base_completion", "nats a completion", "the same under the task's seed prompt", "ours"
)
KL_SEED = Metric(
    "kl/seed_prompt/base",
    NATS,
    "`kl/base` under the task's seed prompt",
    "4.3",
    more="Beside `val/seed_prompt/mean@k`.",
)
KL_SEED_ESTIMATE = Metric(
    "kl/seed_prompt/base_estimate", NATS, "`kl/base_estimate` under the task's seed prompt", "ours: an estimate of 4.3"
)

STEP_S = Metric("time/step_s", "seconds", "of the whole step", merge=Merge.SUM)
EVOLVE_S = Metric("time/evolve_s", "seconds", "its part: the search", OURS, Merge.SUM, Start.AMOUNT)
SAMPLE_S = Metric("time/sample_s", "seconds", "its part: sampling and scoring", OURS, Merge.SUM, Start.AMOUNT)
UPDATE_S = Metric("time/update_s", "seconds", "its part: the update", OURS, Merge.SUM, Start.AMOUNT)
EVALUATE_S = Metric("time/evaluate_s", "seconds", "its part: the evaluation", OURS, Merge.SUM, Start.AMOUNT)
ENVIRONMENT_S = Metric(
    "time/environment_s", "seconds", "what environments took, summed over the episodes, which run side by side",
    merge=Merge.SUM,
)  # fmt: skip

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order in which they stand above."""
TIMERS: Final[tuple[Metric, ...]] = (EVOLVE_S, SAMPLE_S, UPDATE_S, EVALUATE_S)
"""The parts of a step that are timed."""
_FEWEST_PLACES_FIRST = sorted(METRICS, key=lambda metric: (metric.name.count("<"), -len(metric.name)))


@lru_cache(maxsize=4096)
def find(key: str) -> Found | None:
    """What a name in a line stands for; None for one that is not declared here."""
    for metric in _FEWEST_PLACES_FIRST:
        if match := metric.pattern.fullmatch(key):
            places = match.groupdict()
            return Found(metric, None if places.get("k") is None else int(places["k"]), places.get("task"))
    return None


def of_group(group: str) -> list[Metric]:
    """The metrics whose names begin with `group/`, in their order."""
    return [metric for metric in METRICS if metric.name.startswith(f"{group}/")]


def is_evaluation(key: str) -> bool:
    """Whether a name is of a value that an evaluation measures: those make the learning curve."""
    return key.startswith((f"{VAL_MEAN.group}/", f"{KL.group}/"))


_OF_A_SEARCH: Final[frozenset[str]] = frozenset(
    metric.name
    for metric in (*of_group("fast"), EVOLVE_S, SAMPLED_GEPA, SAMPLED_REFLECTION, REUSED_GEPA)
    if metric is not POPULATION_SIZE
)


def gaps(values: Mapping[str, object]) -> frozenset[str]:
    """The names in a line whose zero says only that nothing happened: no search was made, or nothing was evaluated.

    A curve of them has a gap there: drawn as zeros, the counts of a search would jump up and down once a cycle.
    """
    missing: frozenset[str] = frozenset() if values.get(EVOLVE_S.name) else _OF_A_SEARCH
    return missing if values.get(EVALUATE_S.name) else missing | {EVALUATE_S.name}
