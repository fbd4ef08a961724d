"""What check_gpu.py measures on: random models of real shapes, their tokenizers, no network, and a card's limits."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arithmetic import Network, step_flops
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config
from workload import CASES, Workload

from fastslow.slow.local import loading

# Qwen3's own shapes (arXiv 2505.09388, table 1, and the models' configs).
SHAPES: dict[str, dict[str, Any]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
           "tie_word_embeddings": False},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 2048, "initializer_range": 0.3,
             "max_position_embeddings": 2048},
}  # fmt: skip
SHARED = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True,
          "max_position_embeddings": 40_960}  # fmt: skip
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def letters() -> Tokenizer:
    """One token a printable ASCII character: any text goes in and comes out."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<|pad|>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL, initial_alphabet=alphabet, vocab_size=len(SPECIAL) + len(alphabet)
    )
    tokenizer.train_from_iterator(["".join(alphabet)], trainer)
    return tokenizer


def words(workloads: Sequence[Workload]) -> Tokenizer:
    """A token a word or sign of the workloads' messages: their contexts are about as long as with a real vocabulary."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<|pad|>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = (message["content"] for w in workloads for messages in w.messages_R() for message in messages)
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=SPECIAL, vocab_size=2048))
    return tokenizer


def write_shape(directory: Path, shape: str, tokenizer: Tokenizer, **changes: Any) -> Path:
    """Config and tokenizer of a model of this shape, without any weights."""
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")  # noqa: S106
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)
    ids = {"pad_token_id": fast.pad_token_id, "eos_token_id": fast.eos_token_id, "bos_token_id": None}
    Qwen3Config(**{**SHARED, **SHAPES[shape], **ids, **changes}, architectures=["Qwen3ForCausalLM"]).save_pretrained(
        directory
    )
    return directory


def random_model(directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Random weights of the directory's shape, made on the device."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(directory)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


@contextlib.contextmanager
def weights_from_nowhere() -> Iterator[None]:
    """Inside, the local engine makes random weights where it would read a file: 16 GB need not go to disk and back."""
    real = loading.load_model

    def load(config: Any, device: torch.device, dtype: torch.dtype, *, merge_adapter: bool = True) -> Any:
        return random_model(Path(config.name), device, dtype)

    loading.load_model = load  # type: ignore[assignment]
    try:
        yield
    finally:
        loading.load_model = real


# -- the clock and the limits ------------------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Timed:
    """What a call gave, its seconds, and the most GiB of the device that were in use meanwhile (None on a CPU)."""

    value: Any
    seconds: float
    peak_gib: float | None


def timed(device: torch.device, call: Callable[[], Any]) -> Timed:
    """Do it, and wait for it."""
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    value = call()
    wait(device)
    seconds = time.perf_counter() - started
    return Timed(value, seconds, torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None)


def best_of(device: torch.device, rounds: int, call: Callable[[], Any]) -> float:
    """Seconds of the fastest of `rounds` calls, after one that does not count."""
    call()
    return min(timed(device, call).seconds for _ in range(rounds))


@dataclass(frozen=True)
class Rates:
    """What a device reaches: FLOP/s of a large matrix product, and bytes/s read and written by a copy."""

    flops: float
    bytes: float


@torch.inference_mode()
def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """By a product of two square matrices and by a copy."""
    size, length = (8192, 2**30) if device.type == "cuda" else (256, 2**22)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = best_of(device, 5, lambda: a @ b)
    source = torch.zeros(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Rates(2 * size**3 / product, 2 * length / best_of(device, 5, lambda: target.copy_(source)))


@dataclass(frozen=True)
class Limits:
    """The least time that a step can take: arithmetic at the rate of a large product, or bytes at the rate of a copy.

    Sampling reads all weights once a token, each prefix once for all rows under it, and each row's own keys; training
    is three forward passes of arithmetic. Nothing else counts, so nothing reaches it.
    """

    network: Network
    config: Any
    rates: Rates
    bytes_a_number: int

    def sampling_s(self, contexts_R: Sequence[Sequence[int]], new_tokens: int) -> float:
        """Seconds to sample `new_tokens` after each context."""
        flops = step_flops(self.network, contexts_R, new_tokens, shared=True) / 4
        rows, prefixes = len(contexts_R), {tuple(context) for context in contexts_R}
        decoding = [
            self.network.forward_flops([len(context) + step for context in contexts_R], rows)
            for step in range(new_tokens - 1)
        ]
        weights = (self.network.linear_weights + self.network.head_weights) * self.bytes_a_number
        shared = _shared_nodes(prefixes) * self._bytes_a_token()
        reads = [weights + shared + rows * (step + 1) * self._bytes_a_token() for step in range(new_tokens - 1)]
        prefill = max((flops - sum(decoding)) / self.rates.flops, weights / self.rates.bytes)
        return prefill + sum(
            max(f / self.rates.flops, b / self.rates.bytes) for f, b in zip(decoding, reads, strict=True)
        )

    def training_s(self, contexts_R: Sequence[Sequence[int]], new_tokens: int) -> float:
        """Seconds of one update on them."""
        return step_flops(self.network, contexts_R, new_tokens, shared=True) * 3 / 4 / self.rates.flops

    def _bytes_a_token(self) -> int:
        config = self.config
        return 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers * self.bytes_a_number


def limits_of(directory: Path, rates: Rates, dtype: torch.dtype) -> Limits:
    """Of a model's shape on a device."""
    return Limits(Network(str(directory)), AutoConfig.from_pretrained(directory), rates, dtype.itemsize)


def _shared_nodes(contexts: set[tuple[int, ...]]) -> int:
    """Nodes of the trie of all contexts."""
    nodes, previous = 0, ()
    for context in sorted(contexts):
        common = next((i for i, (x, y) in enumerate(zip(context, previous, strict=False)) if x != y), None)
        nodes += len(context) - (min(len(context), len(previous)) if common is None else common)
        previous = context
    return nodes


def workloads(tiny: bool) -> dict[str, Workload]:
    """Case a, short prompts, and b, long ones."""
    size = (2, 2, 3) if tiny else (8, 8, 128)
    return {case: Workload(case, size[0], size[1], size[1] if case == "b" else 1, size[2]) for case in CASES}
