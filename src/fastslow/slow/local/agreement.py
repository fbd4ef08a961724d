"""Whether sampler and learner speak of the same policy at every length that a run will see; asked once, before the first step.

The sampler extends a cache token by token, the learner computes whole sequences. Most models give the same numbers either
way. Some do not: rotary factors that change with the length of a pass (long rope, dynamic rope), windows that a cache
forgets, decoders that count padding as positions. Every importance ratio would then be wrong, silently. So the two are
compared on ordinary text, in float32: on short contexts of mixed lengths, across every length at which the config says
that something changes, and at full length where it says so at all or the model brings its own code.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.precision import in_float32
from fastslow.slow.local.probe import (
    FLOAT32_TOLERANCE,
    TEXT,
    decoded_logprobs,
    ordinary_tokens,
    scored_logprobs,
    worst_difference,
)
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.tasks.base import Task
from fastslow.types import Prompt

logger = logging.getLogger(__name__)

SHORT, SHORTER, FEW, ACROSS = 64, 24, 4, 16
PROBLEMS, LONGEST_PROBLEMS = 2000, 16
ROPES = ("longrope", "dynamic")


@dataclass(frozen=True)
class Comparison:
    """Sampler against learner after a context of some tokens: the largest difference in nats, and what rounding allows."""

    context_tokens: int
    completion_tokens: int
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is rounding."""
        return self.difference <= self.allowed  # a NaN does not


def longest_sequence(
    config: Config, task: Task, engine: LocalEngine, *, prompts: Sequence[Prompt], searches: bool
) -> int:
    """Tokens of the longest context and completion that the run may see: bounded by the config, and by the model.

    `prompts` are those that it begins with; `searches`: it writes longer ones.
    """
    problems = [*islice(task.problems("train"), PROBLEMS), *islice(task.problems("validation"), PROBLEMS)]
    found = [task.messages(problem, prompt) for prompt in prompts for problem in problems]
    found.sort(key=lambda messages: -sum(len(str(message["content"])) for message in messages))
    longest = max(len(engine.encode(messages)) for messages in found[:LONGEST_PROBLEMS])
    if searches:
        tokens_per_character = len(engine.tokenizer(TEXT, add_special_tokens=False)["input_ids"]) / len(TEXT)
        written = config.fast.proposer.max_prompt_chars * len(task.seed_prompt.components)
        longest += int(written * tokens_per_character)
    longest += config.sampling.max_tokens
    return min(longest, engine.context_limit or longest)


def check_agreement(engine: LocalEngine, longest_tokens: int, *, trains: bool) -> None:
    """Compare our sampler and the learner up to `longest_tokens`; what another sampler draws from is its author's business.

    Raises: ConfigError where they differ and weights are trained; without training it is a warning.
    """
    if not isinstance(engine.sampler, ForestSampler):
        return
    config = engine.model.config.get_text_config()
    before = 0
    for context, completion in lengths(config, longest_tokens, own_code=engine.policy.config.trust_remote_code):
        try:
            found = compare(engine, context, completion)
        except torch.OutOfMemoryError:
            logger.warning("sampler and learner were not compared at %d tokens: out of memory", context + completion)
            return
        if not found.agrees:
            message = _told(engine, found, before, longest_tokens)
            if trains:
                raise ConfigError(message)
            logger.warning("%s", message)
            return
        before = context + completion


def lengths(config: Any, longest_tokens: int, *, own_code: bool) -> Iterator[tuple[int, int]]:
    """Lengths of context and completion to compare at, ascending: short ones, up to and across each length at which the
    config says that something changes, and the full length.
    """
    short = min(SHORT, longest_tokens)
    yield short - FEW, FEW
    limits = [limit for limit in changing_lengths(config) if short - FEW < limit < longest_tokens]
    for limit in limits:
        yield limit - ACROSS, ACROSS
        yield limit - ACROSS // 2, min(ACROSS, longest_tokens - limit + ACROSS // 2)
    if longest_tokens > short and (limits or own_code):
        yield longest_tokens - FEW, FEW


def changing_lengths(config: Any) -> list[int]:
    """Every length in tokens at which a model with this config begins to compute otherwise."""
    sizes = [getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size", "window_size")]
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if kind.get("rope_type") in ROPES:
            sizes.append(kind.get("original_max_position_embeddings") or config.max_position_embeddings)
    return sorted({size for size in sizes if isinstance(size, int) and size > ACROSS})


def compare(engine: LocalEngine, context_tokens: int, completion_tokens: int) -> Comparison:
    """Both on a sequence of this length and on a short one beside it, as a batch of mixed lengths has them."""
    policy, total = engine.policy, context_tokens + completion_tokens
    beside = max(1, min(SHORTER, context_tokens // 2))
    text = ordinary_tokens(policy.model, policy.tokenizer, total + 7)
    contexts = [text[:context_tokens], text[7 : 7 + beside]]
    tails = [text[context_tokens:total], text[7 + beside :][:completion_tokens]]
    given = [TokenSequence(tuple(c), tuple(tail)) for c, tail in zip(contexts, tails, strict=True)]
    with in_float32(policy.model):
        decoder = ForestSampler(policy).decoder(contexts, [1, 1])
        steps = decoded_logprobs(decoder, tails, completion_tokens - 1)
        scored = torch.cat(
            scored_logprobs(policy.scorer(torch.float32), policy.model, given, policy.slow.microbatch_tokens)
        )
    sampled = torch.stack(steps, dim=1).flatten(0, 1)
    allowed = FLOAT32_TOLERANCE * max(1.0, float(scored.abs().max()))
    return Comparison(context_tokens, completion_tokens, worst_difference(engine.model, sampled, scored), allowed)


def _told(engine: LocalEngine, found: Comparison, before: int, longest_tokens: int) -> str:
    settings = engine.policy.config
    network = engine.model if settings.lora is None else engine.model.get_base_model()
    name = type(network).__name__
    what = (
        f"model.name: {settings.name!r} ({name}): sampling with a cache and computing whole sequences give other "
        f"log-probabilities, by up to {found.difference:.2g} nats after {found.context_tokens} to "
        f"{found.context_tokens + found.completion_tokens} tokens (rounding: {found.allowed:.1g}), so the importance ratios of "
        "fresh rollouts would be wrong"
    )
    if not before:
        return f"{what}. No length of its sequences is safe: take another model"
    return (
        f"{what}. They agree up to {before} tokens, and this run's sequences may have {longest_tokens}: lower "
        "sampling.max_tokens, or fast.proposer.max_prompt_chars where prompts are evolved, or shorten the problems"
    )
