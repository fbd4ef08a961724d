"""`fastslow serve`, and the same in Python: a model behind an OpenAI-compatible endpoint, under its own prompts."""

import os
import socket
from pathlib import Path

from fastslow.deploy.server import Defaults, ModelServer
from fastslow.deploy.settings import AT_ONCE, MAX_REQUEST_BYTES
from fastslow.deploy.target import find_target
from fastslow.errors import ConfigError, positive
from fastslow.section import check_variable
from fastslow.tasks.agents.endpoint import HOST

MOST_KEY_CHARS = 1000


def serve(
    target: str | Path,
    *,
    weights: str = "latest",
    name: str | None = None,
    port: int = 0,
    api_key: str | None = None,
    max_tokens: int | None = None,
    at_once: int = AT_ONCE,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    device: str | None = None,
    trust_code: bool = False,
) -> ModelServer:
    """A server of a run's or an export's model, to be used as a context manager;
    its `base_url` is for any OpenAI client.

    It puts the evolved prompt in by itself: the one for the problem's kind where the task can tell, else the best.
    Requests ask for the model's `name` (by default the directory's), or for `name:kind`. Without an `api_key` any key
    will do; only this machine can ask. `port` 0 is any free one. `max_tokens` is what a completion may have where a
    request does not say: by default `sampling.max_tokens` of the training.
    Raises: ConfigError, before any model loads, for anything that does not exist or cannot be had.
    """
    from fastslow.slow.build import build_engine

    found = find_target(Path(target), weights=weights, trust_code=trust_code)
    name = found.name if name is None else name
    if not name or not name.isprintable() or ":" in name:
        raise ConfigError(f"name: {name!r} is no name of a model: take printable characters without ':'")
    if api_key is not None and (not api_key.isascii() or not api_key.isprintable() or not api_key.strip()):
        raise ConfigError("api_key: it must be printable ASCII characters, for it stands in a header")
    positive("at_once", at_once)
    positive("max_request_bytes", max_request_bytes)
    config = found.config
    most = config.sampling.max_tokens if max_tokens is None else positive("max_tokens", max_tokens)
    _check_port(port)
    if device is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"device": device})})
    engine = build_engine(config, checkpoint=found.checkpoint, trains=False)
    sampling = config.evaluation
    try:
        return ModelServer(
            engine,
            found.prompts,
            Defaults(most, sampling.temperature, sampling.top_p),
            name=name,
            step=found.step,
            key=api_key,
            port=port,
            at_once=at_once,
            max_request_bytes=max_request_bytes,
        )
    except OSError as error:
        raise _no_port(port, error) from error


def key_of(variable: str | None) -> str | None:
    """The key that an environment variable holds. Raises ConfigError where it holds none."""
    if variable is None:
        return None
    try:
        check_variable(variable)
    except ValueError as error:
        raise ConfigError(f"--api-key-env: {error}") from None
    key = os.environ.get(variable, "")
    if not key or len(key) > MOST_KEY_CHARS:
        raise ConfigError(f"--api-key-env: the environment variable {variable!r} holds no key: set it")
    return key


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port: {port} is no port: take a number from 1 to 65535, or 0 for any free one")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise _no_port(port, error) from error


def _no_port(port: int, error: OSError) -> ConfigError:
    return ConfigError(f"--port: {port} cannot be had ({error.strerror}): give another one, or 0 for any free one")
