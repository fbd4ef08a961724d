"""What the plan of `slow.memory_gib` says an update takes, against what one takes."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fastslow.errors import ConfigError
from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local import policy
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.live_bytes import LiveBytes
from fastslow.slow.local.memory import GIB, fixed_part
from fastslow.slow.local.pass_cost import Growth, PassCost
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig

from tiny import make_tokenizer

LOSS = LossSettings(kl_coefficient=0.0)
MIB = 2**20
LENGTH, CONTEXT = 120, 20


@pytest.fixture(scope="module")
def wide_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that tensors outweigh what everything else takes."""
    directory, tokenizer = tmp_path_factory.mktemp("wide"), make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=1, bos_token_id=None,
        tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make(directory: Path, *, lora: bool = False, **slow: Any) -> LocalEngine:
    model = ModelConfig(name=str(directory), device="cpu", lora=LoraConfig(rank=4, alpha=8) if lora else None)
    return LocalEngine(model, SlowConfig(**{"kl_coefficient": 0.0, "max_grad_norm": None, **slow}), threads=1)


def rollouts(count: int) -> list[Datum]:
    """Completions under one context; their tokens differ from the second on."""
    completions = [tuple((7 * i + j) % 90 + 5 for j in range(LENGTH)) for i in range(count)]
    return [Datum(tuple(range(5, 5 + CONTEXT)), tokens, (-4.0,) * LENGTH, 1.0, 1e-3) for tokens in completions]


def passes(engine: LocalEngine, datums: list[Datum]) -> list[int]:
    sequences = [TokenSequence(datum.context_tokens, datum.completion_tokens) for datum in datums]
    return [batch.computed_tokens for batch in engine.policy.micro_batches(sequences)]


def test_live_bytes_by_hand() -> None:
    with LiveBytes(apart={(5, 5)}) as live:
        kept = torch.zeros(10, 10)  # 400 bytes
        assert live.now == 400
        view = kept[2:]
        view += 1
        torch.zeros(5, 5)
        assert live.now == 400
        passing = torch.zeros(100)
        del passing
        assert (live.now, live.peak) == (400, 800)
        del kept
        assert live.now == 400  # the view holds them
        del view
    assert (live.now, live.peak) == (0, 800)


def test_the_fixed_part_by_hand(tiny_model_dir: Path) -> None:
    model = make(tiny_model_dir).model
    numbers = [p.numel() for p in model.parameters()]
    table, buffers = model.get_input_embeddings().weight.numel(), sum(b.numel() * 4 for b in model.buffers())
    fixed = fixed_part(model, SlowConfig(), keeps_base=True)
    total = 4 * sum(numbers)
    assert (fixed.weights, fixed.base) == (total + buffers, total + buffers)
    assert (fixed.masters, fixed.gradients, fixed.moments) == (0, total, 2 * total)
    assert fixed.largest == 4 * max(numbers)
    wide = fixed_part(model.bfloat16(), SlowConfig(), keeps_base=False)
    assert (wide.masters, wide.gradients, wide.base) == (total, total, 0)
    # One tensor of at least 4,096 numbers: here none but the embedding is, whose moments keep 32 bits.
    assert table < 4096
    assert fixed_part(model, SlowConfig(optimiser="adamw_8bit"), keeps_base=False).moments == 2 * total


def test_8_bit_moments_by_hand() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(128, 64, bias=False), torch.nn.Linear(10, 10, bias=False))
    fixed = fixed_part(model, SlowConfig(optimiser="adamw_8bit"), keeps_base=False)
    assert fixed.moments == 2 * (8192 + 4 * 32) + 2 * 4 * 100


def test_an_adapter_alone_has_gradients(tiny_model_dir: Path) -> None:
    model = make(tiny_model_dir, lora=True).model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = fixed_part(model, SlowConfig(), keeps_base=False)
    assert (fixed.gradients, fixed.moments) == (4 * trained, 8 * trained)


def test_pairs_of_a_forest_by_hand() -> None:
    none = Growth(0.0, 0.0, 0.0)
    cost = PassCost(none, none, 0.0, 0.0, 10.0, 1.0, 100, queries=4, slice_elements=1, forests=True)
    # Blocks of 4, 4 and 2 queries, each of which sees up to 3 ancestors and itself.
    assert cost.pairs(10, 3) == 4 * (0 + 4) + 4 * (3 + 4) + 2 * (3 + 2)
    assert cost.pairs(3, 3) == 9


@pytest.mark.parametrize(
    ("prefix_sharing", "lora", "activation_checkpointing"),
    [(True, False, False), (True, False, True), (True, True, True), (False, True, False)],
)
def test_an_update_takes_what_the_plan_says(
    wide_model_dir: Path, prefix_sharing: bool, lora: bool, activation_checkpointing: bool
) -> None:
    settings = {"prefix_sharing": prefix_sharing, "activation_checkpointing": activation_checkpointing}
    engine = make(wide_model_dir, lora=lora, memory_gib=0.1, **settings)
    datums = rollouts(6)
    plan = engine.policy.memory()
    assert plan is not None
    engine.train_step(datums[:1], LOSS, 1e-6)  # moments are there
    largest = max(passes(engine, datums))
    with LiveBytes() as live:
        engine.train_step(datums, LOSS, 1e-6)
    planned = plan.peak_bytes(largest, CONTEXT + LENGTH, largest)
    taken = plan.fixed.resting + live.peak
    assert 0.8 * planned < taken <= planned
    assert taken <= 0.1 * GIB


def test_a_larger_budget_has_fewer_passes_and_the_same_update(tiny_model_dir: Path) -> None:
    datums = rollouts(6)
    plan = make(tiny_model_dir, memory_gib=1.0).policy.memory()
    assert plan is not None
    tight = plan.peak_bytes(300, CONTEXT + LENGTH, 300) / GIB
    engines = [make(tiny_model_dir, memory_gib=gib) for gib in (tight, 1.0)]
    small, large = (passes(engine, datums) for engine in engines)
    assert len(small) > len(large) == 1
    assert max(small) <= 301  # a token more is what GiB as a float may round to
    before = {name: value.clone() for name, value in engines[0].model.state_dict().items()}
    norms = [engine.train_step(datums, LOSS, 1e-3).grad_norm for engine in engines]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for engine in engines:
        first = {name: engine.learner.optimiser.adam.state[p]["exp_avg"] for name, p in engine.model.named_parameters()}
        if engine is engines[0]:
            expected = first
    for name, value in first.items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6 * norms[0]), name
    assert any((value != before[name]).any() for name, value in engines[0].model.state_dict().items())


def test_measuring_leaves_no_trace(tiny_model_dir: Path) -> None:
    plain, planned = make(tiny_model_dir), make(tiny_model_dir, memory_gib=1.0)
    torch.manual_seed(1)
    assert planned.policy.memory() is not None
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert all(parameter.grad is None for parameter in planned.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), planned.model.parameters(), strict=True))


def test_a_budget_that_holds_no_sequence_is_refused_with_what_it_takes(tiny_model_dir: Path) -> None:
    plan = make(tiny_model_dir, memory_gib=0.002).policy.memory()
    assert plan is not None
    needed = plan.peak_bytes(500, 500, 500) / GIB
    with pytest.raises(ConfigError, match=rf"one sequence of 500 tokens, which takes {needed:.2f} GiB") as caught:
        plan.check(500)
    for way in ("activation_checkpointing", "model.lora", "sampling.max_tokens"):
        assert way in str(caught.value)
    roomy = make(tiny_model_dir, memory_gib=needed * 1.001).policy.memory()
    assert roomy is not None
    assert roomy.tokens(500, 500) >= 500


def test_a_sequence_that_grew_beyond_the_budget_is_told_once(
    tiny_model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(tiny_model_dir, memory_gib=0.0005)
    for _ in range(2):
        assert passes(engine, rollouts(2)) == [CONTEXT + LENGTH - 1] * 2
    assert caplog.text.count("do not hold an update on one sequence of 140 tokens") == 1


def test_fewer_rows_are_sampled_at_a_time_with_the_same_completions(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [SampleRequest((10 + index, 11, 12), 4, index) for index in range(6)]
    expected = make(tiny_model_dir).sample(requests, SamplingParams(8))
    engine = make(tiny_model_dir, memory_gib=0.01)
    plan, chunks = engine.policy.memory(), []
    assert plan is not None and plan.holds_rows(24, 18, 8)
    row = plan.cost.keys_per_token * 16 + 12 * plan.cost.vocabulary
    tight = (plan.fixed.resting + 9 * row) / GIB
    monkeypatch.setattr(plan, "budget_gib", tight)
    one = engine.sampler._sample_chunk  # type: ignore[attr-defined]
    monkeypatch.setattr(engine.sampler, "_sample_chunk", lambda chunk, p: chunks.append(len(chunk)) or one(chunk, p))
    assert [[c.tokens for c in row] for row in engine.sample(requests, SamplingParams(8))] == [
        [c.tokens for c in row] for row in expected
    ]
    assert chunks == [2, 2, 2]


def test_two_measures_of_memory_are_refused() -> None:
    with pytest.raises(ValueError, match="microbatch_tokens: 512 both say how large"):
        SlowConfig(memory_gib=4.0, microbatch_tokens=512)


def test_a_gpu_that_took_more_than_planned_is_told(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = make(tiny_model_dir, memory_gib=1.0).policy
    assert ours.memory() is not None
    ours.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2 * GIB)
    with ours.watched():
        pass
    assert "1 GiB were planned, and an update took 2.00 GiB" in caplog.text


WORKER = """
import sys
sys.path.insert(0, {tests!r})
from test_memory import worker
worker({directory!r})
"""


def worker(directory: str) -> None:
    """Resident memory that a large update adds to a process whose moments are there, and what the plan says of it."""
    policy.keep_freed_memory = lambda: False  # type: ignore[assignment]
    engine = make(Path(directory), memory_gib=0.5)
    plan = engine.policy.memory()
    assert plan is not None
    datums = rollouts(24)
    engine.train_step(datums[:1], LOSS, 1e-6)
    (tokens,) = passes(engine, datums)
    ctypes.CDLL(None).malloc_trim(0)  # freed memory is no part of what the update adds
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _resident("VmRSS")
    engine.train_step(datums, LOSS, 1e-6)
    taken = _resident("VmHWM") - before
    planned = plan.peak_bytes(tokens, CONTEXT + LENGTH, tokens) - plan.fixed.resting
    print(json.dumps({"taken": taken, "planned": planned}))


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says how large a process was at most")
def test_a_process_grows_by_what_the_plan_says(wide_model_dir: Path) -> None:
    here = Path(__file__).resolve()
    code = WORKER.format(tests=str(here.parent), directory=str(wide_model_dir))
    paths = [str(here.parents[3]), *sys.path]
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        # Each tensor gets memory of its own and gives it back, so that the process is as large as its tensors.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["planned"] > 100 * MIB
    assert found["taken"] == pytest.approx(found["planned"], rel=0.2)
