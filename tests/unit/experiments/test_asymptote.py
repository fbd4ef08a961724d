"""The sigmoid fit finds the asymptote that made a curve, and refuses where the curve does not say."""

import numpy as np
import pytest

from fastslow.experiments.asymptote import fit_asymptote

STEPS = list(range(0, 85, 5))


def curves(
    asymptote: float, middle: float, slope: float, *, noise: float = 0.01, seeds: int = 5, draw: int = 0
) -> list[list[dict]]:
    rng = np.random.default_rng(draw)

    def value(step: int) -> float:
        clean = 0.02 if step == 0 else 0.02 + (asymptote - 0.02) / (1 + (middle / step) ** slope)
        return float(np.clip(clean + noise * rng.standard_normal(), 0, 1))

    return [[{"step": step, "val/mean@4": value(step)} for step in STEPS] for _ in range(seeds)]


@pytest.mark.parametrize(("asymptote", "middle", "slope"), [(0.8, 15, 3.0), (0.97, 20, 4.0), (0.5, 10, 2.5)])
def test_the_asymptote_is_found(asymptote: float, middle: float, slope: float) -> None:
    found = fit_asymptote(curves(asymptote, middle, slope))
    assert found.refused is None
    assert found.value == pytest.approx(asymptote, abs=0.03)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.06])
def test_the_fit_is_not_biased_by_noise(noise: float) -> None:
    # The running best, which was fitted before, lies 0.04 and 0.1 above the curve at these noises.
    found = [fit_asymptote(curves(0.5, 15, 3.0, noise=noise, draw=draw)) for draw in range(8)]
    assert np.mean([each.value for each in found]) == pytest.approx(0.5, abs=0.012)
    assert sum(each.low <= 0.5 <= each.high for each in found) >= 6


def test_a_curve_that_does_not_rise_is_refused() -> None:
    assert "rose by" in fit_asymptote(curves(0.03, 10, 3.0, noise=0.0)).text()


def test_noise_around_a_constant_is_no_curve() -> None:
    flat = [[{**point, "val/mean@4": point["val/mean@4"] + 0.28} for point in run] for run in curves(0.02, 10, 3.0)]
    assert "rose by" in fit_asymptote(flat).text() or "fell by" in fit_asymptote(flat).text()
    rng = np.random.default_rng(0)
    for _ in range(25):
        noisy = [[{"step": s, "val/mean@4": 0.3 + 0.06 * rng.standard_normal()} for s in STEPS] for _ in range(5)]
        assert fit_asymptote(noisy).refused is not None


def test_a_curve_that_is_still_on_its_way_is_refused() -> None:
    refused = fit_asymptote(curves(0.9, 200, 2.0)).refused
    assert refused is not None
    assert "middle" in refused or "wider" in refused or "highest" in refused


def test_seeds_that_disagree_are_refused() -> None:
    mixed = curves(0.95, 10, 4.0, seeds=2) + curves(0.3, 10, 4.0, seeds=2)
    assert "4 seeds differ by too much" in (fit_asymptote(mixed).refused or "")


def test_an_interval_that_says_nothing_is_refused() -> None:
    assert "is wider than 0.8" in (fit_asymptote(curves(0.6, 40, 2.0, noise=0.05, seeds=3, draw=1)).refused or "")


def test_too_few_evaluations_and_different_steps() -> None:
    few = [run[:4] for run in curves(0.9, 5, 3.0)]
    assert "too few" in (fit_asymptote(few).refused or "")
    with pytest.raises(ValueError, match="different steps"):
        fit_asymptote([curves(0.9, 5, 3.0)[0], curves(0.9, 5, 3.0)[0][:-1]])


def test_a_fit_that_runs_into_the_highest_accuracy_is_refused() -> None:
    # Fast at first, then ever slower: the sigmoid takes A = 1 at any slope.
    creeping = [
        [{"step": s, "val/mean@4": 0.02 if s == 0 else 0.9 + 0.0008 * s + 0.001 * i} for s in STEPS] for i in range(3)
    ]
    assert fit_asymptote(creeping).refused == "the fit ends at the highest accuracy there is"
