"""Reading configs: overrides, and errors that name the field, the value and the way out."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fastslow.config.options import kinds_of, sections_of
from fastslow.config.run import Config
from fastslow.config.yaml_text import read_yaml
from fastslow.errors import ConfigError
from fastslow.redact import redact_text
from fastslow.resources import pages, resolve_path
from fastslow.slow.settings import loss_defaults
from fastslow.text import shortened, shown

LONGEST_MESSAGE = 1000
NOT_REPEATED = ("api_key_env", "base_url")
MOST_MESSAGES = 12
"""Of wrong fields: a section that stands at the wrong level has dozens, and one reason."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `key.path=value` overrides. Raises ConfigError with one message per wrong field."""
    path = Path(resolve_path(str(path), "config file"))
    if not path.is_file():
        raise ConfigError(f"config file {str(path)!r} does not exist: {_where_to_find(path)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {str(path)!r} is not UTF-8 text: {error}") from error
    tree = read_yaml(text, f"config file {str(path)!r}")
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {str(path)!r} holds {type(tree).__name__}: it must hold keys and values")
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def _where_to_find(path: Path) -> str:
    """What to do about a config that is not there: one that came with the package has to be written out first."""
    if path.as_posix() not in pages():
        return "give the path of a YAML file"
    return f"the package has it, write it out with: fastslow docs {path.as_posix()} > {path.name}"


def parse_config(tree: dict[str, object], *, recorded: bool = False) -> Config:
    """A validated config; `recorded` is that of a run that exists, and need not learn anything.

    Raises: ConfigError that names the wrong fields, their values and the way out.
    """
    try:
        return Config.model_validate(tree, context={"recorded": recorded})
    except ValidationError as error:
        messages = [_explain(detail) for detail in error.errors()]
        if len(messages) > MOST_MESSAGES:
            messages[MOST_MESSAGES:] = [f"and {len(messages) - MOST_MESSAGES} more"]
        raise ConfigError(redact_text("\n".join(messages))) from None


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """A copy of a run's config with `key.path=value` overrides. Raises ConfigError as `load_config` does."""
    tree = config.model_dump(mode="json")
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, recorded=True)


def apply_override(tree: dict[str, object], override: str) -> None:
    """Set one `key.path=value` in a config tree; the value is read as YAML. Raises ConfigError for anything else."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {shown(override)}: write it as key.path=value, for example --set loop.group_size=16")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {shown(override)}: {parent!r} holds the value {shown(child)}, not a section")
        node = child
    if key == "slow.loss":
        _forget_defaults(tree)
    node[leaf] = read_yaml(text, f"--set {shown(override)}") if text else None


def _forget_defaults(tree: dict[str, Any]) -> None:
    """Take out what stands at the default of the tree's loss: another one has others."""
    slow, loop = tree["slow"], tree.get("loop")
    own = loss_defaults(slow.get("loss"))
    for key in ("clip_low", "clip_high", "aggregation"):
        if slow.get(key) == getattr(own, key):
            del slow[key]
    for key in ("divide_by_std", "batch_normalisation"):
        if isinstance(loop, dict) and loop.get(key) == (not own.unscaled):
            del loop[key]


def _explain(detail: Any) -> str:
    field = shortened(_field(detail["loc"]), 200)
    kind, value = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        return f"{field}: unknown key. {_nearest(detail['loc'])}"
    if kind == "missing":
        return f"{field}: is missing and has no default"
    if kind == "value_error":
        message = shortened(str(detail["ctx"]["error"]), LONGEST_MESSAGE)
        return f"{field}: {message}" if field else message
    if kind == "union_tag_invalid":
        name = "optimiser" if field == "fast" else "kind"
        return f"{field}.{name}: {shown(value.get(name))} is unknown: take one of {detail['ctx']['expected_tags']}"
    if kind == "float_type" and isinstance(value, str):
        return f"{field}: {shown(value)} is text to YAML. Write the number with a dot and a sign, for example 1.0e-6"
    secret = field.rpartition(".")[2] in NOT_REPEATED
    return (
        f"{field}: {detail['msg']}, got {'what is not repeated, since it may hold a key' if secret else shown(value)}"
    )


def _walk(location: Sequence[object]) -> tuple[list[str], type[BaseModel] | None, list[type[BaseModel]]]:
    """The keys of an error's place, without the tags of sections that come in kinds; the section that it is in, and,
    where that comes in kinds, all of them.
    """
    section: type[BaseModel] | None = Config
    kinds: Mapping[str, type[BaseModel]] = {}
    others: list[type[BaseModel]] = []
    keys: list[str] = []
    for part in map(str, location):
        if part in kinds:
            section, others, kinds = kinds[part], list(kinds.values()), {}
            continue
        keys.append(part)
        field = section.model_fields.get(part) if section is not None else None
        if field is not None:
            kinds, others = kinds_of(field.annotation), []
            section = sections_of(field.annotation)[0] if sections_of(field.annotation) else None
    return keys, section, others


def _field(location: Sequence[object]) -> str:
    return ".".join(_walk(location)[0])


def _nearest(location: Sequence[object]) -> str:
    keys, _, _ = _walk(location)
    _, section, others = _walk(location[:-1])
    names = list(section.model_fields) if section is not None else []
    if any(keys[-1] in other.model_fields for other in others):
        known = ", ".join(names)
        return f"It belongs to another kind of this section: take it out, or take that kind. Known here: {known}"
    close = difflib.get_close_matches(keys[-1], names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known here: {', '.join(names)}" if names else "Remove it"
