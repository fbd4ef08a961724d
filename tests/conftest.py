"""Fixtures that the whole suite shares."""

import os
from collections.abc import Iterator
from pathlib import Path

# Two workers share two cores: a library that starts more threads only takes turns with itself.
# Before torch and NumPy load.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import pytest
import torch

from fastslow.experiments import runner

from tiny import make_model_dir

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a slow test that comes last would run alone, while the other worker waits."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place of the tests' own for what fastslow keeps for its user."""
    place = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place))
        yield place


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A small run has 65 calls of fsync, which take longer than all it computes. They guard against a power cut, which
    no test makes: what a killed process has written is there without them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def parts_are_forks() -> Iterator[None]:
    """The parts of an experiment, in tests: with one thread and no GPU a fork is safe, and imports torch only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "START_METHOD", "fork")
        yield


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a tokenizer and a chat template, as a Hugging Face directory."""
    return make_model_dir(tmp_path_factory.mktemp("tiny-model"))
