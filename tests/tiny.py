"""A tiny real model for tests: a Llama and a character tokenizer with a chat template, made in a second or two.

It is trained for a moment to answer with a few random letters and to stop, so that completions have mixed lengths.
"""

import random
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a printable ASCII character, so that any text can be encoded and decoded."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL, initial_alphabet=alphabet, vocab_size=len(SPECIAL) + len(alphabet)
    )
    tokenizer.train_from_iterator(["".join(alphabet)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = chat_template
    return fast


def make_model_dir(
    directory: Path, *, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE, **overrides: int
) -> Path:
    """Write a random tiny model, in float32, as an ordinary Hugging Face directory."""
    tokenizer = make_tokenizer(chat_template)
    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 2048, **overrides,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, tie_word_embeddings=False, initializer_range=0.3, **settings,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    teach_to_stop(model, tokenizer, seed)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def teach_to_stop(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int = 60) -> None:
    """A moment of supervised training on random words of 1 to 8 letters, each ended by the end-of-sequence token."""
    rng = random.Random(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    header = tokenizer("<|user|>n1<|end|><|assistant|>")["input_ids"]
    for _ in range(steps):
        words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 8))) for _ in range(32)]
        answers = [[*tokenizer(word)["input_ids"], tokenizer.eos_token_id] for word in words]
        width = max(map(len, answers))
        ids = torch.tensor([header + a + [tokenizer.pad_token_id] * (width - len(a)) for a in answers])
        labels = torch.tensor([[-100] * len(header) + a + [-100] * (width - len(a)) for a in answers])
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
