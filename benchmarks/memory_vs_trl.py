"""Peak memory of one update on long completions over a large vocabulary: fastslow's local engine against TRL.

    python benchmarks/memory_vs_trl.py --trl-python .venv-trl/bin/python
    python benchmarks/memory_vs_trl.py --report

Each measurement is a process of its own: it builds the same random model, draws two completions of a fixed length,
makes one update on them (cispo, no KL, AdamW on every parameter, float32) and says its peak resident memory. TRL is
given its completions in place of its sampler's, so that neither side samples and both peaks are those of the update.
Both sides have the same contexts, completions and advantages, so the gradient has the same norm: the table says how far
the norms are apart. Each result is written as it ends. A process that outgrows `--limit-gib` is stopped, and that, or
that the system ends one for its memory, is a result as well.
"""

import argparse
import json
import os
import random
import statistics
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
# What GRPOTrainer adds to a group's deviation.
DEVIATION_FLOOR = 1e-4
GIB = 2**30
LOOK_EVERY_S = 0.1


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
    # Both sides keep freed memory or both do not:
    # here neither TRL's process nor ours is told anything by the environment.
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    command = [python, str(HERE / "memory_vs_trl.py"), "--worker", json.dumps(settings)]
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, env=environment, stdout=told, text=True)
        record: dict[str, Any] = {**settings, **watch(process, int(options.limit_gib * GIB))}
        told.seek(0)
        events = [json.loads(line.removeprefix(MARK)) for line in told if line.startswith(MARK)]
    for event in events:
        record[f"{event.pop('event')}"] = event
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    results[f"{options.layers}/{options.vocabulary}/{tokens}/{side}"] = record
    options.results.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.results.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, options.results)
    print(f"{side} at {tokens} tokens: {_peak(record)}", flush=True)


def watch(process: "subprocess.Popen[str]", limit_bytes: int) -> dict[str, int]:
    """Wait for a process, and stop it where its resident memory exceeds the limit; its status,
    and at what it was stopped.
    """
    pages = Path(f"/proc/{process.pid}/statm")
    while process.poll() is None:
        try:
            resident = int(pages.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            resident = 0  # it has just ended
        if resident > limit_bytes:
            process.kill()
            return {"status": process.wait(), "stopped_at_bytes": resident}
        time.sleep(LOOK_EVERY_S)
    return {"status": process.returncode}


# -- a process ---------------------------------------------------------------------------------------------------------


def work(settings: dict[str, Any]) -> None:
    """Build the model, update once, tell the peaks before and after."""
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), settings)
        run = trl_update if settings["side"].startswith("trl") else fastslow_update
        run(directory, settings)


def write_model(directory: Path, settings: dict[str, Any]) -> None:
    """A random Qwen2 and its tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    make_tokenizer(settings).save_pretrained(directory)
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


def make_tokenizer(settings: dict[str, Any]) -> Any:
    """The model's vocabulary; each word is a token. No word begins with another, as special tokens are found first."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{index}t": index for index in range(settings["vocabulary"])}
    tokenizer = Tokenizer(models.WordLevel(words, "t0t"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "t1t", "pad_token": "t1t", "unk_token": "t0t"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)


def context() -> list[int]:
    return list(range(100, 100 + CONTEXT))


def completions(settings: dict[str, Any]) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(2, settings["vocabulary"]) for _ in range(settings["tokens"])] for _ in range(GROUP)]


def advantages(drawn: list[list[int]]) -> list[float]:
    """As GRPOTrainer computes them from the rewards."""
    rewards = [reward(tokens) for tokens in drawn]
    deviation = statistics.stdev(rewards) + DEVIATION_FLOOR
    return [(value - statistics.fmean(rewards)) / deviation for value in rewards]


def fastslow_update(directory: str, settings: dict[str, Any]) -> None:
    from fastslow.slow.engine import Datum, LossSettings, TokenSequence
    from fastslow.slow.local.engine import LocalEngine
    from fastslow.slow.settings import ModelConfig, SlowConfig

    slow = SlowConfig(activation_checkpointing=settings["side"].endswith("checkpointing"))
    engine = LocalEngine(ModelConfig(name=directory, device="cpu"), slow)
    drawn = completions(settings)
    old = engine.logprobs([TokenSequence(tuple(context()), tuple(tokens)) for tokens in drawn])
    datums = [
        Datum(tuple(context()), tuple(tokens), tuple(values), advantage, 1 / (GROUP * len(tokens)))
        for tokens, values, advantage in zip(drawn, old, advantages(drawn), strict=True)
    ]
    tell(event="ready")
    started = time.perf_counter()
    metrics = engine.train_step(datums, LossSettings("cispo", tau=4.0, kl_coefficient=0.0), 1e-6)
    tell(event="step", wall_s=time.perf_counter() - started, tokens=metrics.tokens, grad_norm=metrics.grad_norm)


def trl_update(directory: str, settings: dict[str, Any]) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    drawn = completions(settings)

    class Given(GRPOTrainer):
        """GRPOTrainer whose completions are given: private parts of TRL 1.16."""

        def _generate_single_turn(self, prompt_ids: Any, *given: Any, **unused: Any) -> Any:
            if any(list(tokens) != context() for tokens in prompt_ids):
                raise AssertionError(f"TRL reads the context as {prompt_ids}")
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
        train_dataset=Dataset.from_list([{"prompt": " ".join(f"t{token}t" for token in context())}] * GROUP),
        # Not loaded: for this architecture transformers builds another tokenizer around the same words.
        processing_class=make_tokenizer(settings),
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
        f"| layers | vocabulary | tokens | {' | '.join(SIDES.values())} | norms differ by |",
        "| --- | --- | --- |" + " --- |" * (len(SIDES) + 1),
    ]
    for layers, vocabulary, tokens in lengths:
        found = [records.get(f"{layers}/{vocabulary}/{tokens}/{side}") for side in SIDES]
        cells = ["-" if record is None else _peak(record) for record in found]
        cells.append(_difference([r["step"]["grad_norm"] for r in found if r is not None and "step" in r]))
        lines.append(f"| {layers} | {vocabulary} | {tokens} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    if write:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    return table


def _difference(norms: list[float]) -> str:
    return f"{(max(norms) - min(norms)) / max(norms):.1e}" if len(norms) > 1 else "-"


def _peak(record: dict[str, Any]) -> str:
    if "step" in record:
        return f"{record['step']['peak_rss_bytes'] / GIB:.2f}"
    if "stopped_at_bytes" in record:
        return f"stopped at {record['stopped_at_bytes'] / GIB:.1f}"
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
    parser.add_argument("--limit-gib", type=float, default=60.0, help="resident memory at which a process is stopped")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
