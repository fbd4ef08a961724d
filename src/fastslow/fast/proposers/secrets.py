"""The key of a reflection server: where it comes from, and how it stays out of every message and prompt."""

import json
import os
import re
from collections.abc import Sequence

from fastslow.errors import ConfigError
from fastslow.fast.proposers.settings import RemoteConfig

NO_KEY = "no-key"
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")


def redact(text: str, secrets: Sequence[str]) -> str:
    """The text with every secret blotted out, also where a client library repeats it as Python or JSON writes it."""
    written = {form for secret in secrets for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])}
    for secret in sorted(written, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return text


def known_secrets(api_key: str | None) -> tuple[str, ...]:
    """The key in use, and whatever else the environment calls a key, token, secret or password."""
    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name.upper()) and len(value) >= 8]
    return tuple({*values, *([api_key] if api_key and api_key != NO_KEY else [])})


def api_key(config: RemoteConfig) -> str | None:
    """The key, from the environment variable that the config names. Raises ConfigError where that is not set."""
    name = config.api_key_env
    if name is None:
        return None
    value = os.environ.get(name, "").strip() if "\0" not in name else ""
    if value:
        return value
    raise ConfigError(
        f"fast.proposer.api_key_env: the environment variable {name!r} is not set: export it with the key of the "
        "reflection LM, or leave api_key_env out for a server without a key"
    )
