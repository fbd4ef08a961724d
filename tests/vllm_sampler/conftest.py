"""The tests of this directory need vLLM; without it they are skipped."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from lab_runs import float32_lab_model

from vllm_cases import tiny_model


@pytest.fixture(scope="session", autouse=True)
def with_vllm() -> None:
    if find_spec("vllm") is None:
        pytest.skip("no vLLM: `make test-vllm` makes its environment and runs these tests there")


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"lab": float32_lab_model(root / "lab"), "tiny": tiny_model(root / "tiny")}
