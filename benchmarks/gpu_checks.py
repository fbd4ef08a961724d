"""The parts of check_gpu.py that are right or wrong: the engine's contract, the two decoders, a run cut and resumed."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_models import letters, random_model, write_shape

from fastslow.slow.engine import LossSettings, SampleRequest, SamplingParams
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers.forest import ForestSampler
from fastslow.slow.samplers.settings import ForestConfig
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.testing.engines import CHECKS, EngineCase, worst

Record = Callable[..., None]
# Nats by which rounding may move a log-probability of the small model that is checked.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.2}
LOSS = LossSettings(kl_coefficient=1e-3)
# Without deterministic algorithms sums come in another order each time:
# so far may weights of size 1 be apart afterwards.
LOOSE = 1e-3


@dataclass(frozen=True)
class Options:
    """Where to run, and whether on models that a CPU computes in a second."""

    device: str
    tiny: bool

    @property
    def on(self) -> torch.device:
        """The device."""
        return torch.device(self.device)


def has(library: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(library) is not None


def small_model(root: Path, device: torch.device) -> Path:
    """A random model of two layers with weights on disk, whose tokenizer takes any text."""
    directory = write_shape(root / "small", "tiny", letters(), vocab_size=128, max_position_embeddings=256)
    random_model(directory, torch.device("cpu"), torch.float32).save_pretrained(directory)
    return directory


def engine_of(
    directory: Path, options: Options, dtype: str, *, lora: bool = False, decoder: str = "auto", **slow: Any
) -> LocalEngine:
    """A local engine on the small model. On a CPU the decoder for a GPU has to be asked for."""
    wanted = "static" if decoder == "auto" else decoder
    adapter = LoraConfig(rank=4, alpha=8) if lora else None
    model = ModelConfig(name=str(directory), dtype=dtype, device=options.device, lora=adapter)  # type: ignore[arg-type]
    return LocalEngine(model, SlowConfig(microbatch_tokens=64, sampler=ForestConfig(decoder=wanted), **slow), seed=7)  # type: ignore[arg-type]


def variants(options: Options) -> Iterator[tuple[str, bool]]:
    """Precision, and whether an adapter is trained."""
    for dtype in ("float32",) if options.tiny else ("float32", "bfloat16"):
        for lora in (False, True) if has("peft") and not options.tiny else (False,):
            yield dtype, lora


def check_contract(options: Options, record: Record) -> None:
    """Every check of the engine's contract, in both precisions, all parameters and LoRA."""
    if not has("peft"):
        record(what="left out", name="LoRA", why="peft is not installed")
    for dtype, lora in variants(options):
        with tempfile.TemporaryDirectory() as root:
            directory = small_model(Path(root), options.on)
            case = EngineCase(
                lambda directory=directory, dtype=dtype, lora=lora: engine_of(directory, options, dtype, lora=lora),
                Path(root) / "saved", tolerance=TOLERANCES[dtype], exact=False,
            )  # fmt: skip
            for check in CHECKS:
                name = f"{dtype}{' LoRA' if lora else ''}: {check.__name__.replace('_', ' ')}"
                try:
                    check(case)
                    record(what="check", name=name, ok=True)
                except Exception as error:
                    record(what="check", name=name, ok=False, why=f"{type(error).__name__}: {error}")
    check_decoders(options, record)


def check_decoders(options: Options, record: Record) -> None:
    """The decoder for a GPU gives the tokens of the other one, and its steps are captured."""
    requests = [SampleRequest(tuple(range(8, 12 + 3 * i)), 5, seed=i) for i in range(6)]
    params = SamplingParams(8 if options.tiny else 64)
    with tempfile.TemporaryDirectory() as root:
        directory = small_model(Path(root), options.on)
        for dtype, _ in (pair for pair in variants(options) if not pair[1]):
            engines = [engine_of(directory, options, dtype, decoder=decoder) for decoder in ("growing", "static")]
            groups = [[c for group in engine.sample(requests, params) for c in group] for engine in engines]
            pairs = list(zip(*groups, strict=True))
            alike = [(one, other, common(one.tokens, other.tokens)) for one, other in pairs]
            gap = worst(
                [list(one.logprobs[:n]) for one, _, n in alike], [list(other.logprobs[:n]) for _, other, n in alike]
            )
            share = sum(n for *_, n in alike) / sum(len(one.tokens) for one, _ in pairs)
            # Rounding of bfloat16 moves draws of a flat distribution; what was drawn alike must still be as likely.
            ok = gap <= TOLERANCES[dtype] and share >= (0.9 if dtype == "float32" else 0.02)
            name = f"{dtype}: fixed shapes give the tokens of shapes that grow"
            record(what="check", name=name, ok=ok, why=f"{share:.0%} of tokens, logprobs {gap:.1g} nats apart")
            if options.on.type == "cuda":
                sampler = engines[1].sampler
                assert isinstance(sampler, ForestSampler)
                replays = sampler.replays
                why = replays.reason or f"{replays.captured} graphs, {replays.replayed} replays"
                record(what="check", name=f"{dtype}: steps are CUDA graphs", ok=replays.captured > 0, why=why)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens before the first that differs."""
    return next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))


def check_resume(options: Options, record: Record) -> None:
    """A cut and resumed engine ends where the uninterrupted one ends: bit for bit where sums have one order."""
    for exact in (True, False):
        # Running sums along one dimension have a fixed order where there are several rows; torch only warns of them.
        torch.use_deterministic_algorithms(exact, warn_only=True)
        for dtype, lora in variants(options):
            with tempfile.TemporaryDirectory() as root:
                gap, same = _resumed(Path(root), options, dtype, lora)
            mode = "deterministic" if exact else "as usual"
            ok = gap == 0 and same if exact else gap <= LOOSE
            why = f"weights up to {gap:.1g} apart" + (", the next rollouts are the same" if same else "")
            record(what="check", name=f"{dtype}{' LoRA' if lora else ''}: resume, {mode}", ok=ok, why=why)
    torch.use_deterministic_algorithms(False)


def _resumed(root: Path, options: Options, dtype: str, lora: bool) -> tuple[float, bool]:
    """The largest difference of a weight, and whether both go on to the same rollouts."""
    directory = small_model(root, options.on)
    case = EngineCase(lambda: engine_of(directory, options, dtype, lora=lora), root)
    going, resumed = case.make(), case.make()
    datums = case.datums(going)
    for _ in range(2):
        going.train_step(datums, LOSS, 3e-3)
    going.save(root / "saved", resumable=True)
    resumed.load(root / "saved")
    for engine in (going, resumed):
        engine.train_step(datums, LOSS, 3e-3)
    pairs = zip(going.model.parameters(), resumed.model.parameters(), strict=True)  # type: ignore[attr-defined]
    gap = max(float((one.detach().float() - other.detach().float()).abs().max()) for one, other in pairs)
    params = SamplingParams(8)
    return gap, going.sample(case.asked, params) == resumed.sample(case.asked, params)
