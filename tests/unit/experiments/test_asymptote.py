"""The sigmoid fit finds the asymptote that made a curve, and refuses where the curve does not say."""

import numpy as np
import pytest

from fastslow.experiments.asymptote import fit_asymptote

STEPS = list(range(0, 85, 5))


def curves(asymptote: float, middle: float, slope: float, *, noise: float = 0.01, seeds: int = 5) -> list[list[dict]]:
    rng = np.random.default_rng(0)

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


def test_a_curve_that_does_not_rise_is_refused() -> None:
    assert "rose by" in fit_asymptote(curves(0.03, 10, 3.0, noise=0.0)).text()


def test_a_curve_that_is_still_on_its_way_is_refused() -> None:
    refused = fit_asymptote(curves(0.9, 200, 2.0)).refused
    assert refused is not None
    assert "middle" in refused or "wider" in refused


def test_seeds_that_disagree_are_refused() -> None:
    mixed = curves(0.95, 10, 4.0, seeds=2) + curves(0.3, 10, 4.0, seeds=2)
    assert "is wider than" in (fit_asymptote(mixed).refused or "")


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
