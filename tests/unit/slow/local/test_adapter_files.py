"""A server's archive and its adapter."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fastslow.slow.local.adapter_files import complete_adapter
from fastslow.slow.tinker.server import _unpack


def test_an_adapter_learns_its_modules_and_its_model(tmp_path: Path) -> None:
    prefix = "base_model.model.model.layers.0"
    keys = [f"{prefix}.self_attn.q_proj.lora_A.weight", f"{prefix}.mlp.up_proj.lora_B.weight"]
    save_file({key: np.zeros((2, 2), dtype=np.float32) for key in keys}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "peft_type": "LORA"}', encoding="utf-8")
    complete_adapter(tmp_path, "some/model")
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == ["q_proj", "up_proj"]
    assert (config["base_model_name_or_path"], config["r"]) == ("some/model", 4)


def test_a_directory_without_an_adapter_is_left_alone(tmp_path: Path) -> None:
    complete_adapter(tmp_path, "m")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_writes_known_files_into_its_directory_alone(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("../../escaped.json", "deep/adapter_model.safetensors", "/etc/x.pkl", "run.sh"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
        link = tarfile.TarInfo("link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    buffer.seek(0)
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    _unpack(buffer, target)
    assert sorted(path.name for path in target.iterdir()) == ["adapter_model.safetensors", "escaped.json"]
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["escaped.json"]
