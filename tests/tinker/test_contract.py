"""One suite over both engines: the same call, the same shapes, the same meaning. And: on one adapter they agree.

The server computes in float32 with its own kernels, so log-probabilities agree within 1e-3.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.errors import ConfigError, ResumeError
from fastslow.slow.engine import Datum, DistillDatum, LossSettings, SampleRequest, SamplingParams, TokenSequence
from fastslow.slow.local.engine import LocalEngine
from fastslow.slow.settings import LoraConfig, ModelConfig, SlowConfig
from fastslow.slow.tinker.engine import TinkerEngine

from skyrl_server import SkyrlServer

pytestmark = pytest.mark.slow

MAX_TOKENS = 8
PARAMS = SamplingParams(MAX_TOKENS)
LOSS = LossSettings(kl_coefficient=0.0)
SLOW = SlowConfig(max_grad_norm=None)
TOLERANCE = 1e-3
REQUESTS = [
    SampleRequest((10, 11, 12, 13, 14, 15, 16), 3, seed=1),
    SampleRequest((10, 11, 12, 40), 2, seed=2),
    SampleRequest((50, 51), 2, seed=3),
]
# Seven rollouts of different lengths, given: neither engine sampled them.
GIVEN = [
    TokenSequence((10, 11, 12, 13, 14), (60, 61, 62, 1)),
    TokenSequence((10, 11, 12, 13, 14), (63, 1)),
    TokenSequence((20, 21), (70, 71, 72, 73, 74, 75, 1)),
    TokenSequence((20, 21), (76,)),
    TokenSequence((30, 31, 32), (80, 81, 1)),
]


def model_config(directory: Path) -> ModelConfig:
    return ModelConfig(name=str(directory), device="cpu", lora=LoraConfig(rank=4, alpha=32))


def remote_engine(server: SkyrlServer, **settings: Any) -> TinkerEngine:
    return TinkerEngine(model_config(server.model), SLOW, server.config(), seed=7, **settings)


@pytest.fixture(scope="module", params=["local", "tinker"])
def engine(request: pytest.FixtureRequest, server: SkyrlServer) -> Any:
    """An engine; the tests below train it in turn and rely on nothing that was before."""
    if request.param == "tinker":
        return remote_engine(server)
    return LocalEngine(model_config(server.model), SLOW, seed=7)


def flat(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row])


def worst(a: list[list[float]], b: list[list[float]]) -> float:
    assert [len(row) for row in a] == [len(row) for row in b]
    return float((flat(a) - flat(b)).abs().max())


def datums_of(sampler: list[list[float]], sequences: list[TokenSequence]) -> list[Datum]:
    tokens = sum(len(sequence.completion_tokens) for sequence in sequences)
    return [
        Datum(s.context_tokens, s.completion_tokens, tuple(row), 1.0 if index % 2 else -1.0, (1 + index) / tokens)
        for index, (s, row) in enumerate(zip(sequences, sampler, strict=True))
    ]


def test_completions_have_the_promised_shape(engine: Any) -> None:
    groups = engine.sample(REQUESTS, PARAMS)
    assert [len(group) for group in groups] == [request.n for request in REQUESTS]
    for completion in (completion for group in groups for completion in group):
        stopped = completion.tokens[-1] in engine.stop
        assert not set(completion.tokens[:-1]) & engine.stop
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(completion.tokens) == MAX_TOKENS
        assert all(logprob <= 0 for logprob in completion.logprobs)


def test_the_same_call_gives_the_same_completions_and_another_seed_others(engine: Any) -> None:
    first = engine.sample(REQUESTS, PARAMS)
    assert [c.tokens for g in engine.sample(REQUESTS, PARAMS) for c in g] == [c.tokens for g in first for c in g]
    other = engine.sample([replace(request, seed=request.seed + 100) for request in REQUESTS], PARAMS)
    assert [c.tokens for group in other for c in group] != [c.tokens for group in first for c in group]


def test_nothing_asked_for_is_nothing_given(engine: Any) -> None:
    assert engine.sample([], PARAMS) == []
    assert engine.logprobs([]) == [] and engine.kl_to_base([]) == []
    none, some = engine.sample([replace(REQUESTS[0], n=0), REQUESTS[1]], PARAMS)
    assert (len(none), len(some)) == (0, REQUESTS[1].n)
    before = engine.policy_version
    assert engine.train_step([], LOSS, 1.0).tokens == 0
    assert engine.policy_version == before


def test_sampling_and_training_agree(engine: Any) -> None:
    groups = engine.sample(REQUESTS, PARAMS)
    pairs = [(r, c) for r, group in zip(REQUESTS, groups, strict=True) for c in group]
    learner = engine.logprobs([TokenSequence(r.context_tokens, c.tokens) for r, c in pairs])
    assert worst([list(c.logprobs) for _, c in pairs], learner) < TOLERANCE


def test_text_goes_in_and_comes_out(engine: Any) -> None:
    tokens = engine.encode([{"role": "system", "content": "Be-brief."}, {"role": "user", "content": "2+2?"}])
    assert engine.decode(tokens) == "Be-brief.2+2?"


def test_what_cannot_be_done_is_refused_before_anything_moves(engine: Any) -> None:
    before = engine.policy_version
    with pytest.raises(ConfigError, match=r"sampling.max_tokens: 8 tokens after a context of 2045 exceed"):
        engine.sample([SampleRequest((10,) * 2045, 1, 0)], PARAMS)
    with pytest.raises(ConfigError, match=r"slow.loss: 'ppo'"):
        engine.train_step(datums_of([[0.0] * len(s.completion_tokens) for s in GIVEN], GIVEN), LossSettings("ppo"), 1.0)
    assert engine.policy_version == before


def test_an_update_moves_log_probabilities_with_their_advantages_and_leaves_the_base(engine: Any) -> None:
    before, base, version = engine.logprobs(GIVEN), engine.logprobs(GIVEN, "base"), engine.policy_version
    datums = datums_of(before, GIVEN)
    metrics = engine.train_step(datums, LossSettings(kl_coefficient=1e-3), 3e-3)
    assert metrics.tokens == sum(len(s.completion_tokens) for s in GIVEN)
    assert metrics.ratio_mean == pytest.approx(1, abs=TOLERANCE)
    assert metrics.clip_fraction == 0
    assert metrics.grad_norm > 0
    policy = -sum(d.token_weight * d.advantage * sum(row) for d, row in zip(datums, before, strict=True))
    assert metrics.loss == pytest.approx(policy, abs=0.05)  # the penalty is small
    after = engine.logprobs(GIVEN)
    assert sum(d.advantage * (sum(new) - sum(old)) for d, new, old in zip(datums, after, before, strict=True)) > 0.01
    assert engine.policy_version == version + 1
    assert worst(engine.logprobs(GIVEN, "base"), base) < 1e-5
    assert min(min(row) for row in engine.kl_to_base(GIVEN)) >= -1e-6


def test_a_saved_engine_goes_on_as_if_nothing_had_been(engine: Any, server: SkyrlServer, tmp_path: Path) -> None:
    datums = datums_of(engine.logprobs(GIVEN), GIVEN)
    engine.train_step(datums, LOSS, 1e-3)
    engine.save(tmp_path / "saved", resumable=True)
    version, saved = engine.policy_version, engine.logprobs(GIVEN)
    engine.train_step(datums, LOSS, 1e-2)
    expected = engine.logprobs(GIVEN)
    engine.load(tmp_path / "saved")
    assert engine.policy_version == version
    assert worst(engine.logprobs(GIVEN), saved) < 1e-5
    engine.train_step(datums, LOSS, 1e-2)  # the optimiser's moments came back as well
    assert worst(engine.logprobs(GIVEN), expected) < 1e-4
    # What was saved opens on this machine, whoever wrote it.
    local = LocalEngine(model_config(server.model), SLOW, adapter=tmp_path / "saved")
    assert worst(local.logprobs(GIVEN), saved) < TOLERANCE


# -- the two engines on one adapter ------------------------------------------------------------------------------------


@dataclass
class Pair:
    local: LocalEngine
    remote: TinkerEngine


@pytest.fixture
def pair(server: SkyrlServer, tmp_path: Path) -> Iterator[Pair]:
    """Both engines with the adapter that the server has just initialised."""
    remote = remote_engine(server)
    remote.save(tmp_path / "fresh", resumable=False)
    yield Pair(LocalEngine(model_config(server.model), SLOW, adapter=tmp_path / "fresh"), remote)


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_log_probabilities_gradients_and_directions_agree(pair: Pair, coefficient: float) -> None:
    loss = LossSettings(kl_coefficient=coefficient)
    before = [engine.logprobs(GIVEN) for engine in (pair.local, pair.remote)]
    assert worst(*before) < TOLERANCE
    # Off-policy on purpose: one rollout is clipped, and lengths and weights differ.
    sampler = [[value - (2.0 if index == 0 else 0.1 * index) for value in row] for index, row in enumerate(before[0])]
    datums = datums_of(sampler if not coefficient else before[0], GIVEN)
    steps = [engine.train_step(datums, loss, 1e-3) for engine in (pair.local, pair.remote)]
    assert steps[1].loss == pytest.approx(steps[0].loss, abs=TOLERANCE)
    assert steps[1].clip_fraction == pytest.approx(steps[0].clip_fraction)
    assert steps[1].grad_norm == pytest.approx(steps[0].grad_norm, rel=1e-2)
    after = [engine.logprobs(GIVEN) for engine in (pair.local, pair.remote)]
    moved = [flat(new) - flat(old) for new, old in zip(after, before, strict=True)]
    assert float(torch.cosine_similarity(moved[0], moved[1], dim=0)) > 0.99
    assert float(moved[0].norm()) == pytest.approx(float(moved[1].norm()), rel=0.05)


def test_the_kl_estimate_agrees_with_the_exact_one_on_average(pair: Pair) -> None:
    datums = datums_of(pair.local.logprobs(GIVEN), GIVEN)
    for engine in (pair.local, pair.remote):
        for _ in range(3):
            engine.train_step(datums, LOSS, 3e-3)
    request = SampleRequest((10, 11, 12, 13, 14), 64, seed=5)
    (completions,) = pair.remote.sample([request], PARAMS)
    sequences = [TokenSequence(request.context_tokens, completion.tokens) for completion in completions]
    estimated, exact = (flat(engine.kl_to_base(sequences)).mean() for engine in (pair.remote, pair.local))
    assert float(estimated) == pytest.approx(float(exact), rel=0.5, abs=0.02)


# -- the server's own --------------------------------------------------------------------------------------------------


def test_the_base_alone_takes_no_adapter(server: SkyrlServer) -> None:
    base = remote_engine(server, train=False)
    local = LocalEngine(model_config(server.model), SLOW)
    assert worst(base.logprobs(GIVEN), local.logprobs(GIVEN, "base")) < TOLERANCE
    assert [len(group) for group in base.sample(REQUESTS, PARAMS)] == [3, 2, 2]


def test_a_rank_that_the_server_does_not_have_is_refused(server: SkyrlServer) -> None:
    model = model_config(server.model).model_copy(update={"lora": LoraConfig(rank=64)})
    with pytest.raises(
        ConfigError, match=r"model.lora.rank: .* with rank 64 cannot be trained there: .*between 1 and 8"
    ):
        TinkerEngine(model, SLOW, server.config())


def test_a_state_that_the_server_has_lost_is_named(server: SkyrlServer, tmp_path: Path) -> None:
    (tmp_path / "tinker.json").write_text(
        '{"state": "tinker://model_x/weights/y", "policy_version": 1}', encoding="utf-8"
    )
    with pytest.raises(ResumeError, match="does not give the state 'tinker://model_x/weights/y' back"):
        remote_engine(server).load(tmp_path)


def test_distillation_is_refused(server: SkyrlServer) -> None:
    with pytest.raises(ConfigError, match="method: 'distill'"):
        remote_engine(server, train=False).distill_step([DistillDatum((1,), (2,), (3,), 1.0)], 1e-3)
