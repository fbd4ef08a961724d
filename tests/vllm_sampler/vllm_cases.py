"""Models, engines and runs for the tests of the vLLM sampler, and the one measure that they all take.

As a script it trains a run and kills itself: `python vllm_cases.py MODEL OUTPUT LORA KILLED_AFTER`; without
KILLED_AFTER it goes on from where the run was killed.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastslow.config import Config, parse_config
from fastslow.loop import train
from fastslow.slow.engine import Datum, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers.settings import VllmConfig
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from lab_runs import STATED_RULES

SAMPLER: dict[str, Any] = {"kind": "vllm", "kv_cache_gib": 0.125, "max_num_seqs": 32, "enforce_eager": True}
LORA = LoraConfig(rank=4, alpha=8)
PARAMS = SamplingParams(8)
REQUESTS = [
    SampleRequest((10, 11, 12, 13, 14, 15, 16), 3, seed=1),
    SampleRequest((10, 11, 12, 40), 2, seed=2),
    SampleRequest((50,), 2, seed=3),
    SampleRequest((10, 11, 12), 2, seed=4),
]
TOLERANCE = 1e-4
"""Nats, in float32: ten times what is seen, a tenth of what is promised."""
STEPS = 6


def tiny_model(directory: Path) -> Path:
    """A random Llama whose heads are as wide as vLLM's attention on a CPU wants them."""
    from tiny import make_model_dir

    return make_model_dir(directory, head_dim=32)


def make_engine(directory: Path, *, lora: bool = False, dtype: Any = "float32", **sampler: Any) -> LocalEngine:
    """The local engine with vLLM as its sampler."""
    model = ModelConfig(name=str(directory), device="cpu", dtype=dtype, lora=LORA if lora else None)
    return LocalEngine(model, SlowConfig(sampler=VllmConfig(**{**SAMPLER, **sampler})), seed=7)


def gap(engine: LocalEngine, requests: Sequence[SampleRequest] = REQUESTS, params: SamplingParams = PARAMS) -> float:
    """The largest difference, in nats, of the sampler's log-probabilities and the learner's on fresh completions."""
    groups = engine.sample(requests, params)
    sequences, drawn = [], []
    for request, group in zip(requests, groups, strict=True):
        for completion in group:
            sequences.append(TokenSequence(request.context_tokens, completion.tokens))
            drawn += completion.logprobs
    learnt = [value for row in engine.logprobs(sequences) for value in row]
    return max(abs(a - b) for a, b in zip(drawn, learnt, strict=True))


def datums_of(
    engine: LocalEngine, requests: Sequence[SampleRequest] = REQUESTS, params: SamplingParams = PARAMS
) -> list[Datum]:
    """Fresh rollouts with advantages -1, 1, -1 ..."""
    groups = engine.sample(requests, params)
    flat = [(r.context_tokens, c) for r, group in zip(requests, groups, strict=True) for c in group]
    weight = 1.0 / sum(len(c.tokens) for _, c in flat)
    return [
        Datum(context, c.tokens, c.logprobs, 1.0 if index % 2 else -1.0, weight)
        for index, (context, c) in enumerate(flat)
    ]


def config_of(model: Path, output: Path, *, lora: bool) -> Config:
    """A few cycles of FST that have something to learn."""
    return parse_config(
        {
            "model": {"name": str(model), **({"lora": {"rank": 4}} if lora else {})},
            "task": {"name": "lab", "options": {"world": "amber"}, "seed_prompt": STATED_RULES},
            "output": str(output),
            "seed": 3,
            "steps": STEPS,
            "threads": 1,
            "checkpoint_every": 2,
            "loop": {
                "steps_per_cycle": 2, "population_size": 2, "group_size": 4, "problems_per_step": 4, "reuse_max_age": 2,
            },
            "sampling": {"max_tokens": 16},
            "slow": {"learning_rate": 1e-3 if lora else 1e-4, "warmup_steps": 2, "sampler": SAMPLER},
            "fast": {
                "anchor_problems": 4, "metric_calls": 16, "reflection_minibatch": 2,
                "proposer": {"kind": "lesson", "phrasebook": "package:fastslow.lab/model/phrasebook.json"},
            },
            "evaluation": {"every": 3, "problems": 4, "k": 2, "kl_problems": 2},
        }
    )  # fmt: skip


class Killer:
    """Kills this process once a step has been written down."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_event(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "step" and payload["step"] == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(model: str, output: str, lora: str, killed_after: str = "") -> None:
    config = config_of(Path(model), Path(output), lora=lora == "lora")
    if killed_after:
        train(config, observer=Killer(int(killed_after)))
    else:
        train(config, resume=Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
