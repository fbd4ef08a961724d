"""Peak memory of one update on long completions over a large vocabulary: fastslow's local engine against TRL.

    python benchmarks/memory_vs_trl.py --trl-python .venv-trl/bin/python
    python benchmarks/memory_vs_trl.py --report

Each measurement is a process of its own: it builds the same random model, draws two completions of a fixed length,
makes one update on them (cispo, no KL, AdamW on every parameter, float32) and says its peak resident memory. TRL is
given its completions in place of its sampler's, so that neither side samples and both peaks are those of the update.
Each result is written as it ends; a process that the system ends for its memory is a result as well.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workload import MARK, reward, tell

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "memory_vs_trl.json"
DOCUMENT = HERE.parent / "docs" / "performance.md"
BEGIN, END = (
    "<!-- memory_vs_trl: begin, made by benchmarks/memory_vs_trl.py --report -->",
    "<!-- memory_vs_trl: end -->",
)
SIDES = {
    "trl": "TRL",
    "trl_checkpointing": "TRL, checkpointing",
    "fastslow": "fastslow",
    "fastslow_checkpointing": "fastslow, checkpointing",
}
SHAPE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
GROUP, CONTEXT = 2, 16
GIB = 2**30


def main() -> None:
    options = parse_options()
    if options.worker:
        work(json.loads(options.worker))
        return
    if not options.report:
        for tokens in options.tokens:
            for side in options.sides:
                measure(options, side, tokens)
    print(write_report(options.results, write=options.results == RESULTS))


def measure(options: argparse.Namespace, side: str, tokens: int) -> None:
    """One process; its record goes into the results file."""
    settings = {"side": side, "tokens": tokens, "layers": options.layers, "vocabulary": options.vocabulary}
    python = options.trl_python if side.startswith("trl") else sys.executable
    # Both sides keep freed memory or both do not: here neither TRL's process nor ours is told anything by the environment.
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    command = [python, str(HERE / "memory_vs_trl.py"), "--worker", json.dumps(settings)]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    events = [json.loads(line.removeprefix(MARK)) for line in ended.stdout.splitlines() if line.startswith(MARK)]
    record: dict[str, Any] = {**settings, "status": ended.returncode}
    for event in events:
        record[f"{event.pop('event')}"] = event
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    results[f"{options.layers}/{options.vocabulary}/{tokens}/{side}"] = record
    options.results.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.results.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, options.results)
    print(f"{side} at {tokens} tokens: {_peak(record)}", flush=True)


# -- a process ---------------------------------------------------------------------------------------------------------


def work(settings: dict[str, Any]) -> None:
    """Build the model, update once, tell the peaks before and after."""
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), settings)
        run = trl_update if settings["side"].startswith("trl") else fastslow_update
        run(directory, settings)


def write_model(directory: Path, settings: dict[str, Any]) -> None:
    """A random Qwen2 and a tokenizer of the same vocabulary in which each word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = {f"t{index}": index for index in range(settings["vocabulary"])}
    tokenizer = Tokenizer(models.WordLevel(words, "t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "t1", "pad_token": "t1", "unk_token": "t0"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)
    torch.manual_seed(0)
    longest = settings["tokens"] + CONTEXT
    config = Qwen2Config(
        vocab_size=settings["vocabulary"],
        num_hidden_layers=settings["layers"],
        max_position_embeddings=longest,
        eos_token_id=1,
        pad_token_id=1,
        bos_token_id=None,
        **SHAPE,
    )
    Qwen2ForCausalLM(config).save_pretrained(directory)


def context() -> list[int]:
    return list(range(100, 100 + CONTEXT))


def completions(settings: dict[str, Any]) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(2, settings["vocabulary"]) for _ in range(settings["tokens"])] for _ in range(GROUP)]


def fastslow_update(directory: str, settings: dict[str, Any]) -> None:
    from fastslow.slow.engine import Datum, LossSettings, TokenSequence
    from fastslow.slow.local.engine import LocalEngine
    from fastslow.slow.settings import ModelConfig, SlowConfig

    slow = SlowConfig(activation_checkpointing=settings["side"].endswith("checkpointing"))
    engine = LocalEngine(ModelConfig(name=directory, device="cpu"), slow)
    drawn = completions(settings)
    old = engine.logprobs([TokenSequence(tuple(context()), tuple(tokens)) for tokens in drawn])
    datums = [
        Datum(tuple(context()), tuple(tokens), tuple(values), 1.0 - 2 * index, 1 / (GROUP * len(tokens)))
        for index, (tokens, values) in enumerate(zip(drawn, old, strict=True))
    ]
    tell(event="ready")
    started = time.perf_counter()
    metrics = engine.train_step(datums, LossSettings("cispo", tau=4.0, kl_coefficient=0.0), 1e-6)
    tell(event="step", wall_s=time.perf_counter() - started, tokens=metrics.tokens, grad_norm=metrics.grad_norm)


def trl_update(directory: str, settings: dict[str, Any]) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    drawn = completions(settings)

    class Given(GRPOTrainer):
        """GRPOTrainer whose completions are given: private parts of TRL 1.16."""

        def _generate_single_turn(self, *given: Any, **unused: Any) -> Any:
            return drawn, None

    checkpointing = settings["side"].endswith("checkpointing")
    config = GRPOConfig(
        output_dir=directory,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=GROUP,
        num_generations=GROUP,
        max_completion_length=settings["tokens"],
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        loss_type="cispo",
        epsilon_high=4.0,
        beta=0.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Given(
        model=AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
        reward_funcs=lambda completion_ids, **unused: [reward(tokens) for tokens in completion_ids],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": " ".join(f"t{token}" for token in context())}] * GROUP),
        processing_class=AutoTokenizer.from_pretrained(directory, padding_side="left"),
    )
    tell(event="ready")
    started = time.perf_counter()
    trainer.train()
    logged = trainer.state.log_history
    norm = next((entry["grad_norm"] for entry in logged if "grad_norm" in entry), None)
    tell(event="step", wall_s=time.perf_counter() - started, grad_norm=norm)


# -- the table ---------------------------------------------------------------------------------------------------------


def write_report(results: Path, *, write: bool) -> str:
    """The table; where it is that of the repository, it goes into docs/performance.md."""
    records = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    lengths = sorted({(r["layers"], r["vocabulary"], r["tokens"]) for r in records.values()})
    lines = [
        "| layers | vocabulary | completion tokens | " + " | ".join(f"{name}, GiB" for name in SIDES.values()) + " |",
        "| --- | --- | --- |" + " --- |" * len(SIDES),
    ]
    for layers, vocabulary, tokens in lengths:
        found = [records.get(f"{layers}/{vocabulary}/{tokens}/{side}") for side in SIDES]
        cells = ["-" if record is None else _peak(record) for record in found]
        lines.append(f"| {layers} | {vocabulary} | {tokens} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    if write:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    return table


def _peak(record: dict[str, Any]) -> str:
    if "step" in record:
        return f"{record['step']['peak_rss_bytes'] / GIB:.2f}"
    return "out of memory" if record["status"] == -9 else f"failed ({record['status']})"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the table from the results")
    parser.add_argument("--trl-python", default=".venv-trl/bin/python", help="python of TRL's environment")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--tokens", nargs="+", type=int, default=[2048, 8192], help="of each of the two completions")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
