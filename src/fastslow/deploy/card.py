"""The README of an export: a model card with a YAML header, what was measured, and commands that work where it goes."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastslow.config import Config
from fastslow.resources import PREFIX
from fastslow.runs.reader import Point
from fastslow.text import markdown_table
from fastslow.types import SYSTEM, Prompt

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank. Source: `MaxLoRARanks` in vllm/config/lora.py."""
SEVERAL = (
    " It has several components here, `prompt_NAME.txt`, which the task puts into its messages: see `Task.messages`."
)


@dataclass(frozen=True)
class Card:
    """What a card is about. `base` is what the weights were trained from, `rank` the adapter's, None without one;
    `merged`: an adapter was merged into the weights. `license`: a licence's identifier, None: nobody has said.
    """

    name: str
    config: Config
    prompt: Prompt
    curve: Sequence[Point]
    step: int
    base: str
    rank: int | None = None
    merged: bool = False
    license: str | None = None
    gguf: str | None = None

    @property
    def base_is_here(self) -> bool:
        """Whether the base is a file or directory of the machine that trained: nobody else can name it."""
        return self.base.startswith(PREFIX) or Path(self.base).exists() or self.base.count("/") > 1

    @property
    def shown_base(self) -> str:
        """The base's name; of one that whole weights do not need, no more of its path than that."""
        return Path(self.base).name if self.base_is_here and self.rank is None else self.base


def vllm_rank(rank: int) -> int | None:
    """The smallest `--max-lora-rank` that holds an adapter of that rank; None: vLLM has none."""
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


def render(card: Card) -> str:
    """The README."""
    config, base = card.config, card.shown_base
    adapter = f"A LoRA adapter of `{base}`"
    whole = f"`{base}` with a LoRA adapter merged into it" if card.merged else f"`{base}`, all parameters trained"
    weights = (
        "`model.safetensors`, `config.json`"
        if card.rank is None
        else "`adapter_model.safetensors`, `adapter_config.json`"
    )
    gguf = (
        "" if card.gguf is None else f"\n- `{card.gguf}`: the same weights for llama.cpp; it does not hold the prompt"
    )
    return f"""---
{_header(card)}---

# {card.name}

{whole if card.rank is None else adapter}, together with the system prompt that it was trained with. Method
`{config.method}`, task `{config.task.name}`, weights after {card.step} steps. Made with fastslow.
{_about_base(card)}
## Files

- {weights}, the tokenizer and its chat template
- `prompt.txt`: the prompt that these weights answer under; `prompts.json`: the population, best first
  (`best_for`: the kinds of problems that a member is best for, where there are several)
- `generation_config.json`: temperature and top-p as they were evaluated
- `fastslow.json`: how `fastslow serve` uses all of these{gguf}

## Measured

{_measured(config, card.curve, card.step)}

{_serving(card)}"""


def _serving(card: Card) -> str:
    config, name = card.config, json.dumps(card.name)
    several = "" if list(card.prompt.as_dict()) == [SYSTEM] else SEVERAL
    return f"""## Serve

The weights and the prompt were trained together. `fastslow serve .` puts the prompt in by itself, the one for the
problem's kind where there are several. Elsewhere, give `prompt.txt` as the system message of every request.{several}

With vLLM:

```
{_vllm(card)}
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
messages = [
    {{"role": "system", "content": open("prompt.txt", encoding="utf-8").read()}},
    {{"role": "user", "content": "..."}},
]
reply = client.chat.completions.create(
    model={name}, messages=messages, temperature={config.evaluation.temperature},
    top_p={config.evaluation.top_p}, max_tokens={config.sampling.max_tokens},
)
print(reply.choices[0].message.content)
```

With transformers, in this directory:

```python
{_transformers(card)}
```

In training a completion had at most {config.sampling.max_tokens} tokens.
"""


def _header(card: Card) -> str:
    """The YAML that model hubs read."""
    tags = ["fastslow", "reinforcement-learning", card.config.method, *(["lora"] if card.rank is not None else [])]
    values: dict[str, Any] = {"library_name": "transformers" if card.rank is None else "peft"}
    values |= {"pipeline_tag": "text-generation", "license": card.license or "unknown", "tags": tags}
    if not card.base_is_here:
        relation = "adapter" if card.rank is not None else "finetune"
        values |= {"base_model": card.base, "base_model_relation": relation}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _about_base(card: Card) -> str:
    if not card.base_is_here:
        return ""
    where = (
        "of the Python package that trained it" if card.base.startswith(PREFIX) else "of the machine that trained it"
    )
    if card.rank is None:
        return f"\nThe model that it was trained from, `{card.shown_base}`, is a part {where}; it is not needed here.\n"
    return f"""
**The base model is not here**: `{card.base}` is a part {where}, and no hub has that name. Bring it along, and put its
place into the commands below and into `adapter_config.json` (`base_model_name_or_path`). `fastslow export
--base-model ID` writes a hub's name in its stead, and `fastslow export --merge` the whole model.
"""


def _measured(config: Config, curve: Sequence[Point], step: int) -> str:
    """Validation before training and at the exported step, or the last evaluation before it."""
    k = config.evaluation.k
    points = [point for point in curve if point.evaluation.accuracy is not None and point.step <= step]
    if not points:
        return "The run made no evaluation."
    shown = list({point.step: point.evaluation for point in (points[0], points[-1])}.items())
    rows = [[str(at), *map(_number, (found.accuracy, found.best, found.kl))] for at, found in shown]
    sampling = config.evaluation
    how = "" if not any(found.kl_is_estimate for _, found in shown) else " (estimated from the sampled tokens)"
    head = f"""\
Up to {sampling.problems} validation problems, temperature {sampling.temperature:g}, top-p {sampling.top_p:g}.
Step 0 is the base model under the task's own prompt. One run, seed {config.seed}: there is no interval.
"""
    return "\n".join(
        [head, *markdown_table(["step", f"mean@{k}", f"best@{k}", f"KL to the base, nats a token{how}"], rows)]
    ).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _vllm(card: Card) -> str:
    name = shlex.quote(card.name)
    if card.rank is None:
        return f"vllm serve . --served-model-name {name}"
    allowed = vllm_rank(card.rank)
    if allowed is None:
        return f"# vLLM takes adapters up to rank {VLLM_RANKS[-1]}, this one has {card.rank}: fastslow export --merge"
    module = shlex.quote(f"{card.name}=.")
    return f"vllm serve {shlex.quote(card.base)} --enable-lora --max-lora-rank {allowed} --lora-modules {module}"


def _transformers(card: Card) -> str:
    base = json.dumps(card.base)
    load = (
        'model = AutoModelForCausalLM.from_pretrained(".")'
        if card.rank is None
        else f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), ".")'
    )
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig"
    return f"""{"" if card.rank is None else "from peft import PeftModel" + chr(10)}{imports}

tokenizer = AutoTokenizer.from_pretrained(".")
{load}
messages = [
    {{"role": "system", "content": open("prompt.txt", encoding="utf-8").read()}},
    {{"role": "user", "content": "..."}},
]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
drawn = GenerationConfig.from_pretrained(".", max_new_tokens={card.config.sampling.max_tokens})
output = model.generate(**inputs, generation_config=drawn)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""
