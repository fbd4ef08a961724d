"""The parts of check_gpu.py that are fast or slow: one RL step of real models' shapes, beside transformers and TRL."""

import gc
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_checks import Options, Record, has
from gpu_models import (
    Limits,
    Timed,
    limits_of,
    measure_rates,
    random_model,
    timed,
    weights_from_nowhere,
    words,
    workloads,
    write_shape,
)
from step_vs_trl import Side, Worker
from transformers import GenerationConfig
from workload import Settings, Workload

from fastslow.slow.engine import Datum, LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local import attention
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.types import Completion

LOSS = LossSettings("cispo", tau=4.0, kl_coefficient=0.0)
LEARNING_RATE = 1e-6
MICROBATCH_TOKENS, TRL_ROWS = 4096, 8
# Models of this shape have too many parameters for weights, masters, moments and gradients on one card of 80 GB.
ADAPTER_ONLY = ("8B",)
# Sides that sample, the last one as shipped.
OURS = (
    ("fastslow, growing", ForestConfig(decoder="growing")),
    ("fastslow, not fused", ForestConfig(decoder="static", compile="off")),
    ("fastslow, static", ForestConfig(decoder="static")),
)
# The other sides take their time: one size is enough to compare.
COMPARED = ("0.6B", "tiny")


@dataclass(frozen=True)
class Case:
    """A workload on a model: its contexts, its limits, and where what is measured goes."""

    name: str
    workload: Workload
    contexts_R: list[tuple[int, ...]]
    limits: Limits
    record: Record
    device: torch.device

    @property
    def tokens(self) -> int:
        """Completion tokens of a step."""
        return len(self.contexts_R) * self.workload.new_tokens

    def measured(self, part: str, side: str, found: Timed, **more: Any) -> None:
        """Write one measurement down."""
        new = self.workload.new_tokens
        limit = (
            self.limits.sampling_s(self.contexts_R, new)
            if part == "sampling"
            else self.limits.training_s(self.contexts_R, new)
        )
        self.record(
            what="speed", case=self.name, part=part, side=side, seconds=found.seconds, tokens=self.tokens,
            tokens_a_second=self.tokens / found.seconds, peak_gib=found.peak_gib, limit_s=limit,
            share_of_limit=limit / found.seconds, **more,
        )  # fmt: skip


def measure_machine(options: Options, record: Record) -> None:
    """What the device is, and what it reaches in both precisions."""
    import transformers

    device = options.on
    about: dict[str, Any] = {"device": device.type}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about = {"device": properties.name, "memory_gib": properties.total_memory / 2**30}
    libraries = {name: has(name) for name in ("peft", "trl")}
    record(what="machine", torch=torch.__version__, transformers=transformers.__version__, **about, **libraries)
    for dtype in (torch.float32, torch.bfloat16):
        rates = measure_rates(device, dtype)
        record(what="rates", dtype=str(dtype).removeprefix("torch."), flops=rates.flops, bytes=rates.bytes)


def measure_steps(shape: str) -> Callable[[Options, Record], None]:
    """The part that measures RL steps of models of one shape."""

    def part(options: Options, record: Record) -> None:
        with tempfile.TemporaryDirectory() as root, weights_from_nowhere():
            _measure_shape("tiny" if options.tiny else shape, shape in ADAPTER_ONLY, Path(root), options, record)

    return part


def _measure_shape(shape: str, adapter_only: bool, root: Path, options: Options, record: Record) -> None:
    device, loads = options.on, workloads(options.tiny)
    directory = write_shape(root / shape, shape, words(list(loads.values())))
    lora = LoraConfig(rank=16, alpha=32) if adapter_only and has("peft") else None
    trains = not adapter_only or lora is not None
    if not trains:
        record(what="left out", name=f"training of {shape}", why="it needs an adapter, and peft is not installed")
    model = ModelConfig(name=str(directory), dtype="bfloat16", device=options.device, lora=lora)
    slow = SlowConfig(microbatch_tokens=MICROBATCH_TOKENS, sampler=ForestConfig(decoder="static"))
    engine = LocalEngine(model, slow)
    engine.policy.stop = frozenset()  # every completion has the same length, on all sides
    record(what="engine", name=shape, described=engine.describe(), adapter=lora is not None)
    limits = limits_of(directory, measure_rates(device, engine.policy.dtype), engine.policy.dtype)
    cases = [
        Case(name, workload, [engine.encode(m) for m in workload.messages_R()], limits, record, device)
        for name, workload in loads.items()
    ]
    for case in cases:
        completions = sample_ours(case, engine, OURS if shape in COMPARED else OURS[1:])
        if trains:
            train_ours(case, engine, completions)
        if shape in COMPARED:
            sample_transformers(case, engine)
    if shape in COMPARED:
        del engine
        measure_trl(cases, root / "weights", directory, options, record)


def requests_of(contexts_R: Sequence[tuple[int, ...]]) -> list[SampleRequest]:
    """Rollouts of the same context are one request, as in the loop."""
    distinct = list(dict.fromkeys(contexts_R))
    return [SampleRequest(context, contexts_R.count(context), seed) for seed, context in enumerate(distinct)]


def sample_ours(
    case: Case, engine: LocalEngine, sides: Sequence[tuple[str, ForestConfig]]
) -> list[tuple[tuple[int, ...], Completion]]:
    """By both decoders, and without and with fused operations; the last completions, each with its context."""
    requests, params = requests_of(case.contexts_R), SamplingParams(case.workload.new_tokens)
    drawn: list[list[Completion]] = []
    for side, settings in sides:
        engine.policy.slow = engine.policy.slow.model_copy(update={"sampler": settings})
        sampler = ForestSampler(engine.policy)
        first = timed(case.device, lambda sampler=sampler: sampler.sample(requests, params))
        found = timed(case.device, lambda sampler=sampler: sampler.sample(requests, params))
        drawn, replays = found.value, sampler.replays
        more = {"graphs": replays.captured, "replays": replays.replayed, "no_graphs": replays.reason}
        if sampler.fusion is not None:
            more["not_fused"] = sampler.fusion.reason
        case.measured("sampling", side, found, first_s=first.seconds, **(more if sampler.static else {}))
    return [(r.context_tokens, c) for r, group in zip(requests, drawn, strict=True) for c in group]


def train_ours(case: Case, engine: LocalEngine, rollouts: Sequence[tuple[tuple[int, ...], Completion]]) -> None:
    """One update after one that makes the optimiser's state."""
    datums = [
        Datum(context, c.tokens, c.logprobs, 1.0 if index % 2 else -1.0, 1 / case.tokens)
        for index, (context, c) in enumerate(rollouts)
    ]
    engine.train_step(datums, LOSS, LEARNING_RATE)
    found = timed(case.device, lambda: engine.train_step(datums, LOSS, LEARNING_RATE))
    metrics = found.value
    sound = metrics.not_finite is None and abs(metrics.ratio_mean - 1) < 0.1
    case.measured("training", "fastslow", found, ratio_mean=metrics.ratio_mean, grad_norm=metrics.grad_norm)
    case.record(
        what="check", name=f"case {case.name}: the update is sound", ok=sound, why=f"ratio {metrics.ratio_mean:.3g}"
    )


def sample_transformers(case: Case, engine: LocalEngine) -> None:
    """`generate` and `generate_batch` on the same weights, with the attention that transformers would take."""
    model = engine.model.get_base_model() if engine.policy.has_adapter else engine.model
    shares = engine.policy.unshared_reason is None
    model.generation_config.eos_token_id = None
    model.set_attn_implementation("sdpa")
    try:
        for side, call in (("generate", _generate), ("generate_batch", _generate_batch)):
            try:
                call(model, case, engine.policy.pad_token, min(8, case.workload.new_tokens))
                found = timed(
                    case.device,
                    lambda call=call: call(model, case, engine.policy.pad_token, case.workload.new_tokens),
                )
                if found.value != case.tokens:
                    raise RuntimeError(f"it gave {found.value} tokens instead of {case.tokens}")
            except Exception as error:  # what another library cannot do here is told, not fatal
                said = (str(error) or "no message").splitlines()[0]
                case.record(what="left out", name=f"{side}, case {case.name}", why=f"{type(error).__name__}: {said}")
            else:
                case.measured("sampling", side, found)
    finally:
        if shares:
            attention.use(model)
        _free(case.device)


def _free(device: torch.device) -> None:
    """Give back what another library's cache has held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _config(new_tokens: int, pad: int, **more: Any) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=pad, **more
    )


@torch.inference_mode()
def _generate(model: Any, case: Case, pad: int, new_tokens: int) -> int:
    """Tokens that came out."""
    longest = max(map(len, case.contexts_R))
    padded = [[pad] * (longest - len(context)) + list(context) for context in case.contexts_R]
    mask = [[0] * (longest - len(context)) + [1] * len(context) for context in case.contexts_R]
    out = model.generate(
        torch.tensor(padded, device=case.device),
        attention_mask=torch.tensor(mask, device=case.device),
        generation_config=_config(new_tokens, pad, eos_token_id=None),
    )
    return int(out[:, longest:].numel())


def _generate_batch(model: Any, case: Case, pad: int, new_tokens: int) -> int:
    """Tokens that came out."""
    if case.device.type != "cuda":
        raise RuntimeError("continuous batching is measured on a GPU")
    config = _config(new_tokens, pad, eos_token_id=-1)
    out = model.generate_batch([list(context) for context in case.contexts_R], generation_config=config)
    model.set_attn_implementation("sdpa")  # it has put the model on a paged one
    return sum(len(found.generated_tokens) for found in out.values())


def measure_trl(cases: Sequence[Case], weights: Path, directory: Path, options: Options, record: Record) -> None:
    """TRL's own step in a process of its own, on weights of the same shape."""
    if not has("trl"):
        record(what="left out", name="TRL", why="trl is not installed")
        return
    _free(options.on)
    model = random_model(directory, options.on, torch.bfloat16)
    model.save_pretrained(weights)
    del model
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(directory / name, weights / name)
    _free(options.on)
    for case in cases:
        rows, threads = min(TRL_ROWS, len(case.contexts_R)), torch.get_num_threads()
        settings = Settings(case.workload, str(weights), "bfloat16", threads, "wall", "weights", rows, options.on.type)
        worker = Worker(Side("trl_step.py", True), sys.executable, settings)
        try:
            same = [tuple(context) for context in worker.ready["contexts"]] == case.contexts_R
            record(what="check", name=f"case {case.name}: TRL sees the same tokens", ok=same)
            worker.step()
            step = worker.step()
        finally:
            worker.close()
        peak = step.get("peak_device_bytes")
        for part in ("sampling", "training"):
            case.measured(part, "TRL", Timed(None, step[f"{part}_s"], peak / 2**30 if peak else None))
