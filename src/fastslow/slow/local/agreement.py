"""Whether our sampler and the learner compute the same policy at every length that a run will see; asked once, before
the first step. `slow/agreement.py` compares what a sampler reports of its own tokens, whichever sampler that is.

The sampler extends a cache token by token, the learner computes whole sequences. Most models give the same numbers
either way. Some do not: rotary factors that change with the length of a pass (long rope, dynamic rope), windows that a
cache forgets, decoders that count padding as positions. Every importance ratio would then be wrong, silently. So the
two are compared on ordinary text, in float32: on short contexts of mixed lengths, across every length at which the
config says that something changes, and at full length where it says so at all or the model brings its own code.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fastslow.errors import ConfigError
from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.precision import in_float32
from fastslow.slow.local.probe import (
    FLOAT32_TOLERANCE,
    decoded_logprobs,
    ordinary_tokens,
    scored_logprobs,
    worst_difference,
)
from fastslow.slow.samplers.forest import ForestSampler

logger = logging.getLogger(__name__)

SHORT, SHORTER, FEW, ACROSS = 64, 24, 4, 16
ROPES = ("longrope", "dynamic")


@dataclass(frozen=True)
class Comparison:
    """Sampler against learner after a context of some tokens: the largest difference in nats,
    and what rounding allows.
    """

    context_tokens: int
    completion_tokens: int
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is rounding."""
        return self.difference <= self.allowed  # a NaN does not


def check_agreement(engine: LocalEngine, longest_tokens: int, *, trains: bool) -> None:
    """Compare our sampler and the learner up to `longest_tokens`;
    what another sampler computes can only be seen in its draws.

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


def lengths(config: object, longest_tokens: int, *, own_code: bool) -> Iterator[tuple[int, int]]:
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


def length_matters(engine: LocalEngine, longest_tokens: int) -> bool:
    """Whether the model may compute otherwise at `longest_tokens` than at a few tokens."""
    config = engine.model.config.get_text_config()
    return len(list(lengths(config, longest_tokens, own_code=engine.policy.config.trust_remote_code))) > 1


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
        f"{found.context_tokens + found.completion_tokens} tokens (rounding: {found.allowed:.1g}), so the importance "
        "ratios of fresh rollouts would be wrong"
    )
    if not before:
        return f"{what}. No length of its sequences is safe: take another model"
    return (
        f"{what}. They agree up to {before} tokens, and this run's sequences may have {longest_tokens}: lower "
        "sampling.max_tokens, or fast.proposer.max_prompt_chars where prompts are evolved, or shorten the problems"
    )
