"""Whether a sampler reports the learner's log-probabilities: measured on its own draws,
whichever sampler and engine it is.

Before the first step the sampler continues a few of the run's own contexts, and one as long as the run's longest
sequence, in the run's precision and at its temperature. The learner then measures the same tokens. Nothing is trained,
and every seed is derived from a name of its own, so that the run draws what it would have drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from fastslow.config import Config
from fastslow.errors import ServerError
from fastslow.seeding import derive_seed
from fastslow.slow.engine import PolicyEngine, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.limits import fits
from fastslow.slow.local.agreement import length_matters
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.probe import TEXT
from fastslow.slow.mismatch import MISMATCH_BAR, Mismatch, ways_out
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.tasks.base import Task
from fastslow.types import Message, Prompt

PROBLEMS, LONGEST_PROBLEMS = 2000, 16
CONTEXTS, COMPLETIONS, TOKENS = 3, 4, 16
"""Problems that are asked, completions of each context, tokens of each completion: 256 tokens with the long context."""
LONG_ENOUGH = 512
"""Tokens of the long context where our own sampler computes every length alike, which `local/agreement.py` has seen."""
FLOAT32_BAR, CORRECTED_BAR = 1e-4, 1e-1
"""Mismatch KL, nats a token, above which a run is refused: where both sides compute in float32, and where a correction
is on; `MISMATCH_BAR` elsewhere. docs/engine.md says why.
"""


@dataclass(frozen=True)
class Agreement:
    """What was found, in a line. `complaint`: why a run that begins so is refused; None where nothing is wrong.
    `warning`: what its user should know.
    """

    found: str
    complaint: str | None = None
    warning: str | None = None

    def __str__(self) -> str:
        return self.found


def longest_sequence(
    config: Config, task: Task, engine: PolicyEngine, *, prompts: Sequence[Prompt], searches: bool
) -> int:
    """Tokens of the longest context and completion that the run may see: bounded by the config, and by the model.

    `prompts` are those that it begins with; `searches`: it writes longer ones.
    """
    problems = [*islice(task.problems("train"), PROBLEMS), *islice(task.problems("validation"), PROBLEMS)]
    found = [task.messages(problem, prompt) for prompt in prompts for problem in problems]
    found.sort(key=lambda messages: -sum(len(str(message["content"])) for message in messages))
    longest = max(len(engine.encode(messages)) for messages in found[:LONGEST_PROBLEMS])
    if searches:
        written = config.fast.proposer.max_prompt_chars * len(task.seed_prompt.components)
        longest += int(written / _characters_per_token(engine, found[0]))
    longest += config.sampling.max_tokens
    return min(longest, engine.context_limit or longest)


def measure_agreement(config: Config, task: Task, engine: PolicyEngine, longest_tokens: int) -> Agreement:
    """Compare the sampler's log-probabilities with the learner's on completions that it draws now.

    `longest_tokens`: `longest_sequence`. Raises DivergedError where log-probabilities are not finite,
    ServerError where the server is gone.
    """
    length = min(TOKENS, config.sampling.max_tokens)
    asked = _messages(config, task, engine, length)
    if not asked:
        return _not_compared("no problem fits into the model's context")
    contexts = [engine.encode(messages) for messages in asked]
    target = longest_tokens - length
    if _computes_all_lengths_alike(engine, longest_tokens):
        target = min(target, LONG_ENOUGH)
    long = _lengthened(engine, asked[0], target)
    try:
        apart = _compare(config, engine, contexts, long, length)
    except torch.OutOfMemoryError:
        return _not_compared(f"out of memory at {longest_tokens} tokens")
    except ServerError as error:
        if not error.reachable:
            raise
        return _not_compared(str(error))
    lengths = [len(context) for context in [*contexts, long or ()] if context]
    return _judged(config, engine, apart, len(lengths), max(lengths))


# -- inside ------------------------------------------------------------------------------------------------------------


def _not_compared(reason: str) -> Agreement:
    found = f"sampler and learner were not compared: {reason}"
    return Agreement(found, warning=found)


def _messages(config: Config, task: Task, engine: PolicyEngine, length: int) -> list[Sequence[Message]]:
    problems = islice(task.problems("train"), CONTEXTS)
    asked = [task.messages(problem, task.seed_prompt) for problem in problems]
    return [m for m in asked if fits(engine.context_limit, len(engine.encode(m)), length)]


def _characters_per_token(engine: PolicyEngine, messages: Sequence[Message]) -> float:
    more = len(engine.encode(_with(messages, TEXT))) - len(engine.encode(messages))
    return len(TEXT) / max(1, more)


def _lengthened(engine: PolicyEngine, messages: Sequence[Message], tokens: int) -> tuple[int, ...] | None:
    """The context of these messages with as much ordinary text in the last as `tokens` have room for; None: none."""
    room = tokens - len(engine.encode(messages))
    per_token = _characters_per_token(engine, messages)
    characters = int(room * per_token)
    while characters > 0:
        text = (TEXT * -(-characters // len(TEXT)))[:characters]
        context = engine.encode(_with(messages, text))
        if len(context) <= tokens:
            return context
        characters -= max(1, int((len(context) - tokens) * per_token))
    return None


def _with(messages: Sequence[Message], text: str) -> list[Message]:
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']} {text}"}]


def _computes_all_lengths_alike(engine: PolicyEngine, longest_tokens: int) -> bool:
    # What a class does that derives from our sampler, nobody knows.
    if not isinstance(engine, LocalEngine) or type(engine.sampler) is not ForestSampler:
        return False
    return not length_matters(engine, longest_tokens)


@dataclass(frozen=True)
class _Apart:
    """How far sampler and learner are apart: after the problems, after the long context, and on all these tokens."""

    problems: Mismatch
    long: Mismatch
    all: Mismatch

    @property
    def worst(self) -> Mismatch:
        """The part with the highest mismatch KL: few tokens after a long context must not drown among the others."""
        parts = [part for part in (self.problems, self.long) if part.tokens]
        return max(parts, key=lambda part: math.inf if math.isnan(part.kl) else part.kl)


def _compare(
    config: Config, engine: PolicyEngine, problems: Sequence[tuple[int, ...]], long: tuple[int, ...] | None, length: int
) -> _Apart:
    contexts = [*problems, *([] if long is None else [long])]
    # The protocol's log-probabilities are those of temperature 1; our learner has them at the rollouts'.
    temperature = config.sampling.temperature if isinstance(engine, LocalEngine) else 1.0
    requests = [
        SampleRequest(context, COMPLETIONS, derive_seed(config.seed, "agreement", index))
        for index, context in enumerate(contexts)
    ]
    groups = engine.sample(requests, SamplingParams(length, temperature))
    drawn = [(index, completion) for index, group in enumerate(groups) for completion in group]
    sequences = [TokenSequence(contexts[index], completion.tokens) for index, completion in drawn]
    if isinstance(engine, LocalEngine) and temperature != 1.0:
        measured = engine.learner.logprobs(sequences, temperature=temperature)
    else:
        measured = engine.logprobs(sequences)
    apart = _Apart(Mismatch(), Mismatch(), Mismatch())
    for (index, completion), learner in zip(drawn, measured, strict=True):
        gaps = torch.tensor(learner, dtype=torch.float64) - torch.tensor(completion.logprobs, dtype=torch.float64)
        for part in (apart.all, apart.problems if index < len(problems) else apart.long):
            part.add(gaps)
    return apart


def _bar(config: Config, engine: PolicyEngine) -> float:
    if config.slow.mismatch_correction != "none":
        return CORRECTED_BAR
    if not isinstance(engine, LocalEngine):
        return MISMATCH_BAR
    # A sampler of another precision than the learner's says so by an attribute `dtype`.
    precisions = {str(dtype).removeprefix("torch.") for dtype in (engine.policy.dtype, _sampler_dtype(engine))}
    return FLOAT32_BAR if precisions == {"float32"} else MISMATCH_BAR


def _sampler_dtype(engine: LocalEngine) -> object:
    return getattr(engine.sampler, "dtype", engine.policy.dtype)


def _judged(config: Config, engine: PolicyEngine, apart: _Apart, contexts: int, longest: int) -> Agreement:
    """`contexts`: how many were asked, `longest` the tokens of the longest."""
    worst, bar = apart.worst, _bar(config, engine)
    agree = worst.kl <= bar  # a NaN does not
    found = (
        f"sampler and learner {'agree' if agree else 'differ'}: mean {apart.all.mean:.1g}, max "
        f"{apart.all.max:.1g} nats over {apart.all.tokens} tokens of {contexts} contexts of up to {longest} "
        f"tokens, mismatch KL {worst.kl:.1g}"
    )
    ways = ways_out(config)
    if not agree:
        where = f"contexts of {longest} tokens" if worst is apart.long else "its own problems"
        return Agreement(
            found,
            complaint=f"{_blamed(config)} sampler and learner give other log-probabilities to the sampler's own "
            f"tokens: after {where} they differ by {worst.mean:.2g} nats in the mean and {worst.max:.2g} at most, a "
            f"mismatch KL of {worst.kl:.2g} nats a token (allowed here: {bar:g}). Every importance ratio would be off "
            f"by that, and training biased. Ways out: {ways}",
        )
    if worst.kl > MISMATCH_BAR:
        return Agreement(found, warning=f"{found}, which is above {MISMATCH_BAR:g}: {ways}")
    return Agreement(found)


def _blamed(config: Config) -> str:
    if config.engine != "local":
        return f"engine: {config.engine!r}:"
    return f"slow.sampler.kind: {config.slow.sampler.kind!r}:"
