"""How far the learner's log-probabilities are from the sampler's on fresh rollouts, in each precision.

    python benchmarks/precision.py --model DIR [--rollouts 32] [--new-tokens 64]

Prints one JSON line a precision: mean, 99th percentile and maximum of |learner - sampler| in nats, the largest
importance ratio, and the k3 estimate of the mismatch KL (exp(d) - d - 1). bfloat16 is computed in bfloat16, also where
the processor only emulates it.
"""

import argparse
import json
from typing import Any

import torch

from fastslow.slow.engine import SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local import loading
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.local.probe import TEXT
from fastslow.slow.settings import ModelConfig, SlowConfig


def measure(model: str, dtype: Any, rollouts: int, new_tokens: int, sharing: bool) -> dict[str, Any]:
    """Rollouts of sentences of ordinary text, eight of each, sampled and then scored."""
    engine = LocalEngine(ModelConfig(name=model, dtype=dtype), SlowConfig(prefix_sharing=sharing))
    sentences = TEXT.replace("?", ".").split(". ")
    contexts = [engine.encode([{"role": "user", "content": sentence}]) for sentence in sentences]
    requests = [SampleRequest(contexts[i % len(contexts)], 8, i) for i in range(-(-rollouts // 8))]
    groups = engine.sample(requests, SamplingParams(new_tokens))
    flat = [(r.context_tokens, c) for r, group in zip(requests, groups, strict=True) for c in group]
    learner = engine.logprobs([TokenSequence(context, c.tokens) for context, c in flat])
    sampler = torch.tensor([value for _, c in flat for value in c.logprobs], dtype=torch.float64)
    d = torch.tensor([value for row in learner for value in row], dtype=torch.float64) - sampler
    return {
        "dtype": dtype,
        "device": engine.policy.device.type,
        "prefix_sharing": engine.policy.unshared_reason is None,
        "tokens": len(d),
        "mean_nats": float(d.abs().mean()),
        "p99_nats": float(d.abs().quantile(0.99)),
        "max_nats": float(d.abs().max()),
        "max_ratio": float(d.exp().max()),
        "mismatch_kl": float((d.exp() - d - 1).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    arguments = parser.parse_args()
    loading.has_fast_bfloat16 = lambda device: True
    for dtype in ("float32", "bfloat16"):
        for sharing in (True, False):
            found = measure(arguments.model, dtype, arguments.rollouts, arguments.new_tokens, sharing)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
