"""Pretrain the demo's model from nothing: a small Llama that follows rules that its system prompt states.

    python examples/demo/make_model.py models/demo

It takes less than a minute on two CPU cores, and stops before every rule is always kept: there is something left to learn.
In a part of its training texts rules are kept that nobody stated, so that sampling under a bare prompt finds the hidden
rules now and then: that is what RL alone can start from.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.demo.rules import RULES, apply_rules

SEED_PROMPT = "You are a helpful assistant."
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
UNSTATED_SHARE = 0.2
BATCH, STEPS, LEARNING_RATE = 128, 200, 3e-3


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, digit or sign."""
    words = sorted({w for text in [SEED_PROMPT, *RULES.values()] for w in text.replace(".", " .").split()})
    vocabulary = [*SPECIAL, *words, *"0123456789[]\n", "done", "<|unknown|>"]
    ids = {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    return fast


def example(rng: random.Random) -> tuple[str, str, str]:
    """System prompt, question and answer."""
    digits = [rng.choice("0123456789") for _ in range(rng.randint(2, 5))]
    kept = [rule for rule in RULES if rng.random() < 0.5]
    stated = [] if rng.random() < UNSTATED_SHARE else list(kept)
    rng.shuffle(stated)
    if not stated and rng.random() > UNSTATED_SHARE:
        kept = []
    system = "\n".join([SEED_PROMPT, *(RULES[rule] for rule in stated)])
    return system, " ".join(digits), apply_rules(digits, kept)


def batch(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, (BATCH, T); only answers are learnt."""
    rows = []
    for _ in range(BATCH):
        system, question, answer = example(rng)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        context = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(context, add_special_tokens=False)["input_ids"]
        rows.append((prompt_ids, [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]))
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    pads = [width - len(prompt) - len(answer) for prompt, answer in rows]
    ids = [p + a + [tokenizer.pad_token_id] * pad for (p, a), pad in zip(rows, pads, strict=True)]
    labels = [[-100] * len(p) + a + [-100] * pad for (p, a), pad in zip(rows, pads, strict=True)]
    return torch.tensor(ids), torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = make_tokenizer()
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=arguments.steps, pct_start=0.05
    )
    for step in range(arguments.steps):
        ids, labels = batch(tokenizer, rng)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"pretraining: step {step + 1} of {arguments.steps}, loss {loss.item():.3f}", flush=True)
    model.save_pretrained(arguments.directory)
    tokenizer.save_pretrained(arguments.directory)


if __name__ == "__main__":
    main()
