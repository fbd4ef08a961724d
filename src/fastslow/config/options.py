"""Every option of a config with what its section says of it: `docs/config.md` is made from this."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from fastslow.config.run import Config


@dataclass(frozen=True)
class Option:
    """One key. `only_for`: the kinds of its section that have it, empty where all of them do."""

    key: str
    default: str
    meaning: str
    unit: str
    source: str
    more: str = ""
    only_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A section of the config: its key ("" for the config itself), its first paragraph, its options in order.

    `kinds`: of a section that comes in kinds, what each is, by the value of `kind_key`.
    """

    key: str
    about: str
    options: tuple[Option, ...]
    kind_key: str = ""
    kinds: tuple[tuple[str, str], ...] = ()


def parts() -> list[Part]:
    """The whole config, section by section, in the order in which it is declared."""
    return list(_parts([("", Config)], ""))


def sections_of(annotation: object) -> list[type[BaseModel]]:
    """The sections that an annotation allows, in order."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for inner in get_args(annotation) for section in sections_of(inner)]


def kinds_of(annotation: object) -> dict[str, type[BaseModel]]:
    """Of a section that comes in kinds, each kind's section by its tag."""
    found: dict[str, type[BaseModel]] = {}
    for inner in get_args(annotation):
        tags = [extra.tag for extra in get_args(inner)[1:] if isinstance(extra, Tag)]
        if tags:
            found |= {tag: section for tag in tags for section in sections_of(get_args(inner)[0])}
        else:
            found |= kinds_of(inner)
    return found


def _parts(kinds: list[tuple[str, type[BaseModel]]], prefix: str) -> Iterator[Part]:
    """A section in all its kinds, then the sections inside."""
    fields: dict[str, tuple[FieldInfo, list[str]]] = {}
    for tag, section in kinds:
        for name, field in section.model_fields.items():
            fields.setdefault(name, (field, []))[1].append(tag)
    inner = {name: field for name, (field, _) in fields.items() if sections_of(field.annotation)}
    own = [
        _option(prefix + name, field, tuple(tags) if len(tags) < len(kinds) else ())
        for name, (field, tags) in fields.items()
        if name not in inner
    ]
    sections = [section for _, section in kinds]
    common = next(each for each in sections[0].__mro__ if all(issubclass(section, each) for section in sections))
    several = tuple((tag, _about(section)) for tag, section in kinds if tag)
    yield Part(prefix.rstrip("."), _about(common), tuple(own), _kind_key(sections) if several else "", several)
    for name, field in inner.items():
        found = list(kinds_of(field.annotation).items()) or [("", sections_of(field.annotation)[0])]
        yield from _parts(found, f"{prefix}{name}.")


def _about(section: type) -> str:
    """The first paragraph of a section's docstring, in one line."""
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


def _kind_key(sections: list[type[BaseModel]]) -> str:
    """The key that says which kind a section is: the one that every kind declares for itself."""
    return next(name for name in sections[0].model_fields if all(name in each.__annotations__ for each in sections))


def _option(key: str, field: FieldInfo, only_for: tuple[str, ...]) -> Option:
    documented: Any = field.json_schema_extra or {}
    return Option(
        key,
        _default(field),
        field.description or "",
        documented.get("unit", ""),
        documented.get("source", ""),
        documented.get("more", ""),
        only_for,
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
