"""Pretrain the lab's model from nothing: a Llama of 1.8 M parameters that follows rules stated in its system prompt.

Two stages: rules as stated (`corpus.py`), then habits as well. A row holds one system prompt and several questions
under it; each question attends to the prompt and to itself alone, so that the prompt is computed once. Only answers are
learnt. The result is an ordinary Hugging Face directory.
"""

import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fastslow.lab.corpus import TEMPLATE, Text, draw_text, make_tokenizer
from fastslow.lab.muon import Muon
from fastslow.seeding import derive_seed
from fastslow.slow.local.cpu_memory import keep_freed_memory

IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on. `turns` questions a system prompt; `rows` prompts a step.

    The learning rate of the first stage goes down in a line that would reach `final_share` at `stated_horizon`; that of
    the second goes from `habit_share` down to `final_share`.
    """

    width: int = 192
    layers: int = 4
    heads: int = 6
    inner: int = 512
    rows: int = 32
    turns: int = 4
    stated_steps: int = 2560
    stated_horizon: int = 2960
    habit_steps: int = 500
    habit_share: float = 0.5
    learning_rate: float = 3e-3
    muon_learning_rate: float = 0.03
    warmup_steps: int = 100
    final_share: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        """All steps of the recipe, from the first to the last phase."""
        return self.stated_steps + self.habit_steps


@dataclass(frozen=True)
class Batch:
    """Rows of a system prompt and its questions: ids, positions, labels (R, T); mask (R, 1, T, T), true where seen."""

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor


Progress = Callable[[int, float, float], None]
"""Called with the step, its loss in nats a token, and seconds since the start."""


def pretrain(recipe: Recipe, directory: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Train, and write the model, tokenizer and chat template. Weights are float16 on disk. Returns what it came to."""
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer()
    model = LlamaForCausalLM(model_config(recipe, tokenizer))
    optimisers = make_optimisers(model, recipe)
    started, losses, tokens = time.monotonic(), [], 0
    for step, batch in enumerate(batches(recipe, tokenizer), start=1):
        losses.append(train_step(model, optimisers, batch, schedule(recipe, step)))
        tokens += int((batch.ids != tokenizer.pad_token_id).sum())
        if progress is not None:
            progress(step, losses[-1], time.monotonic() - started)
    save(model, tokenizer, directory)
    last = losses[-100:]
    return {
        "seconds": round(time.monotonic() - started),
        "loss": round(sum(last) / len(last), 4),
        "tokens": tokens,
        "examples": recipe.steps * recipe.rows * recipe.turns,
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "machine": f"{torch.get_num_threads()} threads of {platform.machine()}, "
        f"torch {torch.__version__.split('+')[0]}",
    }


def model_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A plain Llama with tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_optimisers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in name)]
    return [
        Muon(matrices, lr=recipe.muon_learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(recipe: Recipe, step: int) -> float:
    """The share of the learning rate at a step, counted from 1: warm-up, a line down, then the second stage's line."""
    final = recipe.final_share
    if step > recipe.stated_steps:
        return final + (recipe.habit_share - final) * (1 - (step - recipe.stated_steps) / recipe.habit_steps)
    if step <= recipe.warmup_steps:
        return step / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.stated_horizon - recipe.warmup_steps)
    return 1.0 - (1.0 - final) * done


def train_step(model: Any, optimisers: Sequence[torch.optim.Optimizer], batch: Batch, share: float) -> float:
    """One update; the mean loss over answer tokens."""
    given = {"input_ids": batch.ids, "position_ids": batch.positions, "attention_mask": batch.mask}
    hidden = model.model(**given, use_cache=False).last_hidden_state
    learnt = batch.labels[:, 1:] != IGNORED
    # Each label is predicted at the position in front of it; the first of an answer at the end of its question.
    logits = model.lm_head(hidden[:, :-1][learnt])
    loss = torch.nn.functional.cross_entropy(logits, batch.labels[:, 1:][learnt])
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * share
        optimiser.step()
        optimiser.zero_grad()
    return float(loss.detach())


# -- batches -----------------------------------------------------------------------------------------------------------

POOL = 16
"""Steps whose rows are sorted by length together, so that little is padded."""


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """The batches of both stages, drawn from the seed."""
    for stage, count in enumerate((recipe.stated_steps, recipe.habit_steps)):
        for first in range(0, count, POOL):
            size = min(POOL, count - first)
            rng = random.Random(derive_seed(recipe.seed + stage, "pool", first))
            texts = [draw_text(rng, recipe.turns, habits=stage == 1) for _ in range(recipe.rows * size)]
            rows = sorted(encode(texts, tokenizer), key=lambda row: sum(map(len, row[1:])) + len(row[0]))
            chunks = [rows[i * recipe.rows : (i + 1) * recipe.rows] for i in range(size)]
            rng.shuffle(chunks)
            for chunk in chunks:
                yield collate(chunk, tokenizer)


Row = list[list[int]]
"""Tokens of the system prompt, then of each question and each answer in turn."""


def encode(texts: Sequence[Text], tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """Token ids of texts, in the pieces that the chat template puts together."""
    pieces = []
    for text in texts:
        pieces.append(f"<|system|>{text.system}<|end|>")
        for asked, answered in text.turns:
            pieces += [f"<|user|>{asked}<|end|><|assistant|>", f"{answered}<|end|>"]
    encoded = iter(tokenizer(pieces, add_special_tokens=False)["input_ids"])
    return [[next(encoded) for _ in range(1 + 2 * len(text.turns))] for text in texts]


def collate(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """One batch: questions share the prompt's tokens and do not see each other."""
    width = max(sum(map(len, row)) for row in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), IGNORED)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    branch = torch.full((len(rows), width), -1)
    for index, (system, *turns) in enumerate(rows):
        end = len(system)
        ids[index, :end] = torch.tensor(system)
        positions[index, :end] = torch.arange(end)
        branch[index, :end] = 0
        for number, (asked, answered) in enumerate(zip(turns[::2], turns[1::2], strict=True), start=1):
            start, middle, end = end, end + len(asked), end + len(asked) + len(answered)
            ids[index, start:end] = torch.tensor([*asked, *answered])
            labels[index, middle:end] = torch.tensor(answered)
            positions[index, start:end] = torch.arange(len(system), len(system) + end - start)
            branch[index, start:end] = number
    same = branch.unsqueeze(2) == branch.unsqueeze(1)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    mask = (same | (branch == 0).unsqueeze(1)) & causal
    return Batch(ids, positions, labels, mask.unsqueeze(1))


def save(model: Any, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """An ordinary Hugging Face directory, weights in float16."""
    directory.mkdir(parents=True, exist_ok=True)
    model.eval().to(torch.float16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    os.sync()
