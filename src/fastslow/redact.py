"""What must not be shown or sent: keys and passwords, and characters that steer a terminal or the direction of text."""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

REDACTED = "(redacted)"

_KEY_FORMATS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\b(?:gsk|xai|nvapi|r8|pypi)[-_][A-Za-z0-9_-]{20,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"  # JSON web tokens
    r"|(?<=\b[Bb]earer )[\w.~+/=-]{12,}"
)
SHORTEST_KEY = 12
"""Characters of the shortest text in which there may be one."""
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_URL_USER = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_URL_QUERY = re.compile(r"(?i)([?&;][^=&\s]*(?:key|token|secret|passw|credential|auth|sig)[^=&\s]*=)[^&\s#]+")
_SECRET_WORDS = {
    "key",
    "apikey",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "credentials",
} | {
    "auth",
    "authorization",
    "bearer",
    "cookie",
}
_DIRECTION = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def redact_text(text: str) -> str:
    """Text without what has the format of a known service's key, and URLs without passwords."""
    if len(text) < SHORTEST_KEY and "://" not in text:
        return text
    return _URL.sub(lambda match: _redact_url(match[0]), _KEY_FORMATS.sub(REDACTED, text))


def redact_config(value: object, name: str = "") -> Any:
    """A config without secrets: every text under a name that says so, and every text that looks like a key.

    The name of an environment variable (`api_key_env`) is no secret; a key that was put there by mistake is.
    """
    if isinstance(value, Mapping):
        return {key: redact_config(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_config(item, name) for item in value]
    if not isinstance(value, str) or not value:
        return value
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    if words & _SECRET_WORDS and not ("env" in words and re.fullmatch(r"[A-Za-z_]\w{0,63}", value)):
        return REDACTED
    return REDACTED if _is_random(value) else redact_text(value)


def visible(text: str) -> str:
    """Control characters as their pictures, and characters that turn or hide text as their code points."""
    if text.isprintable():
        return text
    text = _DIRECTION.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_visible, line)) for line in lines)


def _redact_url(url: str) -> str:
    return _URL_QUERY.sub(rf"\g<1>{REDACTED}", _URL_USER.sub(REDACTED, url))


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or character.isprintable():
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return character if unicodedata.category(character) == "Zs" else "\N{REPLACEMENT CHARACTER}"


def _is_random(text: str) -> bool:
    """Whether a text is one long word of letters of both cases and digits without any order: a key, most likely."""
    if not re.fullmatch(r"[A-Za-z0-9_+=.-]{32,}", text) or re.fullmatch(r"[0-9a-f]+", text):
        return False
    kinds = (re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    entropy = -sum(text.count(c) / len(text) * math.log2(text.count(c) / len(text)) for c in set(text))
    return all(kinds) and entropy > 4.2
