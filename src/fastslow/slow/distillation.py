"""FST-distill: what a prompt says goes into the weights (arXiv 2605.12484, equation 8).

    minimise over theta
        E[x ~ D, y ~ pi_theta(. | x)]  mean over t of KL(pi_theta(. | x, y_<t) || pi_0(. | x, phi, y_<t))

On-policy reverse-KL self-distillation. The student `pi_theta` answers without the evolved prompt `phi` (here: under the
task's seed prompt); the teacher is the same model with frozen parameters, the base weights, under `phi`.

Choices where the paper is silent:
- The gradient is that of the KL at each position of the sampled rollouts. The other part of the expectation's
  gradient, the score-function term through the sampling of y, is left out, as in on-policy distillation
  elsewhere (arXiv 2306.13649).
- The KL of a position is exact, a sum over the full vocabulary, and not estimated from the sampled token.
- Aggregated as in RL: the token mean within one problem's rollouts, then the mean over problems.
- Both policies are taken at the temperature of the rollouts, `sampling.temperature`,
  so that equation 8 holds for the policy that is sampled.
- Rewards are no part of the loss, so a rollout that could not be scored is distilled like any other.
"""

from collections.abc import Callable, Sequence

import torch

from fastslow.slow.engine import DistillDatum
from fastslow.slow.limits import fits
from fastslow.slow.local.scoring import slices, tempered
from fastslow.types import Rollout


def build_distill_datums(
    groups: Sequence[Sequence[Rollout]],
    teacher_contexts: Callable[[Rollout], Sequence[tuple[int, ...]]],
    limit: int | None = None,
) -> list[DistillDatum]:
    """The datums of one step from the student's groups, a group being all rollouts of one problem; one datum a turn.

    `teacher_contexts` gives the teacher's context of each turn of a rollout. Each token weighs 1 / (tokens of its
    problem's rollouts * problems), so the weights of a step sum to 1. A later turn whose teacher's context, which holds
    the longer prompt, does not fit into `limit` positions is left out.
    """
    datums = []
    for group in groups:
        tokens = sum(rollout.sampled_tokens for rollout in group)
        for rollout in group:
            for number, (turn, taught) in enumerate(zip(rollout.turns, teacher_contexts(rollout), strict=True)):
                completion = turn.completion.tokens
                if completion and (number == 0 or fits(limit, len(taught), len(completion))):
                    datums.append(DistillDatum(turn.context_tokens, taught, completion, 1.0 / (tokens * len(groups))))
    return datums


@torch.no_grad()
def reverse_kl(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    rows: torch.Tensor,
    teacher_rows: torch.Tensor,
    weights: torch.Tensor,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(student || teacher) of each token over the full vocabulary, and the entropy of the student there, in nats;
    both policies at `temperature`, at which the student's rollouts were sampled.

    Turns `logits` in place into the gradient of `sum(weights * KL)`, `p * (log p - log q - KL)` for a weight of 1: no
    further tensor of its size is held. Shapes: logits (R, V), teacher_logits (S, V); rows (into R), teacher_rows (into
    S) and weights (N,); returns (N,) twice, float32 whatever the logits are. Source: arXiv 2605.12484 eq. 8.
    """
    # Rollouts that begin alike share rows: each pair of rows is computed once, in the order of the student's rows.
    keys, pair_of = torch.unique(rows * len(teacher_logits) + teacher_rows, return_inverse=True)
    pairs, teacher_pairs = keys // len(teacher_logits), keys % len(teacher_logits)
    pair_weights = torch.zeros(len(keys), device=logits.device).index_add_(0, pair_of, weights)
    divergences, entropies = torch.empty_like(pair_weights), torch.empty_like(pair_weights)
    for part in slices(logits):
        first, last = torch.searchsorted(pairs, torch.tensor([part.start, part.stop], device=pairs.device)).tolist()
        here = pairs[first:last] - part.start
        logprobs = torch.log_softmax(tempered(logits[part], temperature), dim=-1)
        probs = logprobs.exp()[here]
        teacher = tempered(teacher_logits[teacher_pairs[first:last]], temperature)
        gaps = logprobs[here] - torch.log_softmax(teacher, dim=-1)
        kl = torch.linalg.vecdot(probs, gaps)
        divergences[first:last] = kl.clamp(min=0.0)
        entropies[first:last] = -torch.linalg.vecdot(probs, logprobs[here])
        gradients = (gaps - kl[:, None]).mul_(probs).mul_(tempered(pair_weights[first:last, None], temperature))
        logits[part] = torch.zeros_like(logprobs).index_add_(0, here, gradients).to(logits.dtype)
    return divergences[pair_of], entropies[pair_of]
