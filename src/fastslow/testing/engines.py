"""The contract of an engine, and of a sampler within one, for its author to run.

from fastslow.testing.engines import check_engine

def test_my_engine():
    check_engine(lambda: MyEngine("a-small-model"), tolerance=1e-4)
"""

import copy
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fastslow.errors import ConfigError, TooLongError
from fastslow.slow.engine import (
    Datum,
    DistillDatum,
    LossSettings,
    PolicyEngine,
    SampleRequest,
    SamplingParams,
    TokenSequence,
    UpdateMetrics,
    check_protocol,
)
from fastslow.testing.contract import require, run_checks
from fastslow.testing.entropy import an_entropy_bonus_is_taken_or_refused
from fastslow.testing.mismatch import (
    a_correction_is_made_or_refused,
    an_update_says_how_far_sampler_and_learner_are_apart,
)
from fastslow.types import Completion, Message

Rows = list[list[float]]

PARAMS = SamplingParams(8)
QUESTIONS = ("2+2?", "2+3?", "Name a fruit that is red, please.")
NO_LOSS = "no_such_loss"


def check_engine(make: Callable[[], PolicyEngine], **expected: float | bool) -> None:
    """Run every check. `make` gives a new engine with the same weights each time;
    `expected` are fields of `EngineCase`.

    Raises: AssertionError that names every check that breaks.
    """
    with tempfile.TemporaryDirectory() as directory:
        run_checks("the engine", CHECKS, EngineCase(make, Path(directory), **expected))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Before:
    """An engine after two updates on fresh rollouts, and what was true of it before."""

    engine: PolicyEngine
    datums: list[Datum]
    sequences: list[TokenSequence]
    logprobs: Rows
    base: Rows
    kl: Rows
    metrics: UpdateMetrics


@dataclass(frozen=True)
class EngineCase:
    """An engine and what is expected of it.

    `tolerance`: nats by which rounding may move a log-probability. `exact`: a completion is the same in another batch,
    to the last token; `batch_free`: it is at least almost always. `distils`: it compares whole distributions.
    `reloads`: a new engine takes what another has saved. `learning_rate`: one that moves the weights visibly.
    `requests`: contexts to sample, in tokens; None: questions as the engine encodes them.
    """

    make: Callable[[], PolicyEngine]
    directory: Path
    tolerance: float = 1e-5
    exact: bool = True
    batch_free: bool = True
    distils: bool = True
    reloads: bool = True
    learning_rate: float = 3e-3
    kl_coefficient: float = 1e-3
    requests: Sequence[SampleRequest] | None = None

    @cached_property
    def engine(self) -> PolicyEngine:
        """An engine that no check trains."""
        return self.make()

    @property
    def loss(self) -> LossSettings:
        """The loss of the updates."""
        return LossSettings(kl_coefficient=self.kl_coefficient)

    @cached_property
    def asked(self) -> list[SampleRequest]:
        """Contexts of mixed lengths, some with a common beginning."""
        if self.requests is not None:
            return list(self.requests)
        contexts = [self.engine.encode([{"role": "user", "content": question}]) for question in QUESTIONS]
        return [SampleRequest(context, 3, seed) for seed, context in enumerate(contexts)]

    def rollouts(self, engine: PolicyEngine) -> list[tuple[TokenSequence, Completion]]:
        """Every completion of every request."""
        groups = engine.sample(self.asked, PARAMS)
        return [
            (TokenSequence(request.context_tokens, completion.tokens), completion)
            for request, group in zip(self.asked, groups, strict=True)
            for completion in group
        ]

    def datums(self, engine: PolicyEngine) -> list[Datum]:
        """Fresh rollouts with advantages -1, 1, -1 ...; each token of the batch weighs the same."""
        rollouts = self.rollouts(engine)
        weight = 1.0 / sum(len(completion.tokens) for _, completion in rollouts)
        return [
            Datum(s.context_tokens, c.tokens, c.logprobs, 1.0 if index % 2 else -1.0, weight)
            for index, (s, c) in enumerate(rollouts)
        ]

    @cached_property
    def trained(self) -> Before:
        """After two updates. No check changes it."""
        engine = self.make()
        datums = self.datums(engine)
        sequences = [TokenSequence(datum.context_tokens, datum.completion_tokens) for datum in datums]
        before, base, kl = engine.logprobs(sequences), engine.logprobs(sequences, "base"), engine.kl_to_base(sequences)
        metrics = engine.train_step(datums, self.loss, self.learning_rate)
        engine.train_step(datums, self.loss, self.learning_rate)
        return Before(engine, datums, sequences, before, base, kl, metrics)


def worst(a: Rows, b: Rows) -> float:
    """The largest difference of two tables of one shape; infinite where their shapes differ or a number is NaN."""
    if [len(row) for row in a] != [len(row) for row in b]:
        return math.inf
    gaps = [abs(x - y) for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True)]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps, default=0.0)


# -- sampling ----------------------------------------------------------------------------------------------------------


def it_is_an_engine(case: EngineCase) -> None:
    """It has every member of the protocol, says what it is, and begins at version 0 with weights that are sound."""
    check_protocol(case.engine, PolicyEngine, "the engine")
    require(isinstance(case.engine.describe(), str) and "\n" not in case.engine.describe(), "describe() is one line")
    require(case.engine.policy_version == 0, "policy_version is 0 before any update")
    require(case.engine.intact, "intact is true where no update is under way")


def completions_have_the_promised_shape(case: EngineCase) -> None:
    """n of each request; an end-of-sequence token ends a completion, and nothing else but max_tokens does."""
    groups = case.engine.sample(case.asked, PARAMS)
    require([len(group) for group in groups] == [r.n for r in case.asked], "len(result[i]) == requests[i].n")
    every = [completion for group in groups for completion in group]
    require(all(completion.tokens for completion in every), "a completion has at least one token")
    require(all(value <= 0 for c in every for value in c.logprobs), "log-probabilities are at most 0")
    ends = {c.tokens[-1] for c in every if c.finish_reason == "stop"}
    require(not any(set(c.tokens[:-1]) & ends for c in every), "no token follows the end-of-sequence token")
    cut = [c for c in every if c.finish_reason == "length"]
    require(all(len(c.tokens) == PARAMS.max_tokens for c in cut), "finish_reason 'length' has max_tokens tokens")
    require(
        not any(c.tokens[-1] in ends for c in cut), "what ends in an end-of-sequence token has finish_reason 'stop'"
    )
    require(all(len(c.tokens) <= PARAMS.max_tokens for c in every), "no completion exceeds max_tokens")


def the_same_call_gives_the_same_completions(case: EngineCase) -> None:
    """Noise comes from the seed alone."""
    first = _tokens(case.engine.sample(case.asked, PARAMS))
    require(_tokens(case.engine.sample(case.asked, PARAMS)) == first, "the same call gives the same completions")
    case.engine.sync()
    require(_tokens(case.engine.sample(case.asked, PARAMS)) == first, "sync() alone changes no completion")
    others = [replace(request, seed=request.seed + 100) for request in case.asked]
    require(_tokens(case.engine.sample(others, PARAMS)) != first, "another seed gives other completions")


def a_completion_does_not_depend_on_its_batch(case: EngineCase) -> None:
    """Completion i depends on the weights, the context and (seed, i). Where not `exact`, rounding may flip a draw."""
    if not case.batch_free:
        return
    together = case.engine.sample(case.asked, PARAMS)
    alone = [case.engine.sample([replace(request, n=1)], PARAMS)[0] for request in case.asked]
    turned = case.engine.sample(case.asked[::-1], PARAMS)[::-1]
    pairs = [
        (one, other)
        for others in (alone, turned)
        for group, same in zip(together, others, strict=True)
        for one, other in zip(group, same, strict=False)
    ]
    if case.exact:
        require(all(one.tokens == other.tokens for one, other in pairs), "a completion is the same in any batch")
    same = [(one.logprobs[0], other.logprobs[0]) for one, other in pairs if one.tokens[0] == other.tokens[0]]
    require(len(same) >= 0.75 * len(pairs), "first tokens are nearly always the same in any batch")
    require(
        all(abs(a - b) <= case.tolerance for a, b in same), "and so are their log-probabilities, within the tolerance"
    )


def greedy_completions_are_the_likeliest(case: EngineCase) -> None:
    """At temperature 0 all completions of a context are one; its first token is at least as likely as any drawn one."""
    drawn = case.engine.sample(case.asked, PARAMS)
    greedy = case.engine.sample(case.asked, SamplingParams(3, temperature=0.0))
    for sampled, group in zip(drawn, greedy, strict=True):
        require(len({completion.tokens for completion in group}) == 1, "greedy completions of a context are the same")
        best = max(completion.logprobs[0] for completion in sampled)
        require(group[0].logprobs[0] >= best - case.tolerance, "a greedy token is the likeliest")


def nothing_asked_for_is_nothing_given(case: EngineCase) -> None:
    """Empty calls give empty answers, and an update without any datum changes nothing."""
    require(case.engine.sample([], PARAMS) == [], "no request, no completion")
    require(case.engine.logprobs([]) == [] and case.engine.kl_to_base([]) == [], "no sequence, no number")
    none, some = case.engine.sample([replace(case.asked[0], n=0), case.asked[1]], PARAMS)
    require((len(none), len(some)) == (0, case.asked[1].n), "a request of 0 completions gets none")
    metrics = case.engine.train_step([], case.loss, 1.0)
    require((metrics.tokens, metrics.loss, metrics.grad_norm) == (0, 0.0, 0.0), "an update without datums does nothing")
    require(case.engine.policy_version == 0, "an update without datums adds nothing to policy_version")


def what_is_too_long_is_refused(case: EngineCase) -> None:
    """A context and max_tokens more must fit into `context_limit`; where it is not known nothing is asked."""
    if (limit := case.engine.context_limit) is None:
        return
    token = case.asked[0].context_tokens[0]
    fitting = (token,) * (limit - PARAMS.max_tokens)
    require(len(case.engine.sample([SampleRequest(fitting, 1, 0)], PARAMS)[0]) == 1, "what just fits is sampled")
    try:
        case.engine.sample([SampleRequest((*fitting, token), 1, 0)], PARAMS)
    except TooLongError:
        return
    require(False, "sample raises TooLongError for a context that leaves no room for max_tokens")


def text_goes_in_and_comes_out(case: EngineCase) -> None:
    """`encode` leaves its argument alone, and `decode` gives the text back."""
    messages: list[Message] = [{"role": "system", "content": "Be-brief."}, {"role": "user", "content": "2+2?"}]
    given = copy.deepcopy(messages)
    tokens = case.engine.encode(messages)
    require(messages == given, "encode does not change its argument")
    require(isinstance(tokens, tuple) and len(tokens) > 0, "encode gives a tuple of tokens")
    text = case.engine.decode(tokens)
    require("Be-brief." in text and "2+2?" in text, "decode gives back what was encoded")


# -- learning ----------------------------------------------------------------------------------------------------------


def sampling_and_training_agree(case: EngineCase) -> None:
    """The importance ratio of a fresh rollout is 1, before the first update and after it: the sampler is synced."""
    for engine, when in ((case.engine, "before"), (case.trained.engine, "after")):
        rollouts = case.rollouts(engine)
        gap = worst([list(c.logprobs) for _, c in rollouts], engine.logprobs([s for s, _ in rollouts]))
        require(
            gap <= case.tolerance,
            f"{when} an update the sampler's log-probabilities are the learner's: they are {gap:.2g} nats apart",
        )


def an_update_moves_log_probabilities_with_their_advantages(case: EngineCase) -> None:
    """Each applied update adds one to the version."""
    trained = case.trained
    after = trained.engine.logprobs(trained.sequences)
    triples = zip(trained.datums, after, trained.logprobs, strict=True)
    gain = sum(datum.advantage * (sum(new) - sum(old)) for datum, new, old in triples)
    require(gain > 0, "what has a positive advantage becomes likelier, and the other way round")
    require(trained.engine.policy_version == 2, "policy_version counts the updates")
    require(trained.engine.intact, "intact is true after an update")


def the_metrics_of_an_update_are_those_of_its_datums(case: EngineCase) -> None:
    """On fresh rollouts: ratio 1, nothing clipped, no penalty, and the policy-gradient loss."""
    trained, metrics = case.trained, case.trained.metrics
    tokens = sum(len(datum.completion_tokens) for datum in trained.datums)
    require(metrics.tokens == tokens, "tokens counts the completions' tokens")
    require(metrics.not_finite is None, "not_finite is None for a sound update")
    require(abs(metrics.ratio_mean - 1) <= 1.1 * case.tolerance, "the mean ratio of fresh rollouts is 1")
    require(abs(metrics.ratio_max - 1) <= 3 * case.tolerance, "their largest ratio is 1")
    require(metrics.clip_fraction == 0, "nothing of fresh rollouts is clipped")
    require(abs(metrics.kl_penalty) <= case.tolerance, "there is no KL penalty before the first update")
    require(not metrics.entropy <= 0, "the entropy is positive, or NaN where it is not known")
    require(not metrics.grad_norm <= 0, "the gradient's norm is positive, or NaN where it is not known")
    pairs = zip(trained.datums, trained.logprobs, strict=True)
    expected = -sum(datum.token_weight * datum.advantage * sum(row) for datum, row in pairs)
    require(abs(metrics.loss - expected) <= 10 * case.tolerance, "loss is the sum of token_weight * loss over tokens")


def the_base_weights_stay(case: EngineCase) -> None:
    """Updates move the current weights alone; the KL to the base is 0 before and positive after."""
    trained = case.trained
    require(
        worst(trained.logprobs, trained.base) <= case.tolerance, "current and base weights are one before an update"
    )
    base = trained.engine.logprobs(trained.sequences, "base")
    require(worst(base, trained.base) <= case.tolerance, "an update leaves the base weights alone")
    moved = worst(trained.engine.logprobs(trained.sequences), trained.base)
    require(moved > 10 * case.tolerance or moved > 1e-2, "an update moves the current weights")
    require(
        max(abs(v) for row in trained.kl for v in row) <= case.tolerance, "the KL to the base is 0 before an update"
    )
    after = trained.engine.kl_to_base(trained.sequences)
    require([len(row) for row in after] == [len(row) for row in base], "kl_to_base has a value a completion token")
    require(min(v for row in after for v in row) >= -case.tolerance, "the KL is never negative")
    require(sum(v for row in after for v in row) > 0, "the KL to the base is positive after an update")


def a_loss_that_it_cannot_run_is_refused(case: EngineCase) -> None:
    """Before anything moves, and by name."""
    trained, version = case.trained, case.trained.engine.policy_version
    try:
        trained.engine.train_step(trained.datums, LossSettings(NO_LOSS), 1.0)
    except ConfigError as error:
        require(NO_LOSS in str(error), "the error names the loss")
        require(trained.engine.policy_version == version, "a refused update moves nothing")
        return
    require(False, "train_step raises ConfigError for a loss that it cannot run")


def distillation_moves_towards_the_teacher_or_is_refused(case: EngineCase) -> None:
    """The student's KL to the base weights under another context falls; an engine that cannot do that says so."""
    engine = case.make()
    sequences = [sequence for sequence, _ in case.rollouts(engine)]
    weight, extra = 1.0 / sum(len(s.completion_tokens) for s in sequences), case.asked[0].context_tokens[::-1]
    datums = [
        DistillDatum(s.context_tokens, (*extra, *s.context_tokens), s.completion_tokens, weight) for s in sequences
    ]
    if not case.distils:
        try:
            engine.distill_step(datums, case.learning_rate)
        except ConfigError:
            require(engine.policy_version == 0, "a refused update moves nothing")
            return
        require(False, "distill_step raises ConfigError where it cannot be done")
    # The student is led away first: where the two contexts hardly differ there is nothing to learn,
    # and steps overshoot.
    for _ in range(5):
        engine.train_step(case.trained.datums, case.loss, case.learning_rate)
    metrics = [engine.distill_step(datums, case.learning_rate) for _ in range(5)]
    require(metrics[-1].loss < metrics[0].loss, "distillation lowers the KL to the teacher")
    require(metrics[0].tokens == sum(len(s.completion_tokens) for s in sequences), "tokens counts completions' tokens")
    require(engine.policy_version == 10, "policy_version counts the updates")
    engine.distill_step([], 1.0)
    require(engine.policy_version == 10, "an update without datums changes nothing")


def a_saved_engine_goes_on_as_if_nothing_had_been(case: EngineCase) -> None:
    """`load` brings back weights, optimiser and version, into the same engine and into a new one."""
    engine, sequences, datums = case.make(), case.trained.sequences, case.trained.datums
    rate = case.learning_rate
    engine.train_step(datums, case.loss, rate)
    engine.save(case.directory, resumable=True)
    saved = engine.logprobs(sequences)
    engine.train_step(datums, case.loss, rate)
    expected = engine.logprobs(sequences)
    for again in [engine, case.make()] if case.reloads else [engine]:
        again.load(case.directory)
        require(again.policy_version == 1, "load brings policy_version back")
        require(worst(again.logprobs(sequences), saved) <= case.tolerance, "load brings the weights back")
        again.train_step(datums, case.loss, rate)
        gap = worst(again.logprobs(sequences), expected)
        require(gap <= case.tolerance, f"load brings the optimiser back: the next update is {gap:.2g} nats off")
        base = again.logprobs(sequences, "base")
        require(worst(base, case.trained.base) <= case.tolerance, "load leaves the base weights alone")


def _tokens(groups: Sequence[Sequence[Completion]]) -> list[tuple[int, ...]]:
    return [completion.tokens for group in groups for completion in group]


CHECKS: tuple[Callable[[EngineCase], None], ...] = (
    it_is_an_engine,
    completions_have_the_promised_shape,
    the_same_call_gives_the_same_completions,
    a_completion_does_not_depend_on_its_batch,
    greedy_completions_are_the_likeliest,
    nothing_asked_for_is_nothing_given,
    what_is_too_long_is_refused,
    text_goes_in_and_comes_out,
    sampling_and_training_agree,
    an_update_moves_log_probabilities_with_their_advantages,
    the_metrics_of_an_update_are_those_of_its_datums,
    an_update_says_how_far_sampler_and_learner_are_apart,
    a_correction_is_made_or_refused,
    the_base_weights_stay,
    a_loss_that_it_cannot_run_is_refused,
    an_entropy_bonus_is_taken_or_refused,
    distillation_moves_towards_the_teacher_or_is_refused,
    a_saved_engine_goes_on_as_if_nothing_had_been,
)
