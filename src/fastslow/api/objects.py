"""From keywords, some of them Python objects, to a config's tree of texts and the objects that are lent beside it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fastslow.api.names import name_of
from fastslow.config import Config, load_config, parse_config
from fastslow.errors import ConfigError
from fastslow.given import is_model, is_placeholder
from fastslow.runs.files import read_config
from fastslow.tasks.base import Task
from fastslow.tasks.sources import as_table, default_splits
from fastslow.text import shown

Tree = dict[str, Any]
AnyConfig = str | Path | Mapping[str, Any] | Config | None
"""What stands for a config: the path of a YAML file, its keys and values, or one that was made."""
CHECKED = ("model.name", "task.options.data")
"""Keys whose objects carry a digest in their names: another one would make a resumed run another run."""


@dataclass(frozen=True)
class Leaf:
    """An object that is not looked into, whatever it is."""

    thing: Any


@dataclass
class Given:
    """A tree of texts and, by key, what was given as objects: names and things, in order."""

    tree: Tree
    objects: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)

    @property
    def lent(self) -> dict[str, Any]:
        """Every object by its name."""
        return {name: thing for pairs in self.objects.values() for name, thing in pairs}


@dataclass(frozen=True, eq=False)
class Objects:
    """The keywords that stand for objects; each takes a text as well, as the config has it."""

    model: Any = None
    tokenizer: Any = None
    dataset: Any = None
    reward_funcs: Any = None
    reward_weights: Sequence[float] | None = None
    reward_range: Sequence[float] | None = None
    environment: Any = None
    task: Any = None
    proposer: Any = None
    optimiser: Any = None

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> tuple["Objects", dict[str, Any]]:
        """Those among some keywords, and the rest of them."""
        mine = {name: value for name, value in keywords.items() if name in cls.__dataclass_fields__}
        return cls(**mine), {name: value for name, value in keywords.items() if name not in mine}

    @property
    def none(self) -> bool:
        """Whether nothing was given."""
        return all(value is None for value in vars(self).values())

    def with_model(self, model: Any) -> "Objects":
        """The same with this model."""
        return replace(self, model=model)

    def tree(self, *, names: bool = True, splits: bool = True) -> Tree:
        """The config's keys that they set; by `names` and `splits` the task's, too, where nobody says them."""
        found: Tree = {}
        self._add_model(found)
        self._add_task(found)
        if self.dataset is not None or self.reward_funcs is not None or self.environment is not None:
            self._add_data(found, names, splits)
        if self.proposer is not None:
            _put(found, "fast.proposer", _section(self.proposer, "kind"))
        if self.optimiser is not None:
            _put(found, "fast", _section(self.optimiser, "optimiser"))
        return found

    def _add_model(self, found: Tree) -> None:
        if self.model is not None:
            _put(found, "model", _section(self.model, "name"))
        if self.tokenizer is not None:
            _put(found, "model", {"tokenizer": _named(self.tokenizer)})
        name = found.get("model", {}).get("name")
        if isinstance(name, Leaf) and is_model(name.thing):
            found["model"] = {**model_facts(name.thing), **found["model"]}

    def _add_task(self, found: Tree) -> None:
        if self.task is None:
            return
        if isinstance(self.task, Task) and (self.dataset is not None or self.reward_funcs is not None):
            raise ConfigError("task: a Task has its own problems and scores: leave out dataset and reward_funcs")
        _put(found, "task", _section(self.task, "name"))

    def _add_data(self, found: Tree, names: bool, splits: bool) -> None:
        options: Tree = {}
        if self.environment is not None:
            options["environment"] = _named(self.environment)
        if self.reward_funcs is not None:
            several = isinstance(self.reward_funcs, list | tuple)
            options["reward_functions"] = [
                _named(each) for each in (self.reward_funcs if several else [self.reward_funcs])
            ]
        for key in ("reward_weights", "reward_range"):
            if getattr(self, key) is not None:
                options[key] = [float(value) for value in getattr(self, key)]
        if self.dataset is not None:
            options["data"] = _data(self.dataset)
        task = found.setdefault("task", {})
        divided = _splits(self.dataset)
        if divided is not None and splits:
            options["splits"] = divided
        if names:
            task.setdefault("name", _task_name(self.environment))
        task["options"] = {**options, **task.get("options", {})}


def collect(config: AnyConfig, objects: Objects, settings: Mapping[str, Any], overrides: Sequence[str] = ()) -> Given:
    """A config's tree with keywords over it, and the objects in them. Raises ConfigError."""
    base, over = _base(config, overrides), nested(settings)
    known = merged(base, over).get("task", {}).get("options", {})
    tree = objects.tree(splits="splits" not in known)
    return lend_objects(merged(merged(base, tree), over))


def collect_for(run: Path, objects: Objects, settings: Mapping[str, Any], config: AnyConfig = None) -> Given:
    """The tree that a run is resumed or measured with: its own, keywords over it,
    and its objects under the names that its config has for them.

    Raises: ConfigError where an object takes the place of nothing, or is not the one that the run was started with.
    """
    recorded = read_config(run).model_dump(mode="json")
    found = lend_objects(merged(objects.tree(names=False, splits=False), nested(settings)))
    for key, pairs in found.objects.items():
        names = _names_at(recorded, key)
        if len(names) != len(pairs):
            raise ConfigError(
                f"{key}: {len(pairs)} objects were given, and the run was started with {names or 'none there'}"
            )
        for name, (own, _) in zip(names, pairs, strict=True):
            _check_same(key, name, own, run)
        found.objects[key] = [(name, thing) for name, (_, thing) in zip(names, pairs, strict=True)]
        _set(found.tree, key, _get(recorded, key))
    base = merged(recorded, _base(config, ()))
    return Given(merged(base, _without_facts(found, recorded)), found.objects)


def parsed(given_: Given, *, recorded: bool = False) -> Config:
    """The config of a tree. Raises ConfigError, naming the keyword where nothing names the model or the task."""
    for key, keywords in (("model", "model="), ("task", "dataset= and reward_funcs=, environment= or task=")):
        if not given_.tree.get(key):
            raise ConfigError(f"{key}: is missing: give {keywords}, or a config")
    return parse_config(given_.tree, recorded=recorded)


def lend_objects(tree: Tree) -> Given:
    """The tree with its objects' names in their places. Raises ConfigError for an object in the place of a setting."""
    found = Given({})

    def text(value: Any, key: str) -> Any:
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        if isinstance(value, Mapping):
            inside = _inside(key)
            return {str(name): text(item, inside(str(name))) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [text(item, key) for item in value]
        if isinstance(value, Path):
            return str(value)
        if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
            value = value.item()  # a number of NumPy or PyTorch
        if value is None or isinstance(value, str | int | float | bool):
            return value
        thing = value.thing if isinstance(value, Leaf) else value
        name = name_of(thing, [name for pairs in found.objects.values() for name, _ in pairs])
        found.objects.setdefault(key, []).append((name, thing))
        return name

    found.tree = text(tree, "")
    return found


def merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """A tree with another one over it, section by section; where a section changes its kind, its old keys go."""
    result = dict(tree)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def nested(settings: Mapping[str, Any]) -> Tree:
    """Keywords as a tree: `slow={"learning_rate": ...}` and `**{"slow.learning_rate": ...}` are the same."""
    found: Tree = {}
    for key, value in settings.items():
        item = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        _put(found, key, item)
    return found


def model_facts(model: Any) -> Tree:
    """What a loaded model settles of the section `model`. Raises ConfigError for one that cannot be trained here."""
    import torch

    # What is in float16 is trained in float32: gradients of float16 would need a scale of their own.
    known = {torch.float32: "float32", torch.float16: "float32", torch.bfloat16: "bfloat16"}
    if getattr(model, "is_quantized", False):
        raise ConfigError(
            "model: its weights are quantised, and are not trained here: load it without quantization_config"
        )
    if len({str(parameter.device) for parameter in model.parameters()}) > 1:
        raise ConfigError("model: lies on several devices: load it with device_map={'': 0}, or without device_map")
    if model.dtype not in known:
        raise ConfigError(f"model: computes in {model.dtype}: load it with dtype=torch.float32 or torch.bfloat16")
    facts: Tree = {"dtype": known[model.dtype]}
    settings = getattr(model, "peft_config", None)
    return facts if settings is None else {**facts, "lora": _lora(model, settings)}


# -- inside ------------------------------------------------------------------------------------------------------------


def _base(config: AnyConfig, overrides: Sequence[str]) -> Tree:
    if config is None:
        return {}
    if isinstance(config, Config):
        return config.model_dump(mode="json")
    if isinstance(config, Mapping):
        return dict(config)
    if not isinstance(config, str | Path):
        raise ConfigError(f"config: {shown(config)} is none: give the path of a YAML file, a dict or a fastslow.Config")
    return load_config(config, overrides).model_dump(mode="json")


def _section(value: Any, key: str) -> Tree:
    """A section as it is, or one whose `key` is this name or object."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {**value, key: _named(value[key])} if key in value else dict(value)
    return {key: _named(value)}


def _named(value: Any) -> Any:
    """A text or a path as it is; several by name as they are; anything else is an object."""
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, str | Mapping) else Leaf(value)


def _data(dataset: Any) -> Any:
    """The option `data`: a path, a name, one object, or one of them for each split."""
    if isinstance(dataset, str | Path):
        return str(dataset)
    plain = isinstance(dataset, Mapping) and not hasattr(dataset, "column_names")
    if plain:
        return {name: str(part) if isinstance(part, str | Path) else Leaf(part) for name, part in dataset.items()}
    if not isinstance(dataset, Mapping):
        as_table(dataset)  # raises for what has no rows
    return Leaf(dataset)


def _splits(dataset: Any) -> Tree | None:
    """How an object without splits of its own choice is divided; None where the caller, or a file, must say it."""
    if dataset is None or isinstance(dataset, str | Path):
        return None
    if isinstance(dataset, Mapping):
        return (
            default_splits({name: len(part) for name, part in dataset.items()})
            if hasattr(dataset, "column_names")
            else None
        )
    return default_splits({"train": len(dataset)}) if hasattr(dataset, "__len__") else None


def _task_name(environment: Any) -> str:
    if environment is None:
        return "records"
    made = next(iter(environment.values())) if isinstance(environment, Mapping) else environment
    steps = callable(getattr(made, "init", None)) and callable(getattr(made, "step", None))
    return "text_environment" if steps else "environment"


def _lora(model: Any, settings: Mapping[str, Any]) -> Tree:
    """The section `model.lora` of a PEFT model. Raises ConfigError for what is not one plain LoRA adapter."""
    from fastslow.slow.local.lora import TRAINED, strange_settings

    if list(settings) != [TRAINED]:
        raise ConfigError(f"model: has the adapters {sorted(settings)}: give a PEFT model with one, {TRAINED!r}")
    own = settings[TRAINED].to_dict()
    strange = strange_settings(own)
    kind = str(getattr(own.get("peft_type"), "value", own.get("peft_type")))
    if kind != "LORA" or strange:
        told = ", ".join(f"{name} {value!r}" for name, value in strange.items()) or "other settings"
        raise ConfigError(f"model: its adapter is {kind} with {told}: plain LoRA alone is trained")
    targets = own["target_modules"]
    return {
        "rank": own["r"],
        "alpha": own["lora_alpha"],
        "targets": targets if isinstance(targets, str) else sorted(targets),
    }


def _check_same(key: str, recorded: str, own: str, run: Path) -> None:
    """Raises ConfigError where an object cannot be the one that the run was started with."""
    if not is_placeholder(recorded) and key in CHECKED:
        raise ConfigError(
            f"{key}: the run was started with {recorded!r}: leave the object out, it is found by that name"
        )
    if key in CHECKED and recorded != own:
        raise ConfigError(
            f"{key}: {str(run)!r} was started with {recorded}, and what was given is {own}. Give it as it was before "
            "the run began: a model that was trained in place must be loaded again"
        )


def _without_facts(found: Given, recorded: Tree) -> Tree:
    """A resumed run's own facts of its model stand: a model that was given says nothing new."""
    tree = dict(found.tree)
    if "model" in tree and "model.name" in found.objects:
        tree["model"] = {
            key: recorded["model"][key] if key in ("dtype", "lora") else v for key, v in tree["model"].items()
        }
    return tree


def _inside(key: str) -> Callable[[str], str]:
    """The key of what lies inside a section; several environments or files stand under the key of one."""
    if key in ("task.options.environment", "task.options.data"):
        return lambda name: key
    return lambda name: f"{key}.{name}" if key else name


def _names_at(tree: Tree, key: str) -> list[str]:
    value = _get(tree, key)
    values: Iterator[Any] = iter(
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    )
    return [each for each in values if isinstance(each, str)]


def _get(tree: Tree, key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _set(tree: Tree, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for part in parents:
        tree = tree[part]
    tree[leaf] = value


def _put(tree: Tree, key: str, value: Any) -> None:
    """Put a value at a dotted key, merging sections."""
    *parents, leaf = key.split(".")
    over: Any = {leaf: value}
    for part in reversed(parents):
        over = {part: over}
    fresh = merged(tree, over)
    tree.clear()
    tree.update(fresh)


def as_overrides(tree: Tree, prefix: str = "") -> list[str]:
    """A tree of texts as `key.path=value`, one for each setting."""
    found: list[str] = []
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and value
        found += as_overrides(dict(value), f"{prefix}{key}.") if inner else [f"{prefix}{key}={json.dumps(value)}"]
    return found
