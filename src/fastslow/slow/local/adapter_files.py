"""Adapters that a server has written, made complete for PEFT: which modules, of which model."""

import json
import re
from pathlib import Path

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
LORA_KEY = re.compile(r"\.([^.]+)\.lora_[AB](\.|$)")


def complete_adapter(directory: Path, base_model: str) -> None:
    """Name the target modules and the base model in an adapter's config; one without an adapter is left alone."""
    from safetensors import safe_open

    path = directory / CONFIG
    if not path.is_file() or not (directory / WEIGHTS).is_file():
        return
    with safe_open(directory / WEIGHTS, framework="numpy") as file:
        modules = {match.group(1) for key in file.keys() if (match := LORA_KEY.search(key))}  # noqa: SIM118
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base_model, "target_modules": sorted(modules), "task_type": "CAUSAL_LM"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
