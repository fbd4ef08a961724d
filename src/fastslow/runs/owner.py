"""Whether a run directory, or an export, was made by this user: its config may name code,
and whoever runs it runs that code.

A secret of the user's own lies in the user's state directory. The mark in a run directory is made from it and from the
text of config.yaml (HMAC-SHA-256), so that nobody else can make it, and a config that was changed has none. A run may
be moved. An export's mark is made from its fastslow.json.
"""

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.extension import is_import_path
from fastslow.runs.files import CONFIG, EXPORT
from fastslow.text import printable, shown

MARK = ".made-by"
FLAG = "--trust-code"

logger = logging.getLogger(__name__)


def leave_mark(run: Path) -> None:
    """Say in a run directory that this user made it. Where the user has no place for a secret, there is no mark."""
    try:
        key = _secret(make=True)
        if key is not None:
            (run / MARK).write_text(_mark(run, key) + "\n", encoding="utf-8")
    except OSError:
        return  # the run is worth more than its mark


def is_own(run: Path) -> bool:
    """Whether this user made the run, and its config stands as it was written."""
    try:
        key = _secret(make=False)
        found = (run / MARK).read_bytes().strip()
        return key is not None and hmac.compare_digest(found, _mark(run, key).encode())
    except OSError:
        return False


def named_code(config: Config) -> list[str]:
    """The code besides fastslow's own that a config names, each as `key: name`."""
    found = [
        f"{key}: {shown(value)}" for key, value in _texts(config.model_dump(mode="json"), "") if is_import_path(value)
    ]
    if config.model.trust_remote_code:
        found.append(f"model.trust_remote_code: the code that comes with {shown(config.model.name)}")
    return found


def named_servers(config: Config, *, trains: bool) -> list[str]:
    """The servers that a config names, and the variables whose values they get. `trains`: reflection is asked, too."""
    tree = config.model_dump(mode="json")
    sections = {"fast.proposer": tree["fast"].get("proposer") if trains else None, "tinker": tree["tinker"]}
    return [
        f"{name}.{key}: {shown(section[key])}"
        for name, section in sections.items()
        if section
        for key in ("base_url", "api_key_env")
        if section.get(key) is not None
    ]


def check_trusted(run: Path, config: Config, *, trust_code: bool, trains: bool = False) -> None:
    """Say whose code is about to run, and what server is about to be asked, where it is not this user's run.

    Raises: ConfigError, before anything is imported, where there is such a thing and it was not said to be trusted.
    """
    named = [*named_code(config), *named_servers(config, trains=trains)]
    if not named or is_own(run):
        return
    words = printable("; ".join(named))
    if not trust_code:
        raise ConfigError(
            f"{printable(str(run))!r} was not made by this user on this machine, or its config was changed since. Code "
            "that it names would run here, and servers that it names would get what is sent from here, keys included: "
            f"{words}. Where you trust all of them, add {FLAG} (trust_code in Python). `fastslow report` and `fastslow "
            "prompts` show a run without its code"
        )
    logger.warning("%s is not this user's run, and what it names is used now: %s", printable(str(run)), words)


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)


def _mark(run: Path, key: bytes) -> str:
    config = run / CONFIG
    named = config if config.is_file() else run / EXPORT
    return hmac.new(key, named.read_bytes(), hashlib.sha256).hexdigest()


def _secret(*, make: bool) -> bytes | None:
    """32 bytes that only this user can read; None where there are none."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    path = Path(home) / "fastslow" / "secret"
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            with suppress(FileExistsError):  # two runs that begin at once share the first one's
                os.link(temporary, path)
        finally:
            temporary.unlink()
    found = path.read_bytes() if path.is_file() else b""
    return found if len(found) == 32 else None
