"""The contract suite (`fastslow.testing.engines`) over every configuration of the local engine, and what this one
promises beyond it on each architecture. The remote engine's is in tests/tinker/test_contract.py.

Tolerances: float32 1e-5 on every log-probability; bfloat16, whose logits have 8 bits,
0.1 on these tiny models (larger ones differ by more: docs/engine.md).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import POSITIONS, STOP_TOKENS, make_architecture_dir, write_gguf
from fastslow.errors import TooLongError
from fastslow.slow.engine import Datum, DistillDatum, LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local import loading
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.testing.engines import CHECKS, EngineCase

MAX_TOKENS = 8
PARAMS = SamplingParams(MAX_TOKENS)
LOSS = LossSettings(kl_coefficient=1e-3)


@dataclass(frozen=True)
class Setup:
    """One engine configuration; `unshared` is how the reason for doing without prefix sharing begins."""

    architecture: str = "llama"
    lora: LoraConfig | None = None
    dtype: str = "float32"
    prefix_sharing: bool = True
    unshared: str | None = None
    decoder: Literal["auto", "static"] = "auto"

    @property
    def tolerance(self) -> float:
        return 1e-5 if self.dtype == "float32" else 0.1


LORA = LoraConfig(rank=4, alpha=8)
OFF = "slow.prefix_sharing is off"
SETUPS = {
    "llama": Setup(),
    "llama-lora": Setup(lora=LORA),
    "llama-bfloat16": Setup(dtype="bfloat16"),
    "llama-lora-bfloat16": Setup(lora=LORA, dtype="bfloat16"),
    "llama-unshared": Setup(prefix_sharing=False, unshared=OFF),
    "llama-lora-unshared": Setup(lora=LORA, prefix_sharing=False, unshared=OFF),
    "llama-static": Setup(decoder="static"),
    "llama-lora-bfloat16-static": Setup(lora=LORA, dtype="bfloat16", decoder="static"),
    "tied": Setup("tied"),
    "qwen2": Setup("qwen2"),
    "qwen3": Setup("qwen3"),
    "qwen3-moe": Setup("qwen3_moe"),
    "mistral": Setup("mistral"),
    "mistral-wide-window": Setup("mistral_wide_window"),
    "phi3": Setup("phi3"),
    "gpt2": Setup("gpt2"),
    "gpt2-unshared": Setup("gpt2", prefix_sharing=False, unshared=OFF),
    "gpt-neox": Setup("gpt_neox"),
    "gemma2": Setup("gemma2", unshared="NotImplementedError: its attention uses softcap"),
    "gemma3": Setup("gemma3", unshared="its sliding attention over 4 tokens is shorter than the sequences"),
    "gpt-oss": Setup("gpt_oss", unshared="NotImplementedError: its attention uses s_aux"),
    "lfm2": Setup("lfm2", unshared="it has layers of type conv"),
    "deepseek-v2": Setup("deepseek_v2"),
    "deepseek-v3": Setup("deepseek_v3"),
    "gptj": Setup("gptj", unshared="its attention does not go through transformers' attention interface"),
}

# Contexts of mixed lengths; two share a prefix, one is a prefix of another.
REQUESTS = [
    SampleRequest((10, 11, 12, 13, 14, 15, 16), 3, seed=1),
    SampleRequest((10, 11, 12, 40), 2, seed=2),
    SampleRequest((50,), 2, seed=3),
    SampleRequest((10, 11, 12), 2, seed=4),
]


@pytest.fixture(scope="module")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("architectures")
    names = {setup.architecture for setup in SETUPS.values()}
    return {name: make_architecture_dir(root / name, name) for name in sorted(names)}


@pytest.fixture(scope="module", autouse=True)
def bfloat16_everywhere() -> Iterator[None]:
    """bfloat16 is tested on machines that only emulate it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "has_fast_bfloat16", lambda device: True)
        yield


@pytest.fixture(scope="module", params=SETUPS.values(), ids=SETUPS.keys())
def setup(request: pytest.FixtureRequest) -> Setup:
    return request.param


def build(setup: Setup, model_dirs: dict[str, Path], **slow: Any) -> LocalEngine:
    model = ModelConfig(name=str(model_dirs[setup.architecture]), dtype=setup.dtype, device="cpu", lora=setup.lora)  # type: ignore[arg-type]
    sampler = ForestConfig(decoder=setup.decoder)
    settings = SlowConfig(prefix_sharing=setup.prefix_sharing, microbatch_tokens=32, sampler=sampler, **slow)
    return LocalEngine(model, settings, seed=7)


@pytest.fixture(scope="module")
def case(setup: Setup, model_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return EngineCase(
        lambda: build(setup, model_dirs), tmp_path_factory.mktemp("saved"), tolerance=setup.tolerance,
        exact=setup.dtype == "float32", requests=REQUESTS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(case: EngineCase) -> Any:
    """An engine that no test trains."""
    return case.engine


def sequences_of(engine: LocalEngine, requests: list[SampleRequest] = REQUESTS) -> list[TokenSequence]:
    groups = engine.sample(requests, PARAMS)
    return [
        TokenSequence(request.context_tokens, completion.tokens)
        for request, group in zip(requests, groups, strict=True)
        for completion in group
    ]


def flat(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row])


def worst(a: list[list[float]], b: list[list[float]]) -> float:
    assert [len(row) for row in a] == [len(row) for row in b]
    return float((flat(a) - flat(b)).abs().max())


@dataclass
class Trained:
    """The engine that the suite has trained, what was true before, and its checkpoint. No test changes it."""

    engine: LocalEngine
    directory: Path
    datums: list[Datum]
    sequences: list[TokenSequence]
    base_before: list[list[float]]
    kl_before: list[list[float]]


@pytest.fixture(scope="module")
def trained(case: EngineCase, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    found, directory = case.trained, tmp_path_factory.mktemp("checkpoint")
    assert isinstance(found.engine, LocalEngine)
    found.engine.save(directory, resumable=True)
    return Trained(found.engine, directory, found.datums, found.sequences, found.base, found.kl)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check: Callable[[EngineCase], None], case: EngineCase) -> None:
    check(case)


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_completions_end_at_the_models_stop_tokens_and_leave_the_batch_at_different_times(engine: LocalEngine) -> None:
    groups = engine.sample(REQUESTS, PARAMS)
    for completion in (completion for group in groups for completion in group):
        stopped = completion.tokens[-1] in STOP_TOKENS
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert not set(completion.tokens[:-1]) & set(STOP_TOKENS)
    lengths = {len(completion.tokens) for group in groups for completion in group}
    assert len(lengths) > 2 and min(lengths) < MAX_TOKENS  # the batch really shrinks


def test_greedy_completions_are_the_likeliest_continuations(setup: Setup, engine: LocalEngine) -> None:
    groups = engine.sample(REQUESTS, SamplingParams(3, temperature=0.0))
    for request, group in zip(REQUESTS, groups, strict=True):
        assert len({completion.tokens for completion in group}) == 1
        rivals = [TokenSequence(request.context_tokens, (token,)) for token in range(101)]
        best = max(value for (value,) in engine.logprobs(rivals))
        assert group[0].logprobs[0] == pytest.approx(best, abs=setup.tolerance)


def test_a_context_too_long_for_the_model_is_refused(setup: Setup, engine: LocalEngine) -> None:
    context = (10,) * (POSITIONS - MAX_TOKENS)
    assert len(engine.sample([SampleRequest(context, 1, 0)], PARAMS)[0]) == 1
    if engine.context_limit is not None:
        with pytest.raises(
            TooLongError, match=rf"sampling.max_tokens: 8 tokens after a context of 249 exceed .*{POSITIONS}"
        ):
            engine.sample([SampleRequest((*context, 10), 1, 0)], PARAMS)


def test_prefix_sharing_is_used_or_the_engine_says_why_not(
    setup: Setup, model_dirs: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    engine = build(setup, model_dirs)
    reason = engine.policy.unshared_reason
    said = (
        "prefixes are shared: packed log-probabilities are within" if reason is None else f"no prefix sharing: {reason}"
    )
    assert engine.describe().startswith(f"{setup.dtype} on cpu, {said}")
    if setup.unshared is None:
        assert reason is None
    else:
        assert reason is not None and reason.startswith(setup.unshared)
    warned = "without prefix sharing" in caplog.text
    assert warned == (reason is not None and setup.prefix_sharing)  # nothing to say where it was switched off


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_goes_in_and_comes_out(engine: LocalEngine) -> None:
    messages = [{"role": "system", "content": "Be-brief."}, {"role": "user", "content": "2+2?"}]
    tokens = engine.encode(messages)
    assert messages == [{"role": "system", "content": "Be-brief."}, {"role": "user", "content": "2+2?"}]
    assert engine.decode(tokens) == "Be-brief.2+2?"  # special tokens left out


# -- training ----------------------------------------------------------------------------------------------------------


def test_no_datums_change_nothing(setup: Setup, trained: Trained, tmp_path: Path) -> None:
    metrics = trained.engine.train_step([], LOSS, learning_rate=1.0)
    assert (metrics.tokens, metrics.grad_norm, metrics.loss) == (0, 0.0, 0.0)
    assert trained.engine.policy_version == 2
    trained.engine.save(tmp_path, resumable=True)
    for name in ("model.safetensors", "adapter_model.safetensors", "resume/optimizer.safetensors"):
        if (trained.directory / name).exists():
            assert (tmp_path / name).read_bytes() == (trained.directory / name).read_bytes()


def test_distillation_moves_the_student_towards_the_base_under_the_teachers_context(
    setup: Setup, model_dirs: dict[str, Path]
) -> None:
    engine = build(setup, model_dirs)
    sequences = sequences_of(engine)
    weight = 1.0 / sum(len(sequence.completion_tokens) for sequence in sequences)
    datums = [
        DistillDatum(s.context_tokens, (60, 61, 62, *s.context_tokens), s.completion_tokens, weight) for s in sequences
    ]
    base = AutoModelForCausalLM.from_pretrained(
        model_dirs[setup.architecture], dtype=getattr(torch, setup.dtype)
    ).eval()
    expected = 0.0
    for datum in datums:
        p = log_softmax_of(base, TokenSequence(datum.context_tokens, datum.completion_tokens))
        q = log_softmax_of(base, TokenSequence(datum.teacher_context_tokens, datum.completion_tokens))
        expected += weight * float((p.exp() * (p - q)).sum())
    taught = [TokenSequence(datum.teacher_context_tokens, datum.completion_tokens) for datum in datums]
    teacher_before = engine.logprobs(taught, "base")
    metrics = [engine.distill_step(datums, learning_rate=3e-3) for _ in range(5)]
    assert metrics[0].loss == pytest.approx(expected, abs=setup.tolerance)
    assert metrics[-1].loss < metrics[0].loss
    assert metrics[0].tokens == sum(len(datum.completion_tokens) for datum in datums)
    assert engine.policy_version == 5
    assert engine.logprobs(taught, "base") == teacher_before
    assert engine.distill_step([], learning_rate=1.0).tokens == 0
    assert engine.policy_version == 5


# -- saving ------------------------------------------------------------------------------------------------------------


def plain_model(setup: Setup, directory: Path, base: Path) -> Any:
    """The checkpoint as anybody else would load it, in the engine's arithmetic."""
    dtype = getattr(torch, setup.dtype)
    if setup.lora is None:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), str(directory)).eval()


@torch.no_grad()
def log_softmax_of(model: Any, sequence: TokenSequence) -> torch.Tensor:
    """Log-probabilities (completion tokens, vocabulary) from a pass of the sequence's own."""
    tokens = torch.tensor([[*sequence.context_tokens, *sequence.completion_tokens]])
    logits = model(input_ids=tokens).logits[0, len(sequence.context_tokens) - 1 : -1]
    return logits.float().log_softmax(-1)


def test_a_checkpoint_loads_in_transformers_or_peft_and_gives_the_same(
    setup: Setup, trained: Trained, model_dirs: dict[str, Path]
) -> None:
    model = plain_model(setup, trained.directory, model_dirs[setup.architecture])
    expected = [
        log_softmax_of(model, s).gather(1, torch.tensor(s.completion_tokens)[:, None])[:, 0].tolist()
        for s in trained.sequences
    ]
    assert worst(trained.engine.logprobs(trained.sequences), expected) < 2 * setup.tolerance
    for path in trained.directory.glob("*config.json"):
        assert "fastslow" not in path.read_text(encoding="utf-8")


def test_kl_to_base_is_the_divergence_over_the_full_vocabulary(
    setup: Setup, trained: Trained, model_dirs: dict[str, Path]
) -> None:
    base_dir = model_dirs[setup.architecture]
    current = plain_model(setup, trained.directory, base_dir)
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=getattr(torch, setup.dtype)).eval()
    expected = []
    for sequence in trained.sequences:
        p, q = log_softmax_of(current, sequence), log_softmax_of(base, sequence)
        expected.append((p.exp() * (p - q)).sum(-1).tolist())
    got = trained.engine.kl_to_base(trained.sequences)
    assert float(flat(trained.kl_before).max()) < setup.tolerance
    assert float(flat(got).mean()) > 1e-3
    assert worst(got, expected) < 2 * setup.tolerance


def test_a_checkpoint_opens_as_an_engine_of_its_own_that_knows_its_base(
    setup: Setup, trained: Trained, model_dirs: dict[str, Path]
) -> None:
    original = build(setup, model_dirs).policy.config
    if setup.lora is None:
        checkpoint = original.model_copy(update={"name": str(trained.directory)})
        engine = LocalEngine(checkpoint, trained.engine.policy.slow, base=original)
    else:
        engine = LocalEngine(original, trained.engine.policy.slow, adapter=trained.directory)
    assert worst(engine.logprobs(trained.sequences), trained.engine.logprobs(trained.sequences)) < 1e-6
    assert engine.logprobs(trained.sequences, "base") == trained.base_before


def parameters(engine: LocalEngine) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in engine.model.named_parameters()}


def test_a_resumed_engine_goes_on_bit_for_bit(setup: Setup, trained: Trained, model_dirs: dict[str, Path]) -> None:
    resumed = build(setup, model_dirs)
    resumed.train_step(trained.datums[:3], LOSS, learning_rate=1e-2)  # a past that loading must wipe out
    resumed.load(trained.directory)
    saved = parameters(trained.engine)
    assert resumed.policy_version == 2
    assert all(torch.equal(saved[name], value) for name, value in parameters(resumed).items())
    resumed.train_step(trained.datums, LOSS, learning_rate=3e-3)
    uninterrupted = build(setup, model_dirs)
    for _ in range(3):
        uninterrupted.train_step(trained.datums, LOSS, learning_rate=3e-3)
    expected = parameters(uninterrupted)
    assert resumed.policy_version == 3
    assert all(torch.equal(expected[name], value) for name, value in parameters(resumed).items())
    assert any(not torch.equal(saved[name], value) for name, value in expected.items())
    assert resumed.sample(REQUESTS, PARAMS) == uninterrupted.sample(REQUESTS, PARAMS)
    assert resumed.logprobs(trained.sequences, "base") == trained.base_before


# -- .gguf -------------------------------------------------------------------------------------------------------------


def test_a_gguf_file_is_loaded_trained_and_saved_as_an_ordinary_model(
    model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    source = model_dirs["llama"]
    engine = LocalEngine(ModelConfig(name=str(write_gguf(source, tmp_path / "x.gguf")), device="cpu"))
    sequences = sequences_of(engine)
    original = AutoModelForCausalLM.from_pretrained(source).eval()
    for sequence, got in zip(sequences, engine.logprobs(sequences), strict=True):
        logprobs = log_softmax_of(original, sequence)
        expected = logprobs.gather(1, torch.tensor(sequence.completion_tokens)[:, None])[:, 0]
        assert got == pytest.approx(expected.tolist(), abs=1e-4)
    engine.train_step(EngineCase(lambda: engine, tmp_path, requests=REQUESTS).datums(engine), LOSS, learning_rate=1e-3)
    engine.save(tmp_path / "saved", resumable=False)
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    reloaded = LocalEngine(ModelConfig(name=str(tmp_path / "saved"), device="cpu"))
    assert worst(reloaded.logprobs(sequences), engine.logprobs(sequences)) < 1e-6
