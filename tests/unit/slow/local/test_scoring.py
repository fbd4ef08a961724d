"""Log-probabilities, entropies and divergences against torch.log_softmax and brute force."""

import math
from itertools import chain

import pytest
import torch

from fastslow.slow.engine import TokenSequence
from fastslow.slow.local.scoring import ForestScorer, MicroBatch, PlainScorer, kl_divergences, token_logprobs

VOCABULARY = 1000
ROWS = 2300  # more than one slice of 2**20 elements


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def batch_of(rows: list[list[int]]) -> MicroBatch:
    return MicroBatch(list(range(len(rows))), rows, lambda model: torch.empty(0), 0)


def sequences_of(targets: list[list[int]]) -> list[TokenSequence]:
    return [TokenSequence((1,), tuple(tokens)) for tokens in targets]


def shared_rows() -> tuple[list[list[int]], list[list[int]]]:
    """Two completions over many rows; they share the first row, and one token of it."""
    rows = [list(range(1500)), [0, *range(1500, ROWS)]]
    generator = torch.Generator().manual_seed(3)
    targets = [torch.randint(VOCABULARY, (len(r),), generator=generator).tolist() for r in rows]
    targets[1][0] = targets[0][0]
    return rows, targets


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_values_and_gradients_equal_those_of_log_softmax(dtype: torch.dtype, tolerance: float) -> None:
    rows, targets = shared_rows()
    flat_rows, flat_targets = list(chain(*rows)), list(chain(*targets))
    weights = random(len(flat_rows), seed=1)
    reference = random(ROWS, VOCABULARY).to(dtype).requires_grad_()
    expected = reference.float().log_softmax(-1)[flat_rows, flat_targets]
    (expected * weights).sum().backward()
    logits = random(ROWS, VOCABULARY).to(dtype).requires_grad_()
    got, _ = token_logprobs(logits.clone(), batch_of(rows), sequences_of(targets))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=5e-6, rtol=0)
    (got * weights).sum().backward()
    assert logits.grad is not None and reference.grad is not None
    torch.testing.assert_close(logits.grad, reference.grad, atol=tolerance, rtol=tolerance)


def test_entropies_are_those_of_the_rows() -> None:
    logits = torch.stack([torch.zeros(8), torch.tensor([0.0] + [-1e4] * 7), torch.tensor([1.0, 1.0] + [-1e4] * 6)])
    _, entropy = token_logprobs(logits.requires_grad_(), batch_of([[0, 1], [2, 0]]), sequences_of([[3, 0], [1, 2]]))
    expected = torch.tensor([math.log(8), 0.0, math.log(2), math.log(8)])
    torch.testing.assert_close(entropy, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.bfloat16, 5e-3)])
def test_gradients_of_entropies_alone_and_with_log_probabilities_equal_those_of_autograd(
    dtype: torch.dtype, tolerance: float, temperature: float
) -> None:
    rows, targets = shared_rows()
    flat_rows, flat_targets = list(chain(*rows)), list(chain(*targets))
    weights, bonus = random(len(flat_rows), seed=1), random(len(flat_rows), seed=2)
    for factor in (0.0, 1.0):
        reference = random(ROWS, VOCABULARY).to(dtype).requires_grad_()
        logprobs = (reference.double() / temperature).log_softmax(-1)
        expected = -(logprobs.exp() * logprobs).sum(-1)[flat_rows]
        (expected * bonus + factor * logprobs[flat_rows, flat_targets] * weights).sum().backward()
        logits = random(ROWS, VOCABULARY).to(dtype).requires_grad_()
        chosen, got = token_logprobs(logits.clone(), batch_of(rows), sequences_of(targets), temperature)
        torch.testing.assert_close(got, expected.float(), atol=5e-5, rtol=0)
        total = (got * bonus).sum()
        (total + (chosen * weights).sum() if factor else total).backward()
        assert logits.grad is not None and reference.grad is not None
        assert float(reference.grad.abs().max()) > 1
        torch.testing.assert_close(logits.grad, reference.grad, atol=tolerance, rtol=tolerance)


def test_a_weight_of_zero_gives_no_gradient() -> None:
    logits = random(2, 5).requires_grad_()
    got, _ = token_logprobs(logits.clone(), batch_of([[0], [1]]), sequences_of([[2], [4]]))
    (got * torch.tensor([0.0, 2.0])).sum().backward()
    assert logits.grad is not None
    probs = logits.detach()[1].softmax(-1)
    assert logits.grad[0].abs().max() == 0
    torch.testing.assert_close(logits.grad[1], 2 * (torch.eye(5)[4] - probs))


def test_kl_divergences_equal_brute_force() -> None:
    current, base = random(ROWS, VOCABULARY), random(ROWS, VOCABULARY, seed=9)
    p, q = current.double().log_softmax(-1), base.double().log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)
    torch.testing.assert_close(kl_divergences(current, base).double(), expected, atol=1e-5, rtol=1e-5)


def test_kl_by_hand_and_of_equal_distributions() -> None:
    current, base = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl_divergences(current, base).tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    assert kl_divergences(base, base + 7).tolist() == pytest.approx([0.0], abs=1e-7)
    assert kl_divergences(base, base).item() >= 0


def test_kl_of_impossible_tokens_is_finite() -> None:
    current = torch.tensor([[0.0, 0.0, -1e4]])
    base = torch.tensor([[0.0, 0.0, 0.0]])
    assert kl_divergences(current, base).tolist() == pytest.approx([math.log(3 / 2)])


SEQUENCES = [
    TokenSequence((1, 2, 3), (4, 5, 6)),
    TokenSequence((1, 2, 3), (4, 7)),
    TokenSequence((1, 2), (9,)),
    TokenSequence((8,), (1, 1, 1, 1)),
]


@pytest.mark.parametrize(
    "scorer", [ForestScorer(torch.device("cpu"), torch.float32), PlainScorer(torch.device("cpu"), 0)]
)
@pytest.mark.parametrize("budget", [1, 6, 12, 100])
def test_every_sequence_is_in_one_micro_batch_within_the_budget(scorer, budget: int) -> None:
    batches = scorer.micro_batches(SEQUENCES, budget)
    assert sorted(member for batch in batches for member in batch.members) == [0, 1, 2, 3]
    for batch in batches:
        longest = max(len(SEQUENCES[m].context_tokens) + len(SEQUENCES[m].completion_tokens) - 1 for m in batch.members)
        assert batch.computed_tokens <= budget or batch.computed_tokens == longest
        lengths = [len(SEQUENCES[member].completion_tokens) for member in batch.members]
        assert [len(rows) for rows in batch.rows] == lengths


def test_padded_rows_hold_the_turns_of_an_episode_once() -> None:
    turns = [TokenSequence((1, 2), (3, 4)), TokenSequence((1, 2, 3, 4, 5), (6,)), TokenSequence((1, 2, 3, 9), (7, 8))]
    (batch,) = PlainScorer(torch.device("cpu"), 0).micro_batches([turns[1], turns[2], turns[0]], 100)
    # 1 2 3 4 5, with both turns in it, beside 1 2 3 9 7; logits begin at the second position
    assert (batch.members, batch.rows, batch.computed_tokens) == ([2, 0, 1], [[0, 1], [3], [6, 7]], 10)


def test_padded_rows_of_episodes_that_begin_alike_are_as_many_as_the_episodes() -> None:
    first = TokenSequence((1, 2), (3, 4))
    seconds = [TokenSequence((1, 2, 3, 4, said), (6, 7)) for said in (5, 8)]
    (batch,) = PlainScorer(torch.device("cpu"), 0).micro_batches([first, first, *seconds], 100)
    assert batch.computed_tokens == 12
    assert [len(rows) for rows in batch.rows] == [2] * 4
    # A context that goes on within a completion goes on from no turn.
    (batch,) = PlainScorer(torch.device("cpu"), 0).micro_batches([first, TokenSequence((1, 2, 3), (9, 9))], 100)
    assert batch.computed_tokens == 8


def test_a_forest_computes_each_prefix_once_and_no_last_token() -> None:
    (batch,) = ForestScorer(torch.device("cpu"), torch.float32).micro_batches(SEQUENCES, 100)
    inputs = [(*s.context_tokens, *s.completion_tokens[:-1]) for s in SEQUENCES]
    assert batch.computed_tokens == len({tokens[: end + 1] for tokens in inputs for end in range(len(tokens))}) == 9
    rows = dict(zip(batch.members, batch.rows, strict=True))
    assert rows[0][:2] == rows[1]  # both predict from "1 2 3" and from "1 2 3 4"
