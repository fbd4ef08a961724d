"""What is deployed of a run: the model or adapter, the best prompt, the population,
and a README that says how to serve them.

The directory is one that transformers, PEFT and vLLM load; nothing in it needs fastslow.
"""

import itertools
import json
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.deploy.card import Card, render
from fastslow.deploy.hub import check_push, push_directory
from fastslow.deploy.record import ExportRecord, write_record
from fastslow.deploy.target import best_prompt
from fastslow.deploy.weights import (
    ADAPTER,
    ADAPTER_FILES,
    GGUF,
    adapter_rank,
    adapter_settings,
    find_converter,
    merge_adapter,
    write_gguf,
)
from fastslow.errors import ConfigError
from fastslow.given import is_placeholder, named
from fastslow.methods.registry import find_method
from fastslow.runs.checksums import RESUME, SUMS
from fastslow.runs.directory import write_atomically
from fastslow.runs.files import read_record, step_of
from fastslow.runs.needed import check_whole, find_weights, needed_population
from fastslow.runs.owner import check_trusted, is_own, leave_mark
from fastslow.runs.reader import Run
from fastslow.text import printable, shown
from fastslow.types import Prompt

GENERATION = "generation_config.json"
LONGEST_NAME = 200
"""Bytes of a component's name: those of a file's name are limited as well."""


def export(
    run: str | Path,
    output: str | Path,
    *,
    weights: str = "latest",
    trust_code: bool = False,
    merge: bool = False,
    gguf: bool = False,
    base_model: str | None = None,
    license: str | None = None,
    push: str | None = None,
    public: bool = False,
) -> Path:
    """Write the deployable directory of a run; the path of it. `weights`: `latest` or `step_N`.

    `merge`: an adapter is merged into its base. `gguf`: beside the weights, `model.gguf` for llama.cpp. `base_model`:
    the hub's name of the base, where the run knows it by a path. `license`: a licence's identifier for the model card.
    `push`: a repository, OWNER/NAME, that gets the directory; `public`: one that is made for it is.

    Of a distilled run the task is asked for its seed prompt, and merging loads the base: `trust_code` says that the
    code of a task or a model may run that another user's run names. Nothing else imports code that a config names.
    Raises: ConfigError where there is no run, no such checkpoint, or something in `output` already; where the
    checkpoint is not whole or holds links, or a prompt has a component whose name is no name of a file. FastslowError
    where a converter or a hub fails.
    """
    read, output = Run(run), Path(output)
    config = read.config
    _check_output(output)
    source = find_weights(read, weights)
    step, population = step_of(source), needed_population(read)
    _check_files(source)
    check_whole(read, source, config.engine)
    _generation_config(source)
    settings = adapter_settings(source)
    converter = _checked_forms(settings, merge=merge, gguf=gguf, push=push)
    bare = find_method(config.method).answers_under_seed_prompt
    if bare or (merge and config.model.trust_remote_code):
        check_trusted(read.path, config, trust_code=trust_code)
    best = best_prompt(config, population)
    _check_names(best)
    base = base_model or _base(config, settings)
    adapter = settings if not merge else None
    by_kind = {} if bare else read.by_kind
    output.mkdir(parents=True, exist_ok=True)
    _write_weights(config, source, output, settings, merge=merge, base_model=base_model)
    _write_prompts(output, best, population, by_kind)
    _write_generation_config(output, config)
    write_record(output, ExportRecord(_used(config, adapter is not None), step, best, tuple(population), by_kind))
    if is_own(read.path):
        leave_mark(output)
    rank = None if adapter is None else adapter_rank(adapter)
    about = Card(output.name, config, best, read.curve, step, base, rank, merge, license, GGUF if gguf else None)
    write_atomically(output / "README.md", render(about))
    if converter is not None:
        write_gguf(converter, output)
    if push is not None:
        push_directory(output, push, public=public, message=f"fastslow: weights after {step} steps, and their prompt")
    return output


def _base(config: Config, settings: Mapping[str, Any] | None) -> str:
    """What the weights are served with: an adapter's base, or the model; of a model given as an object its class."""
    name = str((settings or {}).get("base_model_name_or_path") or config.model.name)
    return named(name) if is_placeholder(name) else name


def _check_output(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output: {str(output)!r} is there already and not empty: choose another directory")


def _write_weights(
    config: Config,
    source: Path,
    output: Path,
    settings: Mapping[str, Any] | None,
    *,
    merge: bool,
    base_model: str | None,
) -> None:
    """The checkpoint without what only a resumed run needs; its adapter merged, or with another name of its base."""
    left_out = [RESUME, SUMS, *(ADAPTER_FILES if merge else ())]
    shutil.copytree(source, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*left_out))
    if merge:
        merge_adapter(config, source, output)
    elif settings is not None and base_model is not None:
        changed = {**settings, "base_model_name_or_path": base_model, "revision": None}
        write_atomically(output / ADAPTER, json.dumps(changed, indent=2) + "\n")


def _checked_forms(settings: Mapping[str, Any] | None, *, merge: bool, gguf: bool, push: str | None) -> Path | None:
    """The converter, where one is needed. Raises ConfigError for what cannot be had, before anything is written."""
    if merge and settings is None:
        raise ConfigError("--merge: the run trained the model itself, and has no adapter: leave it out")
    if gguf and settings is not None and not merge:
        raise ConfigError("--gguf: the run trained an adapter, and the file holds a whole model: give --merge as well")
    if push is not None:
        check_push(push)
    return find_converter() if gguf else None


def _used(config: Config, lora: bool) -> Config:
    """The config that the exported weights are used with: on this machine, with an adapter or without."""
    engine = {"engine": "local", "tinker": None} if config.engine == "tinker" else {}
    model = config.model if lora else config.model.model_copy(update={"lora": None})
    return config.model_copy(update={**engine, "model": model})


def _check_files(source: Path) -> None:
    """Raises ConfigError where something below the run is no plain file:
    a link would bring what lies elsewhere into the export.
    """
    for path in [source.parent, source, *source.rglob("*")]:
        kind = path.lstat().st_mode
        if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            what = "a symbolic link" if stat.S_ISLNK(kind) else "no plain file"
            raise ConfigError(
                f"{printable(str(path))!r} is {what}: only plain files are exported. Put the file itself in its place"
            )


def _check_names(prompt: Prompt) -> None:
    for name in prompt.as_dict():
        if not re.fullmatch(r"\w[\w .:-]*", name) or len(name.encode()) > LONGEST_NAME:
            raise ConfigError(
                f"the prompt's component {shown(name)} cannot be the name of a file: letters, digits, '_', '-', '.' "
                f"and ':' can, up to {LONGEST_NAME} bytes of them"
            )


def _prompt_files(prompt: Prompt) -> dict[str, str]:
    """The name of a file for each component. Not all file systems take the colon of `tool:<name>`, or tell A from a."""
    files = dict[str, str]()
    taken = set[str]()
    for name in prompt.as_dict():
        stem = name.replace(":", "_")
        numbers = (f"prompt_{stem}{f'.{number}' if number else ''}.txt" for number in itertools.count())
        files[name] = next(file for file in numbers if file.casefold() not in taken)
        taken.add(files[name].casefold())
    return files if len(files) > 1 else dict.fromkeys(files, "prompt.txt")


def _write_prompts(output: Path, best: Prompt, population: list[Prompt], by_kind: Mapping[str, str]) -> None:
    """The best prompt as text (of several components as one file each) and the population as JSON, best first.

    `by_kind` maps kinds of problems to the hash of the best member for each; empty where there is one kind.
    """
    files = _prompt_files(best)
    for name, text in best.components:
        write_atomically(output / files[name], text)
    members = [
        {"hash": prompt.hash, "components": prompt.as_dict()}
        | ({"best_for": [kind for kind, hash_ in by_kind.items() if hash_ == prompt.hash]} if by_kind else {})
        for prompt in dict.fromkeys(population)
    ]
    write_atomically(output / "prompts.json", json.dumps(members, indent=2, ensure_ascii=False) + "\n")


def _write_generation_config(output: Path, config: Config) -> None:
    """Completions are drawn as the run's evaluations drew them, unless the caller asks for something else.

    The longest completion of training is no part of it: servers would take it as a limit of every request.
    """
    known = _generation_config(output)
    sampling = config.evaluation
    drawn: dict[str, Any] = {"do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        drawn |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    write_atomically(output / GENERATION, json.dumps(known | drawn, indent=2) + "\n")


def _generation_config(directory: Path) -> dict[str, Any]:
    """What lies there already. Raises ConfigError where it is broken."""
    found = read_record(directory / GENERATION)
    if not isinstance(found, dict):
        raise ConfigError(f"{printable(str(directory / GENERATION))!r} is broken: it holds {type(found).__name__}")
    return found
