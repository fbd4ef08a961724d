"""The lab's model and a prompt for it, for tests with a sampler or a server in another process."""

from pathlib import Path

import torch

from fastslow.resources import resolve_path

# The task's four rules are stated, so that most answers are right, some are wrong, and groups have a signal.
STATED_RULES = "\n".join(
    (
        "You are a helpful assistant.",
        "Put commas between the items.",
        "Drop repeated items.",
        "Write answer tags around it.",
        "Sort the items downwards.",
    )
)


def float32_lab_model(directory: Path) -> Path:
    """The lab's model, a Llama with a tied head. It is kept in half precision, which is too coarse to compare by."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve_path("package:fastslow.lab/model", "model.name")
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).save_pretrained(directory)
    AutoTokenizer.from_pretrained(source).save_pretrained(directory)
    return directory
