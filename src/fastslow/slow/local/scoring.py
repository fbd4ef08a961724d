"""Log-probabilities of given completions: one forward pass a micro-batch, logits at completion positions only.

`ForestScorer` packs sequences that share prefixes; `PlainScorer` pads to the right. Both compute the turns of an
episode, which continue one another, as one sequence. Both say which row of the logits predicts which completion token,
so that everything after the forward pass is the same for both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.attention import attending
from fastslow.slow.local.forest import Forest, pack_forests

# Elements of a slice of logits: on a CPU what its caches hold, on a GPU what keeps it busy.
SLICE_ELEMENTS = (2**20, 2**26)


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass over `computed_tokens` tokens.

    `members` are indices of the sequences in it. `rows[j]` are the rows of the logits that predict the completion
    tokens of sequence `members[j]`, shared where prefixes are. `forward(model)` gives logits (rows, vocabulary).
    """

    members: list[int]
    rows: list[list[int]]
    forward: Callable[[Any], torch.Tensor]
    computed_tokens: int


class Scorer(Protocol):
    """Splits sequences into micro-batches of at most `budget_tokens`; a longer sequence gets one of its own."""

    def micro_batches(self, sequences: Sequence[TokenSequence], budget_tokens: int) -> list[MicroBatch]:
        """The passes that a learner makes."""
        ...


class ForestScorer:
    """Micro-batches are packed forests: no padding, shared prefixes once, identical completions once."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def micro_batches(self, sequences: Sequence[TokenSequence], budget_tokens: int) -> list[MicroBatch]:
        """As `Scorer.micro_batches`."""
        inputs = [_input(sequence) for sequence in sequences]
        return [self._micro_batch(forest, sequences) for forest in pack_forests(inputs, budget_tokens)]

    def _micro_batch(self, forest: Forest, sequences: Sequence[TokenSequence]) -> MicroBatch:
        predictors = [
            path[len(sequences[member].context_tokens) - 1 :]
            for member, path in zip(forest.members, forest.paths, strict=True)
        ]
        kept = sorted({node for path in predictors for node in path})
        row_of = {node: row for row, node in enumerate(kept)}

        def forward(model: Any) -> torch.Tensor:
            with attending(forest, self.device, self.dtype) as mask:
                output = model(
                    input_ids=torch.tensor([forest.tokens], device=self.device),
                    position_ids=torch.tensor([forest.positions], device=self.device),
                    attention_mask=mask,
                    logits_to_keep=torch.tensor(kept, device=self.device),
                    use_cache=False,
                )
            # A view: the gradient of an index would be a second tensor of their size.
            logits: torch.Tensor = output.logits.flatten(0, 1)
            return logits

        rows = [[row_of[node] for node in path] for path in predictors]
        return MicroBatch(forest.members, rows, forward, len(forest))


class PlainScorer:
    """Micro-batches are right-padded rows of similar length, for architectures that cannot be packed. A row is a
    sequence, or several that continue one another.
    """

    def __init__(self, device: torch.device, pad_token: int) -> None:
        self.device, self.pad_token = device, pad_token

    def micro_batches(self, sequences: Sequence[TokenSequence], budget_tokens: int) -> list[MicroBatch]:
        """As `Scorer.micro_batches`."""
        groups: list[list[list[int]]] = []
        for chain in sorted(_episodes(sequences), key=lambda chain: (len(_input(sequences[chain[-1]])), min(chain))):
            length = len(_input(sequences[chain[-1]]))
            if not groups or (len(groups[-1]) + 1) * length > budget_tokens:
                groups.append([])
            groups[-1].append(chain)
        return [self._micro_batch(group, sequences) for group in groups]

    def _micro_batch(self, chains: list[list[int]], sequences: Sequence[TokenSequence]) -> MicroBatch:
        inputs = [_input(sequences[chain[-1]]) for chain in chains]
        members = [member for chain in chains for member in chain]
        width = max(len(tokens) for tokens in inputs)
        first = min(len(sequences[m].context_tokens) for m in members) - 1
        rows = [
            [
                index * (width - first) + position - first
                for position in range(len(sequences[m].context_tokens) - 1, len(_input(sequences[m])))
            ]
            for index, chain in enumerate(chains)
            for m in chain
        ]

        def forward(model: Any) -> torch.Tensor:
            padded = [list(tokens) + [self.pad_token] * (width - len(tokens)) for tokens in inputs]
            mask = [[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in inputs]
            output = model(
                input_ids=torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                logits_to_keep=torch.arange(first, width, device=self.device),
                use_cache=False,
            )
            logits: torch.Tensor = output.logits
            return logits.flatten(0, 1)

        return MicroBatch(members, rows, forward, len(inputs) * width)


def _input(sequence: TokenSequence) -> tuple[int, ...]:
    """What is computed: the last token of a sequence predicts nothing."""
    return (*sequence.context_tokens, *sequence.completion_tokens[:-1])


def _episodes(sequences: Sequence[TokenSequence]) -> list[list[int]]:
    """Indices of sequences, those together of which each one's context begins with all of the one before."""
    whole = [(*s.context_tokens, *s.completion_tokens) for s in sequences]
    chains: dict[int, list[int]] = {}  # by the last of each
    beginnings: list[int] = []  # those that the one at hand begins with, the shortest first
    for index in sorted(range(len(sequences)), key=lambda index: (whole[index], index)):
        while beginnings and not _begins_with(whole[index], whole[beginnings[-1]]):
            beginnings.pop()
        context = sequences[index].context_tokens
        before = (last for last in reversed(beginnings) if last in chains and _begins_with(context, whole[last]))
        chains[index] = [*chains.pop(next(before, -1), []), index]
        beginnings.append(index)
    return list(chains.values())


def _begins_with(tokens: tuple[int, ...], beginning: tuple[int, ...]) -> bool:
    return tokens[: len(beginning)] == beginning


def token_logprobs(
    logits: torch.Tensor, batch: MicroBatch, sequences: Sequence[TokenSequence], temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all completion tokens of a micro-batch, member after member, and the entropies (nats) of the
    distributions that they come from, both at `temperature`: of softmax(logits / temperature), as the sampler has it.

    Shapes: logits (rows, vocabulary); returns (N,) twice, both with gradient. Float32 whatever the logits are.
    Backward turns the logits into their own gradient in place: do not use them after it.
    """
    rows, targets = flat_tokens(batch, sequences, logits.device)
    chosen, entropy = row_logprobs(logits, rows, targets, temperature)
    return chosen, entropy[rows]


def flat_tokens(
    batch: MicroBatch, sequences: Sequence[TokenSequence], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The row of logits and the token of each completion token of a micro-batch, member after member; (N,) and (N,)."""
    rows = [row for rows in batch.rows for row in rows]
    targets = [token for member in batch.members for token in sequences[member].completion_tokens]
    return torch.tensor(rows, device=device), torch.tensor(targets, device=device)


def row_logprobs(
    logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `token_logprobs`, with each row's entropy: logits (R, V), rows and targets (N,); returns (N,) and (R,)."""
    chosen, entropies = _TokenLogprobs.apply(logits, rows, targets, temperature)  # type: ignore[no-untyped-call]
    return chosen, entropies


class _TokenLogprobs(torch.autograd.Function):
    """log_softmax and gather in slices that stay in the cache; plain autograd would walk the vocabulary ten times."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        log_totals = logits.new_empty(len(logits), dtype=torch.float32)
        entropies = torch.empty_like(log_totals)
        for part in slices(logits):
            values = tempered(logits[part], temperature)
            log_totals[part] = torch.logsumexp(values, dim=-1)
            probs = (values - log_totals[part, None]).exp_()
            entropies[part] = log_totals[part] - torch.linalg.vecdot(probs, values)
        ctx.save_for_backward(logits, log_totals, rows, targets)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # an entropy that nobody uses costs nothing
        return tempered(logits[rows, targets], temperature) - log_totals[rows], entropies

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor, None, None, None]:
        logits, log_totals, rows, targets = ctx.saved_tensors
        logits = logits.detach()
        chosen, bonus = (None if given is None else tempered(given, ctx.temperature) for given in gradients)
        gradient = torch.zeros_like(log_totals[rows]) if chosen is None else chosen
        per_row = torch.zeros_like(log_totals).index_add_(0, rows, gradient)
        order = rows.argsort(stable=True)
        rows, targets, gradient = rows[order], targets[order], gradient[order]
        for part in slices(logits):
            values = tempered(logits[part], ctx.temperature).sub_(log_totals[part, None])
            factors = -per_row[part, None]
            if bonus is not None:
                factors = factors - bonus[part, None] * _surprise(values)
            values.exp_().mul_(factors)
            first, last = torch.searchsorted(rows, torch.tensor([part.start, part.stop], device=rows.device)).tolist()
            here = rows[first:last] - part.start, targets[first:last]
            logits[part] = values.index_put_(here, gradient[first:last], accumulate=True)
        return logits, None, None, None


def _surprise(logprobs: torch.Tensor) -> torch.Tensor:
    """log p + H of each entry, so that dH/dz = -p (log p + H); shapes (rows, vocabulary)."""
    minus_entropies: torch.Tensor = torch.linalg.vecdot(logprobs.exp(), logprobs)
    return logprobs - minus_entropies[:, None]


def tempered(values: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits in float32, divided by the temperature; at 1 they are left as they are."""
    return values.float() if temperature == 1.0 else values.float() / temperature


def slices(logits: torch.Tensor) -> Iterator[slice]:
    """The rows of logits (rows, vocabulary) in runs of about `SLICE_ELEMENTS` elements."""
    size = max(1, SLICE_ELEMENTS[logits.device.type == "cuda"] // logits.shape[-1])
    return (slice(start, min(start + size, len(logits))) for start in range(0, len(logits), size))


@torch.no_grad()
def kl_divergences(logits: torch.Tensor, base_logits: torch.Tensor) -> torch.Tensor:
    """KL(current || base) of each row over the full vocabulary in nats; shapes (rows, vocabulary) -> (rows,)."""
    return torch.cat([_kl(logits[part].float(), base_logits[part].float()) for part in slices(logits)])


def _kl(logits: torch.Tensor, base_logits: torch.Tensor) -> torch.Tensor:
    logprobs = torch.log_softmax(logits, dim=-1)
    divergences: torch.Tensor = torch.linalg.vecdot(logprobs.exp(), logprobs - torch.log_softmax(base_logits, dim=-1))
    return divergences.clamp(min=0.0)
