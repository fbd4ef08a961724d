"""A server that the tests of this directory share; without one they are skipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skyrl_server import PYTHON, SkyrlServer, skyrl_python


@pytest.fixture(scope="session")
def python() -> Path:
    found = skyrl_python()
    if found is None:
        pytest.skip(f"no SkyRL server: `make test-tinker` makes its environment and sets {PYTHON}")
    pytest.importorskip("tinker", reason="the SDK is not installed: pip install 'fastslow[tinker]'")
    return found


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What JAX has compiled, for every server: two of them have the same model."""
    return tmp_path_factory.mktemp("jax-cache")


@pytest.fixture(scope="session")
def server(
    python: Path, compiled: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SkyrlServer]:
    """A server of the tiny model."""
    server = SkyrlServer(tiny_model_dir, tmp_path_factory.mktemp("skyrl") / "server", python, compiled)
    server.start()
    yield server
    server.kill()
