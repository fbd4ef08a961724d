"""The connection to a server that speaks the Tinker API: checks before a run, waiting that notices a dead server,
downloads.

The SDK is imported only here and in `tinker.py`, and only when a run uses it. It retries a lost connection for as long
as it lasts; whoever waits therefore asks the server for a sign of life.
"""

import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from fastslow.errors import ConfigError, ServerError
from fastslow.slow.tinker.settings import TinkerConfig

if TYPE_CHECKING:
    from tinker import ServiceClient

P = ParamSpec("P")
T = TypeVar("T")

POLL_S = 2.0
HEALTH = "/api/v1/healthz"
CAPABILITIES = "/api/v1/get_server_capabilities"
NO_KEY = "tml-none"
KEPT = (".safetensors", ".json")


class RefusedError(ServerError):
    """The server is there and has said no."""

    reachable = True


def check_server(config: TinkerConfig, base_model: str) -> None:
    """Raises ConfigError where the SDK, the key or the server is missing, or the server has another model."""
    if find_spec("tinker") is None:
        raise ConfigError("engine: 'tinker' needs the SDK: pip install 'fastslow[tinker]'")
    api_key(config)
    _await_server(config)
    models = [model["model_name"] for model in _models(config)]
    if base_model not in models:
        known = ", ".join(models) or "no model"
        raise ConfigError(
            f"tinker.base_model: the server at {config.base_url} has {known}, not {base_model!r}: name the model as "
            "the server does, or start the server with this one"
        )


def api_key(config: TinkerConfig) -> str:
    """The key from the environment. A self-hosted server needs none. Raises ConfigError where it is missing."""
    if config.api_key_env is None:
        if config.backend == "hosted":
            raise ConfigError("tinker.api_key_env: is missing: a hosted service needs the variable that holds the key")
        return NO_KEY
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise ConfigError(f"tinker.api_key_env: the environment variable {config.api_key_env!r} is not set")
    if not key.startswith(("tml-", "eyJ")):
        raise ConfigError(f"tinker.api_key_env: what {config.api_key_env!r} holds is no key: the SDK wants tml-...")
    return key


class Server:
    """One session with a server."""

    def __init__(self, config: TinkerConfig) -> None:
        self.config = config
        # The SDK would report to the server what happens here, headers included.
        os.environ.setdefault("TINKER_TELEMETRY", "0")
        import tinker

        key = api_key(config)
        _await_server(config)
        self.service: ServiceClient = self.call(
            tinker.ServiceClient, base_url=config.base_url, api_key=key, default_headers={"X-API-Key": key}
        )

    def call(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """The result of an SDK call that blocks."""
        future: Future[T] = Future()
        # From now on nothing cancels it: a call that was given up may still end, and then has a place for its result.
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(function(*arguments, **keywords))
            except BaseException as error:
                future.set_exception(error)

        # A daemon thread: a call that a dead server never answers must not keep the process from ending.
        threading.Thread(target=run, daemon=True).start()
        result: T = self.wait([future])[0]
        return result

    def wait(self, futures: Sequence[object]) -> list[Any]:
        """The results of requests that have all been submitted.

        Raises: RefusedError for what the server refuses; ServerError when it has not been reachable for
        `tinker.outage_s`, or has not answered within `tinker.batch_timeout_s`.
        """
        started = self._seen = time.monotonic()
        try:
            return [self._result(future, started) for future in futures]
        except BaseException:
            for future in futures:
                getattr(future, "future", lambda future=future: future)().cancel()
            raise

    def _result(self, future: Any, started: float) -> Any:
        while True:
            try:
                return future.result(timeout=POLL_S)
            except TimeoutError as error:
                if getattr(future, "future", lambda: future)().done():
                    raise RefusedError(f"the server at {self.config.base_url} gave up on a request: {error}") from error
            except Exception as error:  # the SDK raises what it likes: ValueError for a request that failed
                raise RefusedError(f"the server at {self.config.base_url} refused a request: {_told(error)}") from error
            self._check_alive(started)

    def _check_alive(self, started: float) -> None:
        now, config = time.monotonic(), self.config
        if _answers(config, timeout_s=min(10.0, config.outage_s)):
            self._seen = now
        if now - self._seen > config.outage_s:
            raise ServerError(
                f"the server at {config.base_url} has not been reachable for {config.outage_s:g} s (tinker.outage_s)"
            )
        if now - started > config.batch_timeout_s:
            raise ServerError(
                f"the server at {config.base_url} has not answered a batch of requests within "
                f"{config.batch_timeout_s:g} s (tinker.batch_timeout_s)"
            )

    # -- weights -------------------------------------------------------------------------------------------------------

    def download(self, path: str, directory: Path) -> None:
        """Write the weights behind a `tinker://` path of sampler weights into a directory: its safetensors and JSON."""
        import httpx

        run, *rest = path.removeprefix("tinker://").split("/")
        rest_client = self.call(self.service.create_rest_client)
        (answer,) = self.wait([self.call(rest_client.get_checkpoint_archive_url, run, "/".join(rest))])
        # A signed address elsewhere must not see the key.
        own = urlsplit(answer.url).netloc == urlsplit(self.config.base_url).netloc
        headers = {"X-API-Key": api_key(self.config)} if own else {}
        with tempfile.TemporaryFile() as file:
            try:
                with httpx.stream("GET", answer.url, headers=headers, timeout=self.config.outage_s) as response:
                    response.raise_for_status()
                    for part in response.iter_bytes():
                        file.write(part)
            except httpx.HTTPError as error:
                raise ServerError(f"the weights could not be downloaded: {_told(error)}") from error
            file.seek(0)
            _unpack(file, directory)


def _unpack(file: IO[bytes], directory: Path) -> None:
    """Only plain files of known kinds, by their last name alone: an archive cannot write anywhere else."""
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member) if member.isfile() and name.endswith(KEPT) else None
            if content is not None:
                with (directory / name).open("wb") as out:
                    while part := content.read(1 << 20):
                        out.write(part)


def _answers(config: TinkerConfig, timeout_s: float) -> bool:
    import httpx

    try:
        return httpx.get(config.base_url.rstrip("/") + HEALTH, timeout=timeout_s).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _await_server(config: TinkerConfig) -> None:
    """Raises ConfigError where no server answers within `tinker.connect_timeout_s`: it may be starting."""
    deadline = time.monotonic() + config.connect_timeout_s
    while not _answers(config, timeout_s=min(10.0, config.connect_timeout_s)):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"tinker.base_url: no server answers at {config.base_url} within {config.connect_timeout_s:g} s "
                "(tinker.connect_timeout_s): start it first, docs/scale-out.md says how"
            )
        time.sleep(0.5)


def context_length(config: TinkerConfig, base_model: str) -> int | None:
    """Positions of the context of a model of the server; None where it does not say."""
    own = (model for model in _models(config) if model["model_name"] == base_model)
    length = next((model.get("max_context_length") for model in own), None)
    return int(length) if length else None


def _models(config: TinkerConfig) -> list[dict[str, Any]]:
    """What the server says of each model that it has."""
    import httpx

    try:
        response = httpx.get(
            config.base_url.rstrip("/") + CAPABILITIES,
            headers={"X-API-Key": api_key(config)},
            timeout=config.connect_timeout_s,
        )
        response.raise_for_status()
        return [{**model, "model_name": str(model["model_name"])} for model in response.json()["supported_models"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"tinker.base_url: what answers at {config.base_url} does not speak the Tinker API: {_told(error)}"
        ) from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
