"""Fixtures that the whole suite shares."""

from pathlib import Path

import pytest
import torch

from tiny import make_model_dir

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a tokenizer and a chat template, as a Hugging Face directory."""
    return make_model_dir(tmp_path_factory.mktemp("tiny-model"))
