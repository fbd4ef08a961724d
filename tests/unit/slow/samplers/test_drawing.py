"""The draw: inverse transform sampling, so a grid of noise gives every token its share exactly."""

import pytest
import torch

from fastslow.slow.engine import SamplingParams
from fastslow.slow.samplers.drawing import draw

ALMOST_ONE = 1 - 2**-53


def shares(logits: torch.Tensor, params: SamplingParams, points: int = 4000) -> torch.Tensor:
    """How often each token comes out over a grid of `points` midpoints in [0, 1)."""
    noise = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    tokens, _ = draw(logits.expand(points, -1), noise, params)
    return torch.bincount(tokens, minlength=len(logits)).double() / points


def one(logits: list[float] | torch.Tensor, noise: float, **params: float) -> tuple[int, float]:
    tokens, logprobs = draw(
        torch.as_tensor(logits)[None], torch.tensor([noise], dtype=torch.float64), SamplingParams(1, **params)
    )
    return int(tokens), float(logprobs)


def random_logits(vocabulary: int) -> torch.Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2


@pytest.mark.parametrize("vocabulary", [2, 7, 511, 512, 513, 1300])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_every_token_gets_its_probability(vocabulary: int, temperature: float) -> None:
    logits = random_logits(vocabulary)
    expected = (logits.double() / temperature).softmax(-1)
    error = (shares(logits, SamplingParams(1, temperature)) - expected).abs().max()
    assert error < 1.01 / 4000  # an interval of length p holds p * N midpoints of the grid, give or take one


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("vocabulary", [7, 1300])
def test_the_log_probability_is_that_of_the_tempered_distribution(vocabulary: int, temperature: float) -> None:
    logits = random_logits(vocabulary).expand(50, -1)
    noise = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens, logprobs = draw(logits, noise, SamplingParams(1, temperature))
    expected = (logits / temperature).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected, atol=2e-6, rtol=0)
    assert logprobs.dtype == torch.float32


@pytest.mark.parametrize(("top_p", "kept"), [(0.45, 1), (0.75, 2), (0.85, 3), (0.97, 4)])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, kept: int) -> None:
    probs = torch.tensor([0.15, 0.5, 0.05, 0.3])
    nucleus = [1, 3, 0, 2][:kept]
    expected = torch.zeros(4, dtype=torch.float64)
    expected[nucleus] = probs.double()[nucleus] / probs[nucleus].sum()
    assert (shares(probs.log(), SamplingParams(1, top_p=top_p)) - expected).abs().max() < 1.01 / 4000


def test_a_nucleus_wider_than_its_candidates_is_exact_too() -> None:
    logits = torch.linspace(0, 0.1, 3000)
    probs = logits.double().softmax(-1)
    ordered = probs.sort(descending=True).values
    kept = int((ordered.cumsum(0) - ordered < 0.9).sum())
    found = {one(logits, noise, top_p=0.9)[0] for noise in (0.0, 0.3, ALMOST_ONE)}
    assert kept > 2000
    assert max(found) == 2999
    assert abs(min(found) - (3000 - kept)) <= 1  # float32 sums may move the edge by one token


def test_the_nucleus_is_cut_after_tempering() -> None:
    probs = torch.tensor([0.5, 0.3, 0.2])
    # at temperature 0.5 the probabilities are 25/38, 9/38 and 4/38: the first two have 34/38 = 0.89
    found = shares(probs.log(), SamplingParams(1, temperature=0.5, top_p=0.85))
    torch.testing.assert_close(found, torch.tensor([25 / 34, 9 / 34, 0], dtype=torch.float64), atol=3e-4, rtol=0)
    assert one(probs.log(), 0.0, temperature=0.5, top_p=0.85)[1] == pytest.approx(torch.tensor(25 / 38).log().item())


def test_greedy_takes_the_likeliest_token_and_reports_temperature_1() -> None:
    logits = torch.tensor([0.2, 0.7, 0.1]).log()
    for noise in (0.0, 0.5, ALMOST_ONE):
        assert one(logits, noise, temperature=0.0) == (1, pytest.approx(torch.tensor(0.7).log().item()))


@pytest.mark.parametrize("top_p", [1.0, 0.999])
@pytest.mark.parametrize("vocabulary", [6, 1300])
def test_the_ends_of_the_noise_never_give_an_impossible_token(vocabulary: int, top_p: float) -> None:
    logits = torch.full((vocabulary,), float("-inf"))
    logits[2:-2] = 0.0
    assert 2 <= one(logits, 0.0, top_p=top_p)[0] < vocabulary - 2
    assert 2 <= one(logits, ALMOST_ONE, top_p=top_p)[0] < vocabulary - 2


def test_the_ends_of_the_noise_give_the_first_and_the_last_possible_token() -> None:
    logits = torch.full((1300,), float("-inf"))
    logits[[600, 700, 1100]] = torch.tensor([0.0, 1.0, -20.0])
    assert one(logits, 0.0)[0] == 600
    assert one(logits, ALMOST_ONE)[0] == 1100


def test_rows_do_not_touch_one_another() -> None:
    logits = torch.stack([random_logits(700), random_logits(701)[:700], random_logits(700) * 3])
    noise = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    tokens, logprobs = draw(logits, noise, SamplingParams(1))
    for row in range(3):
        assert one(logits[row], float(noise[row])) == (int(tokens[row]), pytest.approx(float(logprobs[row])))


def test_bfloat16_logits_are_drawn_in_float32() -> None:
    logits = random_logits(600).bfloat16()
    expected = logits.double().softmax(-1)
    assert (shares(logits, SamplingParams(1)) - expected).abs().max() < 1.01 / 4000
