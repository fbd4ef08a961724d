"""Whether packed forests give a model's own numbers: decided by the numbers, on ordinary text, before the first use.

The comparison is made in float32, whatever the run computes in: there a right packing agrees to rounding and a wrong
mask, a wrong position or a stale key does not. In bfloat16 the same logits may be off by more than a wrong mask shifts
them, above all on tokens that no text holds. Where the run computes in bfloat16, a second look makes sure that packing
adds no more noise than the plain model has by itself, both measured against float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fastslow.slow.engine import TokenSequence
from fastslow.slow.local import attention
from fastslow.slow.local.precision import in_float32
from fastslow.slow.local.scoring import ForestScorer, Scorer
from fastslow.slow.samplers.decoders import Decoder, ForestDecoder

if TYPE_CHECKING:
    from peft import PeftModel

TEXT = (
    "Read the question twice before you answer it. A train leaves the station at nine and reaches the coast, 240 miles "
    "away, at one in the afternoon: how fast does it go? Four hours for 240 miles makes 60 miles an hour. If three "
    "friends share the fare of 45 dollars, each of them pays 15. The old bridge was closed last winter, so most people "
    "now take the ferry; it is slower, but the view over the bay is worth the time. Write down what you know, then "
    "what you need, and only then start to calculate. When the result looks strange, check the units first. She sold "
    "the house in May, moved north with two dogs and a piano, and never wrote a letter about it to anyone. Which of "
    "these words is a noun?\n"
)
LENGTH = 64
STEPS = 3
BUDGET_TOKENS = 4 * LENGTH
# Of the largest log-probability's size. Rounding in float32 stays two orders of magnitude below.
FLOAT32_TOLERANCE = 2e-4
# How much noisier than plain bfloat16 a packed pass may be, and the size of a rounding step of bfloat16.
NOISE_RATIO, BFLOAT16_STEP = 4.0, 2.0**-8


@dataclass(frozen=True)
class Sharing:
    """The decision. `reason` says why prefixes are not shared, None where they are; `evidence` is what was measured."""

    reason: str | None
    evidence: str = ""

    def __str__(self) -> str:
        return f"prefixes are shared: {self.evidence}" if self.reason is None else f"no prefix sharing: {self.reason}"


def decide_sharing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest_tokens: int) -> Sharing:
    """Try packed forests against plain passes; where they are right, the model is left on the `fastslow` attention.

    `longest_tokens` is the longest sequence that may come; 0 where nobody knows. Models that are not plain attention
    over all earlier tokens (recurrent layers, sliding windows, soft caps, learned sinks) must not be packed. They are
    found by what their config says and by trying, not by a list of names.
    """
    reason = restricted_layers(model.config.get_text_config(), longest_tokens)
    if reason is not None:
        return Sharing(reason)
    if not model._can_set_attn_implementation():
        return Sharing("its attention does not go through transformers' attention interface")
    original = model.config._attn_implementation
    sequences = _sequences(ordinary_tokens(model, tokenizer, 3 * LENGTH), longest_tokens)
    try:
        found = _compare(model, sequences, original)
    except torch.OutOfMemoryError:
        raise  # it says nothing of the model
    except Exception as error:  # whatever a foreign architecture raises, the answer is the same: do not pack it
        found = Sharing(f"{type(error).__name__}: {error}")
    if found.reason is None:
        attention.use(model)
    else:
        model.set_attn_implementation(original)
    return found


def restricted_layers(config: object, longest_tokens: int) -> str | None:
    """What the config says about layers that do not see every earlier token."""
    layer_types = set(getattr(config, "layer_types", None) or [])
    other = layer_types - {"full_attention", "sliding_attention", "chunked_attention"}
    if other:
        return f"it has layers of type {', '.join(sorted(other))}"
    for kind, key in (("sliding", "sliding_window"), ("chunked", "attention_chunk_size")):
        size = getattr(config, key, None)
        used = not layer_types or f"{kind}_attention" in layer_types
        if size and used and (not longest_tokens or size < longest_tokens):
            return f"its {kind} attention over {size} tokens is shorter than the sequences"
    return None


def ordinary_tokens(model: "PreTrainedModel | PeftModel", tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """`count` tokens of ordinary text, as the tokenizer cuts it, from the beginning again where it ends."""
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    tokens = [token for token in tokenizer(TEXT, add_special_tokens=False)["input_ids"] if token < vocabulary]
    if not tokens:  # a tokenizer that knows no letter
        tokens = [index * 7919 % vocabulary for index in range(LENGTH)]
    return (tokens * -(-count // len(tokens)))[:count]


def _sequences(text: list[int], longest_tokens: int) -> list[list[int]]:
    """Four sequences of one length: three share a beginning, two of them a longer one, one begins by itself."""
    length = max(2 * STEPS + 4, min(LENGTH, longest_tokens or LENGTH))
    first, second = length // 2, length * 3 // 4
    other, alone = text[length:], text[2 * length :]
    return [
        text[:length],
        [*text[:first], *other[: length - first]],
        [*text[:first], *other[: second - first], *alone[: length - second]],
        alone[:length],
    ]


def _compare(model: PreTrainedModel, sequences: list[list[int]], original: str) -> Sharing:
    with in_float32(model):
        plain, packed = _both(model, sequences, original)
    scale = max(1.0, float(plain.abs().max()))
    worst, allowed = worst_difference(model, packed, plain), scale * FLOAT32_TOLERANCE
    if not worst <= allowed:
        return Sharing(f"packed log-probabilities differ by {worst:.2g} nats in float32 (allowed: {allowed:.2g})")
    evidence = f"packed log-probabilities are within {worst:.1e} nats of plain ones in float32"
    if model.dtype == torch.float32:
        return Sharing(None, evidence)
    noise, packed_noise = (float((rows - plain).abs().median()) for rows in _both(model, sequences, original))
    if not packed_noise <= NOISE_RATIO * noise + scale * BFLOAT16_STEP:
        return Sharing(
            f"in bfloat16 packing moves log-probabilities by {packed_noise:.2g} nats, plain noise is {noise:.2g}"
        )
    return Sharing(
        None,
        f"{evidence}; in bfloat16 they are {packed_noise:.2g} nats off float32 in the median, plain ones {noise:.2g}",
    )


def worst_difference(model: PreTrainedModel, a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two (rows, vocabulary). Of a mixture of experts a tenth of the rows does not count: on
    a tie a router may take another expert for a rounding error.
    """
    config = model.config.get_text_config()
    routed = any(getattr(config, key, None) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    return float((a - b).abs().max(-1).values.quantile(0.9 if routed else 1.0))


def _both(model: PreTrainedModel, sequences: list[list[int]], original: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities over the vocabulary by the model's own attention and by packed forests, row by row.

    The packed rows are the sampler's (prefill and steps) and the learner's. Shapes: (rows, vocabulary), float32.
    """
    contexts = [sequence[: len(sequence) - STEPS - index - 1] for index, sequence in enumerate(sequences)]
    tails = [tuple(sequence[len(c) :]) for sequence, c in zip(sequences, contexts, strict=True)]
    model.set_attn_implementation(original)
    plain = plain_logprobs(model, sequences)
    predictors = [len(context) - 1 for context in contexts]
    expected = [plain[i, first + step] for step in range(STEPS + 1) for i, first in enumerate(predictors)]
    expected += [plain[i, first : first + len(tails[i])] for i, first in enumerate(predictors)]
    attention.use(model)
    got = decoded_logprobs(ForestDecoder(model, contexts, [1] * len(contexts), BUDGET_TOKENS), tails)
    given = [TokenSequence(tuple(c), tail) for c, tail in zip(contexts, tails, strict=True)]
    got += scored_logprobs(ForestScorer(model.device, model.dtype), model, given, BUDGET_TOKENS)
    return _rows(expected), _rows(got)


def _rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


@torch.no_grad()
def plain_logprobs(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """One pass over sequences of one length, nothing padded and nothing shared; (sequences, length, vocabulary)."""
    ids = torch.tensor([list(sequence) for sequence in sequences], device=model.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float().log_softmax(-1)


@torch.no_grad()
def decoded_logprobs(decoder: Decoder, tails: Sequence[Sequence[int]], steps: int = STEPS) -> list[torch.Tensor]:
    """What the sampler sees: of prefill and each step, (rows, vocabulary). Row i is fed the tokens of `tails[i]`."""
    logits = [decoder.prefill()]
    logits += [decoder.step([tail[step] for tail in tails]) for step in range(steps)]
    return [part.float().log_softmax(-1) for part in logits]


@torch.no_grad()
def scored_logprobs(
    scorer: Scorer, model: object, given: Sequence[TokenSequence], budget_tokens: int
) -> list[torch.Tensor]:
    """What the learner sees: of each sequence, (completion tokens, vocabulary)."""
    found: dict[int, torch.Tensor] = {}
    for batch in scorer.micro_batches(given, budget_tokens):
        logits = batch.forward(model)
        for member, rows in zip(batch.members, batch.rows, strict=True):
            found[member] = logits[rows].float().log_softmax(-1)
    return [found[index] for index in range(len(given))]
