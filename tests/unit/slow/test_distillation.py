"""The KL of distillation and its gradient against hand computation and autograd, and the datums of a step."""

import math

import pytest
import torch

from fastslow.slow.distillation import build_distill_datums, reverse_kl
from fastslow.slow.engine import DistillDatum
from fastslow.types import Completion, Rollout, Turn

VOCABULARY = 1000
ROWS = 2300  # more than one slice of 2**20 elements


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def indices(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_kl_and_gradient_by_hand() -> None:
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    kl, entropy = reverse_kl(student, teacher, indices(0), indices(0), torch.tensor([2.0]))
    by_hand = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl.tolist() == pytest.approx([by_hand])
    assert entropy.tolist() == pytest.approx([math.log(2)])
    # weight * p * (log p / q - KL)
    expected = [0.5 * (math.log(2) - by_hand) * 2.0, 0.5 * (math.log(2 / 3) - by_hand) * 2.0]
    assert student[0].tolist() == pytest.approx(expected)
    assert sum(expected) == pytest.approx(0.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.bfloat16, 5e-3)])
def test_values_and_gradients_equal_autograds(dtype: torch.dtype, tolerance: float) -> None:
    # Tokens that share a student's row, with one and with several of the teacher's; and rows that nothing needs.
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(ROWS - 100, (3000,), generator=generator)
    teacher_rows = torch.where(rows % 7 == 0, torch.randint(50, (3000,), generator=generator), rows % 50)
    weights = random(3000, seed=1)
    teacher = random(50, VOCABULARY, seed=2).to(dtype)
    student = random(ROWS, VOCABULARY).to(dtype)
    reference = student.double().requires_grad_()
    p, q = reference.log_softmax(-1)[rows], teacher.double().log_softmax(-1)[teacher_rows]
    expected = (p.exp() * (p - q)).sum(-1)
    (expected * weights).sum().backward()
    got, entropy = reverse_kl(student, teacher, rows, teacher_rows, weights)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected.detach(), atol=2e-5, rtol=0)
    torch.testing.assert_close(entropy.double(), -(p.exp() * p).sum(-1).detach(), atol=2e-5, rtol=0)
    assert reference.grad is not None
    torch.testing.assert_close(student.double(), reference.grad, atol=tolerance, rtol=tolerance)
    assert student[-100:].abs().max() == 0


def test_equal_distributions_have_no_divergence_and_no_gradient_at_all() -> None:
    logits = random(3, VOCABULARY)
    kl, _ = reverse_kl(logits, logits.clone(), indices(2, 0, 1), indices(2, 0, 1), torch.ones(3))
    assert kl.tolist() == [0.0, 0.0, 0.0]
    assert logits.abs().max() == 0


def test_impossible_tokens_stay_finite() -> None:
    student = torch.tensor([[0.0, 0.0, -1e4]])
    kl, _ = reverse_kl(student, torch.zeros(1, 3), indices(0), indices(0), torch.ones(1))
    assert kl.tolist() == pytest.approx([math.log(3 / 2)])
    assert student.isfinite().all()


def rollout(problem: str, tokens: int, *, failed: bool = False) -> Rollout:
    completion = Completion(tuple(range(tokens)), (-1.0,) * tokens, "stop")
    reward, failure = (None, "the sandbox timed out") if failed else (1.0, None)
    return Rollout(problem, "seed", (Turn((1, 2), completion, ""),), reward, "", failure, 0, "rl")


def test_each_problem_weighs_the_same_and_each_of_its_tokens() -> None:
    groups = [[rollout("a", 3), rollout("a", 1)], [rollout("b", 2), rollout("b", 2, failed=True)]]
    datums = build_distill_datums(groups, lambda r: [{"a": (7,), "b": (8, 9)}[r.problem_id]])
    assert [datum.token_weight for datum in datums] == [1 / 8, 1 / 8, 1 / 8, 1 / 8]
    assert [datum.teacher_context_tokens for datum in datums] == [(7,), (7,), (8, 9), (8, 9)]
    assert all(datum.context_tokens == (1, 2) for datum in datums)
    assert sum(datum.token_weight * len(datum.completion_tokens) for datum in datums) == 1.0


@pytest.mark.parametrize("datum", [((), (1,), (2,)), ((1,), (), (2,)), ((1,), (1,), ())])
def test_a_datum_with_nothing_in_it_is_refused(datum: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="two contexts and a completion"):
        DistillDatum(*datum, token_weight=1.0)
