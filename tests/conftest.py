"""Fixtures that the whole suite shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny import make_model_dir

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place of the tests' own for what fastslow keeps for its user."""
    place = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place))
        yield place


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a tokenizer and a chat template, as a Hugging Face directory."""
    return make_model_dir(tmp_path_factory.mktemp("tiny-model"))
