"""The weights of an export in other forms: an adapter merged into its base, and a file for llama.cpp."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.errors import ConfigError, FastslowError
from fastslow.text import printable

ADAPTER = "adapter_config.json"
ADAPTER_FILES = ("adapter_*", "README.md")
CONVERTER, PLACE = "convert_hf_to_gguf.py", "LLAMA_CPP"
GGUF = "model.gguf"


def adapter_settings(directory: Path) -> dict[str, Any] | None:
    """The settings of the adapter that lies in a directory; None where it is a model. Raises ConfigError."""
    path = directory / ADAPTER
    if not path.is_file():
        return None
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        adapter_rank(settings)
        _ = settings["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{printable(str(path))!r} is broken: {printable(str(error))}") from error
    return settings


def adapter_rank(settings: Mapping[str, Any]) -> int:
    """The largest rank of an adapter, from its adapter_config.json."""
    return max(int(settings["r"]), *map(int, (settings.get("rank_pattern") or {}).values()), 1)


def merge_adapter(config: Config, checkpoint: Path, output: Path) -> None:
    """Write the base with the checkpoint's adapter merged into it, in the run's `model.dtype`; merged in float32.

    Raises: ConfigError where the base is not there.
    """
    import torch

    from fastslow.slow.local.loading import load_model

    model = config.model.model_copy(update={"name": str(checkpoint), "revision": None, "lora": None})
    merged = load_model(model, torch.device("cpu"), torch.float32)
    merged.to(getattr(torch, config.model.dtype)).save_pretrained(str(output))


def find_converter() -> Path:
    """llama.cpp's own converter. Raises ConfigError, with what to do, where it is not there."""
    place = os.environ.get(PLACE)
    found = [Path(place) / CONVERTER] if place else []
    on_path = shutil.which(CONVERTER)
    found += [Path(on_path)] if on_path else []
    for path in found:
        if path.is_file():
            return path
    raise ConfigError(
        f"--gguf: llama.cpp's {CONVERTER} is not here, and no well-kept package brings it: get llama.cpp, and set "
        f"{PLACE} to its directory. Or convert what is exported by hand: python {CONVERTER} DIRECTORY --outfile {GGUF}"
    )


def write_gguf(converter: Path, directory: Path) -> None:
    """Convert a directory's model and tokenizer to `model.gguf` beside them. Raises FastslowError where it fails."""
    command = [sys.executable, str(converter), str(directory), "--outfile", str(directory / GGUF)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0 or not (directory / GGUF).is_file():
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise FastslowError(f"--gguf: {converter} failed; {directory} has everything else. It said:\n{last}")
