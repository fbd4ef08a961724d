"""The intervals cover the truth as often as they say, on fewer draws than the committed table has."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_benchmark", ROOT / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_tables_are_those_of_the_committed_numbers(coverage: ModuleType) -> None:
    found = json.loads((ROOT / "results" / "coverage.json").read_text(encoding="utf-8"))
    assert (ROOT / "results" / "coverage.md").read_text(encoding="utf-8") == coverage.write_up(found)
    plain = [row for row in found["asymptote"] if row["shape"] in ("plain", "seeds differ") and row["noise"]]
    assert len(plain) > 30
    assert all(0.9 <= row["coverage"] <= 0.98 and abs(row["value"] - 0.5) < 0.01 for row in plain)
    assert all(row["given"] <= 0.02 for row in found["flat"])
    assert all(row["coverage"] >= 0.93 for row in found["problems"] + found["graded"])
    assert all(abs(row["coverage"] - row["said"]) < 0.015 for row in found["medians"])


@pytest.mark.parametrize(("shape", "noise"), [("plain", 0.0), ("plain", 0.06), ("seeds differ", 0.03)])
def test_asymptotes_are_covered(coverage: ModuleType, shape: str, noise: float) -> None:
    row = coverage.asymptote(shape, 5, 15, noise, 40)
    assert row["coverage"] >= 0.875
    assert row["value"] == pytest.approx(0.5, abs=0.01)
    assert row["refused"] <= 1


def test_flat_curves_are_refused(coverage: ModuleType) -> None:
    assert coverage.flat(5, 15, 0.06, 60)["given"] <= 0.05


@pytest.mark.parametrize("likeness", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_means_over_problems_are_covered(coverage: ModuleType, share: float, likeness: float) -> None:
    # Four standard errors below 95 %; the bootstrap before had 73 % at a share of 0.02.
    assert coverage.problems_mean(share, 64, 4, likeness, 300)["coverage"] >= 0.9


@pytest.mark.parametrize("seeds", [3, 5, 8, 10])
def test_medians_are_covered_as_often_as_is_said(coverage: ModuleType, seeds: int) -> None:
    row = coverage.seeds_median("skewed", seeds, 2000)
    assert row["coverage"] == pytest.approx(row["said"], abs=0.03)


def test_best_of_k_is_not_biased_by_masked_rollouts(coverage: ModuleType) -> None:
    row = coverage.best_of(0.3, 20000)
    assert row["of the rest"] < 0.66
    assert row["now"] == pytest.approx(row["truth"], abs=0.025)
