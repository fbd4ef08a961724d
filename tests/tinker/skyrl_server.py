"""A real SkyRL server for tests: JAX on the CPU, on loopback only, in an environment of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from fastslow.slow.tinker.settings import TinkerConfig

PYTHON = "FASTSLOW_SKYRL_PYTHON"
HELPERS = Path(__file__).parent / "skyrl"
START_S = 240.0
BACKEND: dict[str, Any] = {
    "max_lora_adapters": 32, "max_lora_rank": 8, "train_micro_batch_size": 8, "sample_max_num_sequences": 32,
}  # fmt: skip


def skyrl_python() -> Path | None:
    """The Python of the server's environment, where one is given."""
    python = os.environ.get(PYTHON)
    return Path(python) if python else None


class SkyrlServer:
    """A server process of one model. `root` keeps its database and checkpoints: a new process goes on from them.
    `compiled` is a directory of what JAX has compiled, which servers may share.
    """

    def __init__(self, model: Path, root: Path, python: Path, compiled: Path) -> None:
        self.model, self.root, self.python, self.compiled = model, root, python, compiled
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, **settings: Any) -> TinkerConfig:
        return TinkerConfig(base_url=self.url, backend="jax", **settings)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.root.mkdir(parents=True, exist_ok=True)
        bin_directory = self.python.parent
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(HELPERS), str(bin_directory), os.environ["PATH"]]),
            "PYTHONPATH": str(HELPERS),
            "SKYRL_DATABASE_URL": f"sqlite:///{self.root / 'tinker.db'}",
            "HF_HUB_OFFLINE": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "OMP_NUM_THREADS": "1",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        }
        command = [
            str(HELPERS / "uv"), "run", "-m", "skyrl.tinker.api", "--host", "127.0.0.1", "--port", str(self.port),
            "--base-model", str(self.model), "--backend", "jax", "--checkpoints-base", str(self.root / "checkpoints"),
            "--backend-config", json.dumps(BACKEND),
        ]  # fmt: skip
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.root, stdout=log, stderr=log, start_new_session=True
            )
        self._await()

    def kill(self) -> None:
        """SIGKILL to the server and its engine, and to nothing else: they have a process group of their own."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _await(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/api/v1/healthz", timeout=2.0).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        log = (self.root / "server.log").read_text(encoding="utf-8", errors="replace")[-4000:]
        self.kill()
        raise RuntimeError(f"SkyRL did not start:\n{log}")
