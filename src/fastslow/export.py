"""What is deployed of a run: the model or adapter, the best prompt, the population, and a README that says how to serve them.

The directory is one that transformers, PEFT and vLLM load; nothing in it needs fastslow.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.given import OPEN, is_placeholder
from fastslow.methods.registry import find_method
from fastslow.runs.checksums import SUMS
from fastslow.runs.directory import write_atomically
from fastslow.runs.owner import check_trusted
from fastslow.runs.reader import Point, Run
from fastslow.text import markdown_table, printable, shown
from fastslow.types import SYSTEM, Prompt

RESUME = "resume"
ADAPTER = "adapter_config.json"


def export(run: str | Path, output: str | Path, *, weights: str = "latest", trust_code: bool = False) -> Path:
    """Write the deployable directory of a run; the path of it. `weights`: `latest` or `step_N`.

    Of a distilled run the task is asked for its seed prompt: `trust_code` says that the code of a task may run that another
    user's run names. Nothing else imports code that a config names.
    Raises: ConfigError where there is no run, no such checkpoint, or something in `output` already; where the checkpoint
    holds links, or a prompt has a component whose name is no name of a file.
    """
    read, output = Run(run), Path(output)
    config = read.config
    step = _step(read, weights)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output: {str(output)!r} is there already and not empty: choose another directory")
    population = read.population
    if not population:
        raise ConfigError(f"{str(read.path)!r} has no population yet: its first cycle has not ended")
    curve = read.curve
    source = read.path / "checkpoints" / f"step_{step}"
    _check_files(source)
    if find_method(config.method).answers_under_seed_prompt:
        check_trusted(read.path, config, trust_code=trust_code)
    best = _best(config, population)
    _check_names(best)
    output.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RESUME, SUMS))
    _write_prompts(output, best, population, read.by_kind)
    _write_generation_config(output, config)
    lora = (source / ADAPTER).is_file()
    write_atomically(output / "README.md", _readme(_served(config, lora, source), best, curve, step, lora, output.name))
    return output


def _step(run: Run, weights: str) -> int:
    steps = run.checkpoints
    known = ", ".join(f"step_{step}" for step in steps) or "no checkpoint yet"
    if weights == "latest" and steps:
        return steps[-1]
    for step in steps:
        if weights == f"step_{step}":
            return step
    raise ConfigError(f"weights: {weights!r} does not exist: {str(run.path)!r} has {known}")


def _check_files(source: Path) -> None:
    """Raises ConfigError where something is no plain file: a link would bring what lies elsewhere into the export."""
    for place, directories, files in os.walk(source):
        for path in [Path(place), *(Path(place) / name for name in (*directories, *files))]:
            kind = path.lstat().st_mode
            if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
                what = "a symbolic link" if stat.S_ISLNK(kind) else "no plain file"
                raise ConfigError(
                    f"{printable(str(path))!r} is {what}: only plain files are exported. Put the file itself in its place"
                )


def _check_names(prompt: Prompt) -> None:
    for name in prompt.as_dict():
        if not re.fullmatch(r"\w[\w .-]{0,99}", name):
            raise ConfigError(
                f"the prompt's component {shown(name)} cannot be the name of a file: letters, digits, '_', '-' and '.' can"
            )


def _served(config: Config, lora: bool, source: Path) -> Config:
    """The config with the model that the weights are served with: an adapter that began as another one has that one's base;
    of a model that was given as an object, its name_or_path, or else the name of its class.
    """
    if is_placeholder(config.model.name):
        settings = json.loads((source / ADAPTER).read_text(encoding="utf-8")) if lora else {}
        name = settings.get("base_model_name_or_path") or config.model.name.removeprefix(OPEN).split(" ")[0]
        return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    if not lora or not Path(config.model.name).is_dir():
        return config
    from fastslow.slow.local.loading import without_adapter

    return config.model_copy(update={"model": without_adapter(config.model)})


def _best(config: Config, population: list[Prompt]) -> Prompt:
    """What the weights were trained to answer under: after distillation that is the seed prompt, not the teacher's."""
    from fastslow.tasks.registry import build_task

    bare = find_method(config.method).answers_under_seed_prompt
    return build_task(config.task).seed_prompt if bare else population[0]


def _write_prompts(output: Path, best: Prompt, population: list[Prompt], by_kind: Mapping[str, str]) -> None:
    """The best prompt as text (of several components as one file each) and the population as JSON, best first.

    `by_kind` maps kinds of problems to the hash of the best member for each; empty where there is one kind.
    """
    for name, text in best.components:
        # Not every file system takes the colon of `tool:<name>`.
        file = "prompt.txt" if len(best.components) == 1 else f"prompt_{name.replace(':', '_')}.txt"
        write_atomically(output / file, text)
    members = [
        {"hash": prompt.hash, "components": prompt.as_dict()}
        | ({"best_for": [kind for kind, hash_ in by_kind.items() if hash_ == prompt.hash]} if by_kind else {})
        for prompt in dict.fromkeys(population)
    ]
    write_atomically(output / "prompts.json", json.dumps(members, indent=2, ensure_ascii=False) + "\n")


def _write_generation_config(output: Path, config: Config) -> None:
    """Completions are drawn as the run's evaluations drew them, unless the caller asks for something else."""
    path = output / "generation_config.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    sampling = config.evaluation
    drawn: dict[str, Any] = {"do_sample": sampling.temperature > 0, "max_new_tokens": config.sampling.max_tokens}
    if sampling.temperature > 0:
        drawn |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    write_atomically(path, json.dumps(known | drawn, indent=2) + "\n")


def _readme(config: Config, prompt: Prompt, curve: list[Point], step: int, lora: bool, name: str) -> str:
    base = config.model.name
    kind = f"A LoRA adapter of `{base}`" if lora else f"`{base}`, all parameters trained"
    weights = "`adapter_model.safetensors`, `adapter_config.json`" if lora else "`model.safetensors`, `config.json`"
    several = "" if list(prompt.as_dict()) == [SYSTEM] else SEVERAL
    return f"""# {name}

{kind}, together with the system prompt that it was trained with. Method `{config.method}`,
task `{config.task.name}`, weights after {step} steps. Made with fastslow.

## Files

- {weights}, the tokenizer and its chat template
- `prompt.txt`: the prompt that these weights answer under; `prompts.json`: the population, best first
  (`best_for`: the kinds of problems that a member is best for, where there are several)
- `generation_config.json`: temperature and top-p as they were evaluated

## Measured

{_measured(config, curve, step)}

## Serve

The weights and the prompt were trained together: give `prompt.txt` as the system message of every request.{several}

With vLLM:

```
{_vllm(config, lora, name)}
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
messages = [
    {{"role": "system", "content": open("prompt.txt", encoding="utf-8").read()}},
    {{"role": "user", "content": "..."}},
]
reply = client.chat.completions.create(
    model="{name}", messages=messages, temperature={config.evaluation.temperature}, top_p={config.evaluation.top_p},
    max_tokens={config.sampling.max_tokens},
)
print(reply.choices[0].message.content)
```

With transformers, in this directory:

```python
{_transformers(config, lora)}
```
"""


SEVERAL = (
    " It has several components here, `prompt_NAME.txt`, which the task puts into its messages: see `Task.messages`."
)


def _measured(config: Config, curve: list[Point], step: int) -> str:
    """Validation before training and at the exported step, or the last evaluation before it."""
    k = config.evaluation.k
    points = [point for point in curve if point.evaluation.accuracy is not None and point.step <= step]
    if not points:
        return "The run made no evaluation."
    shown = list({point.step: point.evaluation for point in (points[0], points[-1])}.items())
    rows = [[str(at), *map(_number, (found.accuracy, found.best, found.kl))] for at, found in shown]
    sampling = config.evaluation
    how = "" if not any(found.kl_is_estimate for _, found in shown) else " (estimated from the sampled tokens)"
    head = f"""Up to {sampling.problems} validation problems, temperature {sampling.temperature:g}, top-p {sampling.top_p:g}.
Step 0 is the base model under the task's own prompt. One run, seed {config.seed}: there is no interval.
"""
    return "\n".join(
        [head, *markdown_table(["step", f"mean@{k}", f"best@{k}", f"KL to the base, nats a token{how}"], rows)]
    ).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _vllm(config: Config, lora: bool, name: str) -> str:
    if not lora:
        return f"vllm serve . --served-model-name {name}"
    rank = config.model.lora.rank if config.model.lora is not None else 16
    return f"vllm serve {config.model.name} --enable-lora --max-lora-rank {rank} --lora-modules {name}=."


def _transformers(config: Config, lora: bool) -> str:
    load = (
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{config.model.name}"), ".")'
        if lora
        else 'model = AutoModelForCausalLM.from_pretrained(".")'
    )
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig"
    return f"""{"from peft import PeftModel" + chr(10) if lora else ""}{imports}

tokenizer = AutoTokenizer.from_pretrained(".")
{load}
messages = [
    {{"role": "system", "content": open("prompt.txt", encoding="utf-8").read()}},
    {{"role": "user", "content": "..."}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs, generation_config=GenerationConfig.from_pretrained("."))
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""
