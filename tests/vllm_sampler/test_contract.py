"""The contract suite (`fastslow.testing.engines`) on the local engine with vLLM as its sampler,
and what this sampler promises beyond it.

Tolerances: float32 1e-4 nats; bfloat16, where both sides round in their own ways, 0.3 on a tiny model.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.errors import ConfigError, TooLongError
from fastslow.slow.engine import LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local import loading
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.samplers import vllm as vllm_sampler
from fastslow.testing.engines import CHECKS, EngineCase

from vllm_cases import PARAMS, REQUESTS, TOLERANCE, datums_of, gap, make_engine

pytestmark = pytest.mark.slow

SETUPS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": True},
    "full-bfloat16": {"dtype": "bfloat16"},
    "lora-bfloat16": {"lora": True, "dtype": "bfloat16"},
}


@pytest.fixture(scope="module", autouse=True)
def bfloat16_everywhere() -> Iterator[None]:
    """bfloat16 is tested on machines that only emulate it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "has_fast_bfloat16", lambda device: True)
        yield


@pytest.fixture(scope="module", params=SETUPS.values(), ids=SETUPS.keys())
def case(
    request: pytest.FixtureRequest, model_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> EngineCase:
    setup, exact = request.param, "dtype" not in request.param
    return EngineCase(
        lambda: make_engine(model_dirs["tiny"], **setup), tmp_path_factory.mktemp("saved"), exact=exact,
        tolerance=TOLERANCE if exact else 0.3, requests=REQUESTS,
    )  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(check: Callable[[EngineCase], None], case: EngineCase) -> None:
    check(case)


@pytest.fixture(scope="module")
def engine(model_dirs: dict[str, Path]) -> LocalEngine:
    """An engine that no test trains."""
    return make_engine(model_dirs["lab"])


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_log_probabilities_are_the_same_to_the_last_bit_whatever_was_sampled_before(engine: LocalEngine) -> None:
    """A resumed run begins with empty caches, an uninterrupted one does not."""
    first = engine.sample(REQUESTS, PARAMS)
    engine.sample([SampleRequest((10, 11, 12, 13, 14, 15, 16) * 20, 5, seed=9)], PARAMS)
    assert engine.sample(REQUESTS, PARAMS) == first


def test_draws_follow_the_models_distribution(engine: LocalEngine) -> None:
    context, n = (10, 11, 12), 600
    (drawn,) = engine.sample([SampleRequest(context, n, seed=5)], SamplingParams(1))
    (row,) = engine.sample([SampleRequest(context, 1, seed=5)], SamplingParams(1, temperature=0.0))
    rivals = [TokenSequence(context, (token,)) for token in range(175)]
    probs = torch.tensor([value for (value,) in engine.logprobs(rivals)]).exp()
    assert row[0].tokens == (int(probs.argmax()),)
    counts = torch.bincount(torch.tensor([c.tokens[0] for c in drawn]), minlength=175)
    assert torch.all((counts - n * probs).abs() <= 5 * (n * probs * (1 - probs)).sqrt() + 1)
    assert int((counts > 0).sum()) > 3  # the seeds differ


@pytest.mark.parametrize("temperature", [0.7, 1.6])
def test_ratios_are_one_at_every_temperature(model_dirs: dict[str, Path], temperature: float) -> None:
    engine = make_engine(model_dirs["tiny"])
    datums = datums_of(engine, params=SamplingParams(8, temperature=temperature))
    metrics = engine.train_step(datums, LossSettings(temperature=temperature), 1e-3)
    assert metrics.ratio_mean == pytest.approx(1, abs=TOLERANCE)
    assert metrics.ratio_max == pytest.approx(1, abs=3 * TOLERANCE)


def test_top_p_keeps_to_the_nucleus(engine: LocalEngine) -> None:
    context = (10, 11, 12)
    (drawn,) = engine.sample([SampleRequest(context, 100, seed=5)], SamplingParams(1, top_p=0.5))
    probs = torch.tensor([v for (v,) in engine.logprobs([TokenSequence(context, (t,)) for t in range(175)])]).exp()
    values, order = probs.sort(descending=True)
    nucleus = set(order[values.cumsum(0) - values < 0.5].tolist())
    assert {c.tokens[0] for c in drawn} <= nucleus


def test_a_temperature_that_vllm_would_raise_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(ConfigError, match=r"temperature: 0.001 is below the lowest that vLLM has"):
        engine.sample(REQUESTS, SamplingParams(8, temperature=0.001))


def test_more_completions_than_seats_are_drawn_in_turns(engine: LocalEngine, model_dirs: dict[str, Path]) -> None:
    narrow = make_engine(model_dirs["lab"], max_num_seqs=2)
    assert [[c.tokens for c in g] for g in narrow.sample(REQUESTS, PARAMS)] == [
        [c.tokens for c in g] for g in engine.sample(REQUESTS, PARAMS)
    ]


def test_a_shorter_max_model_len_is_the_engines_context_limit(model_dirs: dict[str, Path]) -> None:
    engine = make_engine(model_dirs["lab"], max_model_len=32)
    assert engine.context_limit == 32
    assert len(engine.sample([SampleRequest((10,) * 24, 1, 0)], PARAMS)[0]) == 1
    with pytest.raises(TooLongError, match="8 tokens after a context of 25 exceed the model's 32 positions"):
        engine.sample([SampleRequest((10,) * 25, 1, 0)], PARAMS)


def test_what_vllm_cannot_do_is_told_with_the_way_out(model_dirs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)vLLM cannot draw from .*kv_cache_gib 0.0001.*or take kind: forest"):
        make_engine(model_dirs["lab"], kv_cache_gib=0.0001)


def test_engines_end_one_by_one(model_dirs: dict[str, Path]) -> None:
    """vLLM's engines share process groups: the end of one must leave the others alone, a failed start too."""
    first, second = make_engine(model_dirs["lab"]), make_engine(model_dirs["lab"])
    expected = second.sample(REQUESTS, PARAMS)
    gone = weakref.ref(first.sampler)
    del first
    assert gone() is None  # vLLM holds on to nothing of it
    assert second.sample(REQUESTS, PARAMS) == expected
    with pytest.raises(ConfigError):
        make_engine(model_dirs["lab"], kv_cache_gib=0.0001)
    gc.collect()
    assert second.sample(REQUESTS, PARAMS) == expected


# -- the weights -------------------------------------------------------------------------------------------------------


def test_a_stale_tied_head_would_be_seen(model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What `named_parameters` gives: everything but the head, which is the embedding under another name."""
    whole = vllm_sampler.checkpoint_tensors
    engine = make_engine(model_dirs["lab"])
    datums = datums_of(engine)
    without = {"missing": lambda model: {k: v for k, v in whole(model).items() if k != "lm_head.weight"}}
    monkeypatch.setattr(vllm_sampler, "checkpoint_tensors", without["missing"])
    for _ in range(3):
        engine.train_step(datums, LossSettings(), 3e-3)
    assert gap(engine) > 100 * TOLERANCE
    monkeypatch.setattr(vllm_sampler, "checkpoint_tensors", whole)
    engine.sync()
    assert gap(engine) < TOLERANCE


@pytest.mark.parametrize("lora", [False, True])
def test_a_sync_that_is_left_out_would_be_seen(
    model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, lora: bool
) -> None:
    engine = make_engine(model_dirs["lab"], lora=lora)
    datums = datums_of(engine)
    with monkeypatch.context() as patch:
        patch.setattr(engine.sampler, "sync", lambda: None)
        for _ in range(3):
            engine.train_step(datums, LossSettings(), 3e-3)
    assert gap(engine) > 100 * TOLERANCE
    engine.sync()
    assert gap(engine) < TOLERANCE
