"""`fastslow export --push` and `--gguf`: a hub on loopback, and a converter of one's own."""

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastslow.cli.main import main
from fastslow.deploy.weights import CONVERTER

FIXTURES = Path(__file__).parents[1] / "fixtures"
ADAPTER, WHOLE = "runs/fst-lora-killed", "runs/rl"
TOKEN = "hf_atokenofthetests"


class Hub(BaseHTTPRequestHandler):
    """Takes a repository and one commit of files; `refuses` is a status that it answers commits with."""

    made: ClassVar[dict[str, Any]] = {}
    files: ClassVar[dict[str, bytes]] = {}
    tokens: ClassVar[set[str]] = set()
    refuses: ClassVar[int] = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = f"http://{self.headers['Host']}/me/my-model"
        self.tokens.add(self.headers.get("Authorization", ""))
        if self.path == "/api/repos/create":
            self.made.update(json.loads(body))
            self._say(200, {"url": address, "id": "me/my-model"})
        elif self.path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._say(
                200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        elif "/commit/" in self.path and self.refuses:
            self._say(self.refuses, {"error": f"no, not with {self.headers.get('Authorization')}"})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._say(200, {"commitUrl": f"{address}/commit/1", "commitOid": "1", "success": True})
        else:
            self._say(404, {"error": self.path})

    def do_GET(self) -> None:
        self._say(200, {"id": "me/my-model", "modelId": "me/my-model", "sha": "0", "siblings": []})

    def _say(self, status: int, value: Any) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    for kept in (Hub.made, Hub.files, Hub.tokens):
        kept.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.chdir(FIXTURES)
        yield Hub
        server.shutdown()


def test_what_is_exported_is_pushed_and_the_token_is_never_printed(
    hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my-model"
    assert main(["export", ADAPTER, str(out), "--push", "me/my-model", "--base-model", "org/tiny"]) == 0
    assert {name: out.joinpath(name).read_bytes() for name in hub.files} == hub.files
    assert {"README.md", "prompt.txt", "adapter_model.safetensors", "fastslow.json"} <= set(hub.files)
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "org/tiny"
    assert b"base_model: org/tiny" in hub.files["README.md"]
    assert (hub.made["name"], hub.made["organization"], hub.made["visibility"]) == ("my-model", "me", "private")
    assert hub.tokens == {f"Bearer {TOKEN}"}
    said = "".join(capsys.readouterr())
    assert "pushed it to me/my-model" in said and TOKEN not in said
    assert not any(TOKEN in path.read_text(errors="replace") for path in out.iterdir())


def test_a_hub_that_refuses_is_told_without_the_token_and_the_export_stays(
    hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "refuses", 403)
    assert main(["export", ADAPTER, str(tmp_path / "out"), "--push", "me/my-model", "--public"]) == 2
    error = capsys.readouterr().err
    assert "--push: 'me/my-model' could not be pushed" in error and TOKEN not in error
    assert (tmp_path / "out" / "README.md").is_file()
    assert hub.made["visibility"] == "public"


@pytest.mark.parametrize(
    ("repo", "token", "words"), [("a/b/c", TOKEN, "no name of a"), ("a/b", "", "no token of the hub")]
)
def test_a_push_that_cannot_be_made_ends_before_anything_is_written(
    repo: str,
    token: str,
    words: str,
    hub: type[Hub],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token or None)
    assert main(["export", ADAPTER, str(tmp_path / "out"), "--push", repo]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- gguf --------------------------------------------------------------------------------------------------------------

CONVERTS = """
import sys, pathlib
directory, flag, out = sys.argv[1:]
assert flag == "--outfile" and (pathlib.Path(directory) / "config.json").is_file()
pathlib.Path(out).write_bytes(b"GGUF")
"""


@pytest.mark.parametrize(("run", "options"), [(WHOLE, []), (ADAPTER, ["--merge"])])
def test_llama_cpps_converter_gets_whole_weights(
    run: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CONVERTER).write_text(CONVERTS)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    monkeypatch.chdir(FIXTURES)
    out = tmp_path / "out"
    assert main(["export", run, str(out), "--gguf", *options]) == 0
    assert (out / "model.gguf").read_bytes() == b"GGUF"
    assert re.search(r"^- `model.gguf`: .*llama.cpp", (out / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("run", "options", "words"),
    [
        (WHOLE, ["--gguf"], "is not here, and no well-kept package brings it"),
        (ADAPTER, ["--gguf"], "give --merge as well"),
        (WHOLE, ["--merge"], "has no adapter"),
    ],
)
def test_forms_that_cannot_be_had_are_named_before_anything_is_written(
    run: str,
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(FIXTURES)
    assert main(["export", run, str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_converter_that_fails_is_told_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CONVERTER).write_text("raise SystemExit('no such architecture')")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    monkeypatch.chdir(FIXTURES)
    assert main(["export", WHOLE, str(tmp_path / "out"), "--gguf"]) == 2
    assert "no such architecture" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_foreign_model_runs_no_code_of_its_own_where_it_is_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FIXTURES / ADAPTER, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("trust_remote_code: false", "trust_remote_code: true"))
    monkeypatch.chdir(FIXTURES)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--merge"]) == 2
    assert "model.trust_remote_code: the code that comes with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
