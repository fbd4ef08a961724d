"""What a section of the config is made of. The component that it configures declares it, in `settings.py`."""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from fastslow.text import shown

MOST = 10**9
"""No count of a config is larger: what lies beyond is a slip of the keyboard, and some of it would never end."""
LARGEST_INTEGER, MOST_LEVELS, LEVELS_OF_SECTIONS = 2**63 - 1, 50, 10
"""What a config can hold. Options of any form stand in sections: what is written must be readable again."""
LONGEST_PART, LONGEST_PATH = 255, 2000
"""Bytes of a path: the first is the limit of file systems, and no system takes twice the second."""
Positive = Annotated[int, Field(gt=0, le=MOST)]
NonNegative = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveNumber = Annotated[float, Field(gt=0.0)]
NonNegativeNumber = Annotated[float, Field(ge=0.0)]
FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""For an option that holds a tuple: YAML has lists alone."""
VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
"""What names of environment variables look like, and keys do not."""
OURS = "ours"
"""The source of what the paper leaves open."""


class Section(BaseModel):
    """A part of the config: strict types, finite numbers, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _can_be_read_again(cls, value: Any) -> Any:
        check_readable(value)
        return value


def check_path(name: str) -> str:
    """The name, which may be looked for as a path. Raises ValueError for one that no file can have."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST_PATH or any(
        len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART for part in name.split("/")
    ):
        raise ValueError(
            f"{shown(name)} is too long for a path: {LONGEST_PART} bytes between two slashes, and {LONGEST_PATH} "
            "in all, are the most"
        )
    return name


PathText = Annotated[str, AfterValidator(check_path)]


def check_readable(value: Any, level: int = 0) -> None:
    """Raises ValueError for a value that a run's config file could not give back:
    a number that is too large or not finite, or too many levels.
    """
    if level > MOST_LEVELS - LEVELS_OF_SECTIONS:
        raise ValueError(f"it is nested more than {MOST_LEVELS - LEVELS_OF_SECTIONS} levels deep: no option needs that")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        # Python refuses to write out numbers of thousands of digits.
        raise ValueError(f"an integer of {value.bit_length()} bits is beyond {LARGEST_INTEGER}: give a smaller one")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number: a run's config could not give it back")
    if isinstance(value, Mapping):
        for pair in value.items():
            for part in pair:
                check_readable(part, level + 1)
    elif isinstance(value, (list, tuple)):
        for part in value:
            check_readable(part, level + 1)


def check_address(url: str) -> str:
    """A server's address as it is. Raises ValueError for what is none, or may hold a key;
    what may hold one is not repeated.

    It is looked at when the config is read: what a config holds is written down,
    also where nobody will ever call there.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or url != url.strip():
        what = shown(url) if not set("@?#") & set(url) else "what stands here (not repeated: it may hold a key)"
        raise ValueError(f"{what} is no address: write it as http://HOST:PORT/v1 or https://HOST/v1")
    if parts.username or parts.password:
        raise ValueError(
            "holds a user name or a password: put the key into an environment variable, and name that in api_key_env"
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError(
            f"the address at {parts.hostname!r} goes on behind a '?' or '#', where keys often stand (not repeated "
            "here): put the key into an environment variable, name that in api_key_env, and end the address before it"
        )
    return url


def check_variable(name: str) -> str:
    """The name of an environment variable. Raises ValueError for what may be a key, which is repeated nowhere."""
    if not (VARIABLE_NAME.fullmatch(name) or name in os.environ):
        raise ValueError(
            "no environment variable has the name that stands here (it is not repeated, since it may be a key): export "
            "the key, say as REFLECTION_API_KEY, and write that name here"
        )
    return name


def _check_variable(name: str, info: ValidationInfo) -> str:
    # A recorded run may be another machine's, whose variables are not known.
    return name if info.context and info.context.get("recorded") else check_variable(name)


Address = Annotated[str, AfterValidator(check_address)]
VariableName = Annotated[str, AfterValidator(_check_variable)]


def option(
    default: Any = ...,
    meaning: str = "",
    *,
    unit: str,
    source: str = OURS,
    more: str = "",
    make: Callable[[], Any] | None = None,
) -> Any:
    """One option: its default (none: it must be given; `make` builds one), and what `docs/config.md` says of it.

    `source` is where the default or the definition comes from: a section of the paper (arXiv 2605.12484), `settings`
    for its table of settings for each domain, another paper, or `ours`. `meaning` fits into a line of a table;
    `more` are further sentences.
    """
    documented: Any = {"unit": unit, "source": source, "more": more}
    if make is not None:
        return Field(default_factory=make, description=meaning, json_schema_extra=documented)
    return Field(default, description=meaning, json_schema_extra=documented)


def drop_foreign(value: Any, kind: str, kinds: Mapping[str, type[Section]], info: ValidationInfo) -> Any:
    """A section's keys without those that belong to other kinds of it and stand at their default.

    Earlier versions wrote every kind's keys into one section. Of a recorded run they are dropped whatever they hold.
    """
    if not isinstance(value, Mapping) or kind not in kinds:
        return value
    recorded = bool((info.context or {}).get("recorded"))
    foreign = {name: field for other in kinds.values() for name, field in other.model_fields.items()}
    own = kinds[kind].model_fields

    def keep(name: str) -> bool:
        if name in own or name not in foreign:
            return True
        return not recorded and value[name] != foreign[name].default

    return {name: item for name, item in value.items() if keep(name)}
