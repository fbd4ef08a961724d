"""What the turns of an episode cost in sampling and in the update: the naive way beside fastslow's.

    python benchmarks/episodes.py              # measures, then writes the table of docs/performance.md
    python benchmarks/episodes.py --report     # the table alone

A random Llama and episodes of four turns after prompts of 500 tokens: each turn samples until a stop token, and then
the environment says 30 tokens. Lengths are drawn by the model, and each side draws the same tokens, which is checked.
Sides alternate in one process, each on the same weights.

Sampling: `anew` computes each turn's context again and shares nothing; `forest` shares what contexts of a wave have in
common; `kept` keeps keys and values between turns as well, as fastslow does. The update: `apart` has each datum as a
padded sequence of its own; `padded` has an episode as one padded sequence, as fastslow does for models that cannot be
packed; `forest` is fastslow's packed forest.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.scoring import MicroBatch, PlainScorer
from fastslow.slow.settings import ModelConfig, SlowConfig

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "episodes.json"
DOCUMENT = HERE.parent / "docs" / "performance.md"
MARK = "episodes"
SAMPLING = {
    "anew": "each turn anew, nothing shared",
    "forest": "each turn anew, shared prefixes once",
    "kept": "fastslow",
}
UPDATE = {"apart": "each datum its own sequence", "padded": "fastslow, padded rows", "forest": "fastslow"}
GOAL = 2.0


@dataclass(frozen=True)
class Work:
    """What one measurement does. `stop_share`: of the vocabulary; a turn has 1 / stop_share tokens in the mean."""

    problems: int = 2
    group: int = 8
    turns: int = 4
    prompt_tokens: int = 500
    said_tokens: int = 30
    stop_share: float = 1 / 32
    max_tokens: int = 256
    layers: int = 4
    width: int = 512
    vocabulary: int = 8192


class Apart:
    """Each datum is a sequence of its own: those of a turn are padded together, and no turn knows of another one."""

    def __init__(self, scorer: PlainScorer, turn_of: Sequence[int]) -> None:
        self.scorer, self.turn_of = scorer, turn_of

    def micro_batches(self, sequences: Sequence[TokenSequence], budget_tokens: int) -> list[MicroBatch]:
        """As `Scorer.micro_batches`."""
        batches = []
        for turn in sorted(set(self.turn_of)):
            members = [index for index, number in enumerate(self.turn_of) if number == turn]
            for batch in self.scorer.micro_batches([sequences[m] for m in members], budget_tokens):
                batches.append(replace(batch, members=[members[m] for m in batch.members]))
        return batches


def write_model(directory: Path, work: Work) -> None:
    """A random model in float32, and a tokenizer that has a token for each number."""
    tokenizer = Tokenizer(models.WordLevel({f"t{index}": index for index in range(work.vocabulary)}, "t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "t1", "pad_token": "t1"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=work.vocabulary,
        hidden_size=work.width,
        intermediate_size=work.width * 11 // 4,
        num_hidden_layers=work.layers,
        num_attention_heads=work.width // 64,
        num_key_value_heads=max(1, work.width // 256),
        max_position_embeddings=work.prompt_tokens + work.turns * (work.max_tokens + work.said_tokens),
        eos_token_id=1,
        pad_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def engine_of(directory: Path, work: Work, threads: int, **slow: Any) -> LocalEngine:
    """An engine whose completions end at the first of many tokens."""
    config = SlowConfig.model_validate({"prefix_sharing": True, **slow})
    engine = LocalEngine(ModelConfig(name=str(directory), device="cpu", dtype="float32"), config, threads=threads)
    engine.policy.stop = frozenset(range(int(work.vocabulary * work.stop_share)))
    return engine


def play(engine: LocalEngine, work: Work) -> list[list[tuple[TokenSequence, tuple[float, ...]]]]:
    """Every turn of every episode, turn after turn, with the sampler's log-probabilities.
    An episode that is cut off ends.
    """
    rng = random.Random(0)
    first = int(work.vocabulary * work.stop_share)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(first, work.vocabulary) for _ in range(count))

    contexts = [
        prompt for prompt in (words(work.prompt_tokens) for _ in range(work.problems)) for _ in range(work.group)
    ]
    live, known = {i: context for i, context in enumerate(contexts)}, dict.fromkeys(range(len(contexts)), 0)
    turns = []
    for turn in range(work.turns):
        keep = turn + 1 < work.turns
        asked = [SampleRequest(context, 1, 1000 * turn + i, known[i], keep) for i, context in live.items()]
        answers = [completion for (completion,) in engine.sample(asked, SamplingParams(work.max_tokens))]
        turns.append(
            [(TokenSequence(r.context_tokens, c.tokens), c.logprobs) for r, c in zip(asked, answers, strict=True)]
        )
        for i, completion in zip(list(live), answers, strict=True):
            if completion.finish_reason == "length":
                del live[i]
                continue
            said = (*live[i], *completion.tokens)
            known[i] = len(said)
            live[i] = (*said, *words(work.said_tokens))
    return turns


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and computed tokens of every side."""
    repeats, threads = options.repeats, options.threads
    work = Work(**{name: getattr(options, name) for name in vars(Work())})
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_model(directory, work)
        forest = engine_of(directory, work, threads, sampler={"kind": "forest", "kept_gib": 0.0})
        kept, plain = engine_of(directory, work, threads), engine_of(directory, work, threads, prefix_sharing=False)
        apart = engine_of(directory, work, threads, prefix_sharing=False)
        samplers = {"anew": plain, "forest": forest, "kept": kept}
        reference = play(kept, work)  # warm, and what every side must draw
        sampling: dict[str, list[float]] = {side: [] for side in SAMPLING}
        computed: dict[str, int] = {}
        for _ in range(repeats):
            for side, engine in samplers.items():
                before, started = engine.sampler.computed_tokens, time.perf_counter()  # type: ignore[attr-defined]
                turns = play(engine, work)
                sampling[side].append(time.perf_counter() - started)
                computed[side] = engine.sampler.computed_tokens - before  # type: ignore[attr-defined]
                same_tokens(reference, turns)
        datums = [
            Datum(s.context_tokens, s.completion_tokens, logprobs, (-1.0) ** i, 1e-3)
            for turn in reference
            for i, (s, logprobs) in enumerate(turn)
        ]
        turn_of = [number for number, turn in enumerate(reference) for _ in turn]
        scorer = Apart(PlainScorer(apart.policy.device, apart.policy.pad_token), turn_of)
        apart.policy.scorer = lambda dtype: scorer  # type: ignore[method-assign]
        updates = {"apart": apart, "padded": plain, "forest": kept}
        update: dict[str, list[float]] = {side: [] for side in UPDATE}
        updated: dict[str, int] = {}
        norms: dict[str, float] = {}
        for _ in range(repeats):
            for side, engine in updates.items():
                started = time.perf_counter()
                metrics = engine.train_step(datums, LossSettings(kl_coefficient=0.0), 0.0)
                update[side].append(time.perf_counter() - started)
                updated[side], norms[side] = metrics.computed_tokens, metrics.grad_norm
        assert max(norms.values()) < (1 + 1e-4) * min(norms.values()), f"the gradients differ: {norms}"
    return {
        "work": vars(work),
        "threads": threads,
        "turns": [len(turn) for turn in reference],
        "sampled_tokens": sum(len(s.completion_tokens) for turn in reference for s, _ in turn),
        "sampling_s": sampling,
        "sampling_tokens": computed,
        "update_s": update,
        "update_tokens": updated,
    }


def same_tokens(reference: list[Any], turns: list[Any]) -> None:
    """Every side has drawn the same."""
    drawn = [[[s.completion_tokens for s, _ in turn] for turn in each] for each in (reference, turns)]
    assert drawn[0] == drawn[1], "the sides drew different tokens"


# -- the tables --------------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    work = found["work"]
    lines = [
        f"{found['turns'][0]} episodes of {work['problems']} problems, {work['turns']} turns, prompts of "
        f"{work['prompt_tokens']} tokens, {found['sampled_tokens']} sampled tokens in all.",
        f"{work['layers']} layers of width {work['width']}, float32, {found['threads']} threads. Seconds are "
        "medians, with the range.",
        "",
    ]
    for title, sides, kind in (("sampling", SAMPLING, "sampling"), ("the update", UPDATE, "update")):
        seconds, tokens = found[f"{kind}_s"], found[f"{kind}_tokens"]
        first = statistics.median(seconds[next(iter(sides))])
        lines += [f"| {title} | tokens computed | s | times the naive way |", "| --- | --- | --- | --- |"]
        for side, name in sides.items():
            middle = statistics.median(seconds[side])
            spread = f"{middle:.2f} ({min(seconds[side]):.2f} to {max(seconds[side]):.2f})"
            lines.append(f"| {name} | {tokens[side]} | {spread} | {first / middle:.2f} |")
        lines.append("")
    lines += ["| goal | measured | met? |", "| --- | --- | --- |"]
    for title, sides, kind in (("sampling", SAMPLING, "sampling"), ("the update", UPDATE, "update")):
        medians = [statistics.median(found[f"{kind}_s"][side]) for side in sides]
        ratio = medians[0] / medians[-1]
        lines.append(f"| {GOAL:g}x in {title} | {ratio:.2f}x | {'yes' if ratio >= GOAL else 'no'} |")
    return "\n".join(lines)


def measured_or_read(
    options: argparse.Namespace,
    mark: str,
    results: Path,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> None:
    """Measure unless `options.report`, and print the tables; those of the `results` that are kept go into the page."""
    if not options.report:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(measure(options), indent=1) + "\n", encoding="utf-8")
    text = report(json.loads(options.results.read_text(encoding="utf-8")))
    if options.results == results:
        begin = f"<!-- {mark}: begin, made by benchmarks/{mark}.py --report -->"
        end, page = f"<!-- {mark}: end -->", DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(f"{page.split(begin)[0]}{begin}\n\n{text}\n\n{end}{page.split(end)[1]}", encoding="utf-8")
    print(text)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing; rewrite the tables from the results")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    for name, value in vars(Work()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args(argv)
    measured_or_read(options, MARK, RESULTS, measure, report)


if __name__ == "__main__":
    main()
